"""KL(base || candidate) is known exactly here: every text of at most three tokens over five words is listed."""

import math
from collections import Counter

import numpy as np
import pytest

from metagdpo.evaluation.drift import estimate_drift
from metagdpo.models.load import identify, load_model
from metagdpo.models.local import Local
from metagdpo.params import validate
from metagdpo.preservation.context_free import sample_context_free
from metagdpo.preservation.settings import ContextFreeParams

BOS, EOS = 0, 1
LONGEST = 3
N = 12_800
HELD_OUT = 64
"""Samples of one replication of the drift meter."""


class World:
    """Base and candidate, with the log-probability that each gives to every text that can be written."""

    def __init__(self, path):
        self.local = Local(path, identify("five", path), dtype="float32", batch_size=8192)
        base, candidate = load_model(path, "float32"), load_model(path, "float32")
        moved = load_model(path, "float32")
        import torch

        generator = torch.Generator().manual_seed(3)
        for one, other in zip(candidate.parameters(), moved.parameters(), strict=True):
            one.data = other.data + 0.15 * torch.randn(other.shape, generator=generator)
        self.base, self.candidate = base, candidate
        self.log_p, self.log_q = listed(base), listed(candidate)

    def drawn(self, n=N, **changes):
        settings = validate(
            {"n_train": n, "n_held_out": 2, "max_new_tokens": LONGEST, **changes}, ContextFreeParams, where="x"
        )
        return sample_context_free(self.local, "sha256:w", (BOS,), settings, n_train=n, seed=7)[0]

    def log_ratio(self, text):
        return self.log_p[text] - self.log_q[text]

    def expected(self, chances):
        """Mean log-ratio, and mean tokens, of texts that come with the given log-probabilities."""
        ratio = math.fsum(math.exp(p) * self.log_ratio(text) for text, p in chances.items())
        return ratio, math.fsum(math.exp(p) * len(text) for text, p in chances.items())


def listed(model, change=lambda p: p):
    """Log-probability of every text after the start symbol; `change` alters each next-token distribution.

    Written from the definition, in float64, one text at a time: nothing of the sampler is used.
    """
    import torch

    found = {}

    def follow(text, log_p):
        if len(text) == LONGEST or (text and text[-1] == EOS):
            found[text] = log_p
            return
        with torch.inference_mode():
            logits = model(torch.tensor([[BOS, *text]])).logits[0, -1].double()
        p = change(torch.softmax(logits, dim=-1).numpy())
        for token in np.flatnonzero(p):
            follow((*text, int(token)), log_p + math.log(p[token]))

    follow((), 0.0)
    return found


def sharpened(p):
    """Temperature 0.7: probabilities to the power 1 / 0.7, renormalised."""
    powered = p ** (1 / 0.7)
    return powered / powered.sum()


def cut(p, top_p=0.9):
    """The likeliest tokens up to the one that reaches top_p, renormalised."""
    order = np.argsort(-p)
    n = int(np.searchsorted(p[order].cumsum(), top_p)) + 1
    kept = np.where(np.isin(np.arange(len(p)), order[:n]), p, 0)
    return kept / kept.sum()


@pytest.fixture(scope="module")
def world(five_words_dir):
    return World(five_words_dir)


@pytest.fixture(scope="module")
def samples(world):
    return world.drawn()


def drift_of(world, samples):
    texts = [sample.token_ids for sample in samples]
    return estimate_drift(
        [world.log_p[text] for text in texts], [world.log_q[text] for text in texts], [len(text) for text in texts]
    )


def mean_and_error(values):
    return np.mean(values), np.std(values) / math.sqrt(len(values))


def test_the_listed_texts_are_all_there_are(world):
    assert len(world.log_p) == 1 + 4 + 4 * 4 * 5
    assert math.fsum(map(math.exp, world.log_p.values())) == pytest.approx(1, abs=1e-12)
    assert math.fsum(map(math.exp, world.log_q.values())) == pytest.approx(1, abs=1e-12)
    kl, _ = world.expected(world.log_p)
    assert kl > 0.05


