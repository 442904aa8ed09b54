"""Power by enumeration: against written-out sums and simulation, and what it says about Tango's error rate."""

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from metagdpo.errors import EvidenceError
from metagdpo.gate.paired import p_non_inferior, p_worse, score, z_value
from metagdpo.gate.power import items_needed, pass_probability, power_if_unchanged, smallest_margin, worse_probability


@pytest.mark.parametrize("n", [1, 7, 20])
@pytest.mark.parametrize(("flip_rate", "difference"), [(0.0, 0.0), (0.3, 0.0), (0.3, -0.2), (0.2, -0.2), (1.0, 0.4)])
@pytest.mark.parametrize("margin", [0.05, 0.2])
def test_probabilities_equal_the_sum_over_all_tables(n, flip_rate, difference, margin):
    cells = [(flip_rate - difference) / 2, (flip_rate + difference) / 2, 1 - flip_rate]
    passes = worse = 0.0
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            probability = multinomial.pmf([lost, gained, n - lost - gained], n, cells)
            passes += probability * (p_non_inferior(n, lost, gained, margin) < 0.05)
            worse += probability * (p_worse(n, lost, gained, margin) < 0.05)
    assert pass_probability(n, flip_rate, difference, margin, 0.05) == pytest.approx(passes, abs=1e-8)
    assert worse_probability(n, flip_rate, difference, margin, 0.05) == pytest.approx(worse, abs=1e-8)


@pytest.mark.parametrize(("n", "flip_rate", "difference"), [(150, 0.12, -0.04), (400, 0.1, 0.0), (1000, 0.2, -0.02)])
def test_probabilities_agree_with_simulation(n, flip_rate, difference):
    rng, runs, margin = np.random.default_rng(5), 2000, 0.04
    tables = rng.multinomial(n, [(flip_rate - difference) / 2, (flip_rate + difference) / 2, 1 - flip_rate], size=runs)
    passed = sum(p_non_inferior(n, int(lost), int(gained), margin) < 0.05 for lost, gained, _ in tables)
    worse = sum(p_worse(n, int(lost), int(gained), margin) < 0.05 for lost, gained, _ in tables)
    for count, exact in [
        (passed, pass_probability(n, flip_rate, difference, margin, 0.05)),
        (worse, worse_probability(n, flip_rate, difference, margin, 0.05)),
    ]:
        assert binom.ppf(1e-5, runs, exact) <= count <= binom.isf(1e-5, runs, exact)


@pytest.mark.parametrize(
    ("least", "most", "false_pass", "false_worse"),
    [(10, 100, 0.08, 0.10), (100, 500, 0.07, 0.10), (500, 5000, 0.06, 0.08)],
)
def test_the_error_rates_at_the_margin_stay_below_what_the_docstring_of_paired_says(
    least, most, false_pass, false_worse
):
    """Tango is slightly anti-conservative; this is by how much (exact, not simulated)."""
    rng, passes, worse = np.random.default_rng(least), [], []
    for _ in range(150):
        n, margin = int(rng.integers(least, most)), float(np.exp(rng.uniform(np.log(0.01), np.log(0.15))))
        flip_rate = margin + float(rng.choice([0.0, rng.exponential(0.005), rng.uniform(0, 0.3)]))
        passes.append(pass_probability(n, flip_rate, -margin, margin, 0.05))
        worse.append(worse_probability(n, flip_rate, -margin, margin, 0.05))
    assert max(passes) < false_pass
    assert max(worse) < false_worse
    assert np.mean(passes) < 0.05


@pytest.mark.parametrize("n", [10, 50, 200, 1000])
@pytest.mark.parametrize("base", [0.2, 0.5, 0.95])
@pytest.mark.parametrize("gain_rate", [0.0, 0.02])
def test_simulated_false_promotion_at_the_margin(n, base, gain_rate):
    """A candidate that loses just 5 points passes at most as often as the measured excess over alpha allows."""
    margin, runs = 0.05, 3000
    rng = np.random.default_rng(n)
    cells = [margin + gain_rate, gain_rate, base - margin - gain_rate, 1 - base - gain_rate]
    tables = rng.multinomial(n, cells, size=runs)
    passed = int(np.sum(score(n, tables[:, 0], tables[:, 1], -margin) > z_value(0.05)))
    assert passed <= binom.isf(1e-6, runs, 0.08 if n < 100 else 0.07)


def test_an_unchanged_candidate_is_as_likely_to_gain_as_to_lose():
    assert power_if_unchanged(300, 0.1, 0.04, 0.05) == pass_probability(300, 0.1, 0.0, 0.04, 0.05)


def test_power_grows_with_margin_and_items_and_falls_with_flips():
    assert power_if_unchanged(400, 0.1, 0.06, 0.05) > power_if_unchanged(400, 0.1, 0.04, 0.05)
    assert power_if_unchanged(800, 0.1, 0.04, 0.05) > power_if_unchanged(400, 0.1, 0.04, 0.05)
    assert power_if_unchanged(400, 0.05, 0.04, 0.05) > power_if_unchanged(400, 0.1, 0.04, 0.05)


def test_items_needed_follows_the_normal_approximation():
    """It is n = (z_alpha + z_beta)^2 d / margin^2 = 6.18 d / margin^2, up to whole items and the finite sample."""
    assert items_needed(0.1, 0.0, 0.02, 0.05, 0.8) == pytest.approx(6.18 * 0.1 / 0.02**2, rel=0.03)


@pytest.mark.parametrize(("difference", "decided"), [(-0.01, pass_probability), (-0.08, worse_probability)])
def test_items_needed_reaches_the_power_it_was_asked_for(difference, decided):
    n = items_needed(0.12, difference, 0.04, 0.05, 0.8)
    assert decided(n, 0.12, difference, 0.04, 0.05) >= 0.8
    assert decided(n // 2, 0.12, difference, 0.04, 0.05) < 0.8


def test_without_flips_items_needed_comes_from_the_closed_form():
    """z^2 / (n + z^2) < margin, that is n > z^2 (1 - margin) / margin."""
    assert items_needed(0.0, 0.0, 0.04, 0.05, 0.8) == math.ceil(1.6448536**2 * 0.96 / 0.04)


@pytest.mark.parametrize("difference", [-0.04, -0.0401])
def test_a_difference_at_the_margin_needs_more_items_than_there_are(difference):
    assert items_needed(0.3, difference, 0.04, 0.05, 0.8) is None


@pytest.mark.parametrize(("n", "flip_rate"), [(100, 0.1), (1000, 0.1), (1000, 0.0)])
def test_the_smallest_margin_has_the_power_and_one_step_less_has_not(n, flip_rate):
    margin = smallest_margin(n, flip_rate, 0.05, 0.8)
    assert power_if_unchanged(n, flip_rate, margin, 0.05) >= 0.8
    assert power_if_unchanged(n, flip_rate, margin - 1e-4, 0.05) < 0.8


def test_one_item_supports_only_a_margin_beyond_use():
    assert smallest_margin(1, 0.0, 0.05, 0.8) > 0.7


def test_a_difference_larger_than_the_flip_rate_is_refused():
    with pytest.raises(EvidenceError, match=r"difference of -0.2 cannot come from a flip rate of 0.1"):
        pass_probability(10, 0.1, -0.2, 0.04, 0.05)
