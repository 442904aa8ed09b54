import itertools
import math
import random

import numpy as np
import pytest
from scipy.stats import binom

from metagdpo.errors import EvidenceError
from metagdpo.evaluation.drift import drift_of, estimate_drift

END, LONGEST = 2, 3
BASE = {None: (0.5, 0.3, 0.2), 0: (0.2, 0.5, 0.3), 1: (0.6, 0.1, 0.3)}
CANDIDATE = {None: (0.4, 0.4, 0.2), 0: (0.3, 0.3, 0.4), 1: (0.5, 0.2, 0.3)}


def texts():
    """Every text of the enumerable model: letters 0 and 1, ended by END or cut at LONGEST."""
    for n in range(1, LONGEST + 1):
        for text in itertools.product((0, 1, END), repeat=n):
            if END not in text[:-1] and (text[-1] == END or n == LONGEST):
                yield text


def log_prob(model, text):
    return sum(math.log(model[last][token]) for last, token in zip((None, *text), text, strict=False))


def sample(rng):
    text = ()
    while not text or (text[-1] != END and len(text) < LONGEST):
        text += tuple(rng.choices((0, 1, END), BASE[text[-1] if text else None]))
    return text


def ratio_of(sampled):
    return estimate_drift(
        [log_prob(BASE, text) for text in sampled],
        [log_prob(CANDIDATE, text) for text in sampled],
        [len(text) for text in sampled],
    )


def exact_kl_per_token():
    weights = {text: math.exp(log_prob(BASE, text)) for text in texts()}
    assert sum(weights.values()) == pytest.approx(1.0)
    kl = sum(p * (log_prob(BASE, text) - log_prob(CANDIDATE, text)) for text, p in weights.items())
    return kl / sum(p * len(text) for text, p in weights.items())


def test_the_interval_covers_the_exact_divergence_in_95_percent_of_runs():
    """Coverage over 400 runs lies in the 99.9 % range of a binomial of 0.95 (allowing 1 % for the ratio's bias)."""
    rng = random.Random(0)
    exact = exact_kl_per_token()
    found = [ratio_of([sample(rng) for _ in range(200)]) for _ in range(400)]
    covered = sum(drift.low <= exact <= drift.high for drift in found)
    assert binom.ppf(0.0005, 400, 0.94) <= covered <= binom.ppf(0.9995, 400, 0.96)


def test_the_mean_of_many_estimates_is_the_exact_divergence():
    rng = random.Random(1)
    found = np.array([ratio_of([sample(rng) for _ in range(200)]).kl_per_token for _ in range(400)])
    assert abs(found.mean() - exact_kl_per_token()) < 4 * found.std() / math.sqrt(len(found))


def test_the_variance_is_the_linearised_ratio_by_its_definition():
    x, n = np.array([1.0, -0.5, 4.0]), np.array([3.0, 1.0, 20.0])
    ratio = x.sum() / n.sum()
    variance = sum((x[i] - ratio * n[i]) ** 2 for i in range(3)) * 3 / 2 / n.sum() ** 2
    drift = estimate_drift(list(x), [0.0, 0.0, 0.0], [3, 1, 20])
    assert drift.kl_per_token == pytest.approx(ratio)
    assert drift.high - drift.low == pytest.approx(2 * 4.302652729911275 * math.sqrt(variance))  # t(0.975, 2 df)


def test_an_unchanged_model_has_no_drift():
    drift = estimate_drift([-3.0, -7.0], [-3.0, -7.0], [2, 5])
    assert (drift.kl_per_token, drift.low, drift.high, drift.n_samples, drift.n_tokens) == (0.0, 0.0, 0.0, 2, 7)


@pytest.mark.parametrize(
    ("base", "candidate", "n", "message"),
    [
        ([-1.0], [-2.0], [3], r"1 sample\(s\) tell nothing"),
        ([], [], [], r"0 sample\(s\) tell nothing"),
        ([-1.0, -2.0], [-2.0], [3, 3], "2, 1 and 2 samples"),
        ([-1.0, math.nan], [-2.0, -1.0], [3, 3], "base log-probability of sample 1 is nan"),
        ([-1.0, -1.0], [-math.inf, -1.0], [3, 3], "candidate log-probability of sample 0 is -inf"),
        ([-1.0, -1.0], [-1.0, -1.0], [3, 0], "token count of sample 1"),
    ],
)
def test_unusable_samples_are_refused(base, candidate, n, message):
    with pytest.raises(EvidenceError, match=message):
        estimate_drift(base, candidate, n)


def test_the_drift_is_of_the_divergences_and_shows_the_log_ratios_beside_it():
    exact, ratios, n = [0.3, 0.1, 0.2], [0.9, -0.4, 0.2], [3, 2, 4]
    drift = drift_of(exact, ratios, n)
    alone = estimate_drift(exact, [0.0] * 3, n)
    drawn = estimate_drift(ratios, [0.0] * 3, n)
    assert (alone.kl_per_token, alone.low, alone.high) == (drift.kl_per_token, drift.low, drift.high)
    assert (drawn.kl_per_token, drawn.low, drawn.high) == (drift.log_ratio, drift.log_ratio_low, drift.log_ratio_high)


def next_token_kl(last):
    return sum(p * math.log(p / q) for p, q in zip(BASE[last], CANDIDATE[last], strict=True))


def test_sums_of_next_token_divergences_have_the_mean_of_the_log_ratios():
    """Tower property, by enumeration of every text."""
    weights = {text: math.exp(log_prob(BASE, text)) for text in texts()}
    by_ratio = sum(p * (log_prob(BASE, text) - log_prob(CANDIDATE, text)) for text, p in weights.items())
    by_divergence = sum(p * sum(next_token_kl(last) for last in (None, *text[:-1])) for text, p in weights.items())
    assert by_ratio == pytest.approx(by_divergence, rel=1e-12)