def test_every_text_comes_as_often_as_the_base_gives_it(world, samples):
    """Chi-squared over all texts, the rare ones together."""
    from scipy.stats import chi2

    counts = Counter(sample.token_ids for sample in samples)
    expected = {text: N * math.exp(p) for text, p in world.log_p.items()}
    rare = [text for text, n in expected.items() if n < 5]
    cells = [(counts[text], n) for text, n in expected.items() if n >= 5]
    cells.append((sum(counts[text] for text in rare), sum(expected[text] for text in rare)))
    assert counts.keys() <= expected.keys()
    assert len(cells) > 25
    assert chi2.sf(sum((found - n) ** 2 / n for found, n in cells), len(cells) - 1) > 1e-4


def test_the_mean_log_ratio_of_samples_is_the_kl_divergence(world, samples):
    kl, _ = world.expected(world.log_p)
    found, error = mean_and_error([world.log_ratio(sample.token_ids) for sample in samples])
    assert error < kl / 10
    assert abs(found - kl) < 4 * error


def test_the_drift_a_token_covers_the_exact_ratio(world, samples):
    """Drift is KL of the whole text over its mean number of tokens, as evaluation/drift.py defines it."""
    kl, n_tokens = world.expected(world.log_p)
    drift = drift_of(world, samples)
    assert drift.low < kl / n_tokens < drift.high
    assert drift.high - drift.low < 0.4 * kl / n_tokens


def coverage(world, meters):
    kl, n_tokens = world.expected(world.log_p)
    return sum(meter.low < kl / n_tokens < meter.high for meter in meters)


def test_the_interval_of_sampled_meters_covers_the_exact_value_as_often_as_it_says(world, samples):
    """So few hits of 200 have a chance below 1e-4 where the true coverage is 93 %, so many where it is 99 %."""
    from scipy.stats import binom

    meters = [drift_of(world, samples[start : start + HELD_OUT]) for start in range(0, N, HELD_OUT)]
    hits = coverage(world, meters)
    assert binom.cdf(hits, len(meters), 0.93) > 1e-4
    assert binom.sf(hits - 1, len(meters), 0.99) > 1e-4


def test_the_interval_covers_between_93_and_97_percent_of_many_simulated_meters(world):
    """4,000 meters of texts drawn from the list itself, which the sampler was shown to follow."""
    from scipy.stats import binom

    texts = list(world.log_p)
    chances = np.exp([world.log_p[text] for text in texts])
    drawn = np.random.default_rng(5).choice(len(texts), p=chances / chances.sum(), size=(4_000, HELD_OUT))
    x, y, n = (
        np.array(values) for values in zip(*((world.log_p[t], world.log_q[t], len(t)) for t in texts), strict=True)
    )
    hits = coverage(world, [estimate_drift(x[row], y[row], n[row]) for row in drawn])
    assert binom.cdf(hits, len(drawn), 0.93) > 1e-4
    assert binom.sf(hits - 1, len(drawn), 0.97) > 1e-4


@pytest.mark.parametrize(
    ("changes", "change"), [({"temperature": 0.7}, sharpened), ({"top_p": 0.9}, cut)], ids=["T = 0.7", "top_p = 0.9"]
)
def test_another_temperature_or_top_p_estimates_another_number(world, changes, change):
    """The exact expectation under the altered sampler is what the mean tends to, and it is not the KL divergence."""
    kl, n_tokens = world.expected(world.log_p)
    altered = listed(world.base, change)
    expected, altered_tokens = world.expected(altered)
    assert math.fsum(map(math.exp, altered.values())) == pytest.approx(1, abs=1e-9)
    found = world.drawn(6_400, **changes)
    mean, error = mean_and_error([world.log_ratio(sample.token_ids) for sample in found])
    assert abs(mean - expected) < 4 * error
    assert abs(mean - kl) > 8 * error
    drift = drift_of(world, found)
    assert drift.low < expected / altered_tokens < drift.high
    assert not drift.low < kl / n_tokens < drift.high


def test_leaving_out_cut_texts_estimates_another_number(world, samples):
    """Why held-out samples are never filtered: what is left is the base given that its text ended."""
    kl, _ = world.expected(world.log_p)
    ended = {text: p for text, p in world.log_p.items() if text[-1] == EOS}
    share = math.fsum(map(math.exp, ended.values()))
    expected, _ = world.expected({text: p - math.log(share) for text, p in ended.items()})
    mean, error = mean_and_error([world.log_ratio(sample.token_ids) for sample in samples if sample.ended])
    assert abs(mean - expected) < 4 * error
    assert abs(mean - kl) > 8 * error
