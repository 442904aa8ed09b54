"""Power by enumeration: against written-out sums and simulation of the test that decides."""

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from metagdpo.errors import EvidenceError
from metagdpo.gate.paired import critical_value, exact_p_non_inferior, exact_p_worse, score
from metagdpo.gate.power import (
    items_needed,
    pass_probability,
    power_if_unchanged,
    smallest_blocked_loss,
    smallest_margin,
    smallest_shown_gain,
    worse_probability,
)


@pytest.mark.parametrize("n", [1, 5, 12])
@pytest.mark.parametrize(("flip_rate", "difference"), [(0.0, 0.0), (0.3, 0.0), (0.3, -0.2), (0.2, -0.2), (1.0, 0.4)])
@pytest.mark.parametrize("margin", [0.05, 0.2, -0.1])
def test_probabilities_equal_the_sum_over_all_tables(n, flip_rate, difference, margin):
    cells = [(flip_rate - difference) / 2, (flip_rate + difference) / 2, 1 - flip_rate]
    passes = worse = 0.0
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            probability = multinomial.pmf([lost, gained, n - lost - gained], n, cells)
            passes += probability * (exact_p_non_inferior(n, lost, gained, margin) <= 0.05)
            worse += probability * (exact_p_worse(n, lost, gained, margin) <= 0.05)
    assert pass_probability(n, flip_rate, difference, margin, 0.05) == pytest.approx(passes, abs=1e-8)
    assert worse_probability(n, flip_rate, difference, margin, 0.05) == pytest.approx(worse, abs=1e-8)


@pytest.mark.parametrize(("n", "flip_rate", "difference"), [(150, 0.12, -0.04), (400, 0.1, 0.0), (1000, 0.2, -0.02)])
def test_probabilities_agree_with_simulation(n, flip_rate, difference):
    rng, runs, margin = np.random.default_rng(5), 2000, 0.04
    tables = rng.multinomial(n, [(flip_rate - difference) / 2, (flip_rate + difference) / 2, 1 - flip_rate], size=runs)
    lost, gained = tables[:, 0], tables[:, 1]
    passed = int(np.sum(score(n, lost, gained, -margin) >= critical_value(n, margin, 0.05)))
    worse = int(np.sum(score(n, gained, lost, margin) >= critical_value(n, -margin, 0.05)))
    for count, exact in [
        (passed, pass_probability(n, flip_rate, difference, margin, 0.05)),
        (worse, worse_probability(n, flip_rate, difference, margin, 0.05)),
    ]:
        assert binom.ppf(1e-5, runs, exact) <= count <= binom.isf(1e-5, runs, exact)


@pytest.mark.parametrize(("n", "margin"), [(40, 0.1), (300, 0.04), (3000, 0.02)])
def test_a_candidate_at_the_margin_passes_and_fails_with_at_most_alpha(n, margin):
    """Exact, at every flip rate; the size itself is proven in tests/gate/test_paired.py."""
    rates = [margin, *(margin + np.geomspace(0.1 / n, 1 - margin, 12))]
    assert max(pass_probability(n, float(rate), -margin, margin, 0.05) for rate in rates) <= 0.05
    assert max(worse_probability(n, float(rate), -margin, margin, 0.05) for rate in rates) <= 0.05


def test_a_target_that_gains_just_what_is_demanded_passes_with_at_most_alpha():
    assert 0.02 < pass_probability(500, 0.2, 0.05, -0.05, 0.05) <= 0.05
    assert pass_probability(500, 0.2, 0.15, -0.05, 0.05) > 0.9


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


@pytest.mark.parametrize("margin", [0.02, 0.04, 0.1])
def test_without_flips_items_needed_comes_from_the_closed_form(margin):
    """(1 - margin)^n <= alpha: the rule of three."""
    assert items_needed(0.0, 0.0, margin, 0.05, 0.8) == math.ceil(math.log(0.05) / math.log(1 - margin))


@pytest.mark.parametrize(("margin", "alpha"), [(0.9, 0.05), (0.5, 0.01), (0.3, 0.05)])
def test_numbers_of_items_too_small_for_any_proof_are_passed_over(margin, alpha):
    n = items_needed(0.0, 0.0, margin, alpha, 0.8)
    assert exact_p_non_inferior(n, 0, 0, margin) <= alpha < exact_p_non_inferior(n - 1, 0, 0, margin)


@pytest.mark.parametrize(("flip_rate", "margin"), [(0.1, 0.04), (0.05, 0.02)])
def test_a_plan_and_the_test_use_the_same_critical_value(flip_rate, margin):
    n = items_needed(flip_rate, 0.0, margin, 0.05, 0.8)
    assert power_if_unchanged(n, flip_rate, margin, 0.05) >= 0.8
    assert power_if_unchanged(round(0.95 * n), flip_rate, margin, 0.05) < 0.8


@pytest.mark.parametrize("difference", [-0.04, -0.0401])
def test_a_difference_at_the_margin_needs_more_items_than_there_are(difference):
    assert items_needed(0.3, difference, 0.04, 0.05, 0.8) is None


@pytest.mark.parametrize(("n", "flip_rate"), [(100, 0.1), (1000, 0.1), (1000, 0.0)])
def test_the_smallest_margin_has_the_power_and_a_smaller_one_has_not(n, flip_rate):
    margin = smallest_margin(n, flip_rate, 0.05, 0.8)
    assert power_if_unchanged(n, flip_rate, margin, 0.05) >= 0.8
    assert power_if_unchanged(n, flip_rate, 0.96 * margin, 0.05) < 0.8


def test_without_flips_the_smallest_margin_is_the_closed_form():
    """1 - alpha^(1 / n), rounded up to a hundredth of a point."""
    assert smallest_margin(400, 0.0, 0.05, 0.8) == math.ceil(1e4 * (1 - 0.05 ** (1 / 400))) / 1e4


@pytest.mark.parametrize(("n", "flip_rate", "margin"), [(100, 0.1, 0.04), (1000, 0.02, 0.04), (400, 0.1, 0.0)])
def test_the_smallest_blocked_loss_is_proven_with_the_power_and_a_smaller_one_is_not(n, flip_rate, margin):
    loss = smallest_blocked_loss(n, flip_rate, margin, 0.05, 0.8)
    assert loss > margin
    assert worse_probability(n, max(flip_rate, loss), -loss, margin, 0.05) >= 0.8
    smaller = 0.96 * loss
    assert worse_probability(n, max(flip_rate, smaller), -smaller, margin, 0.05) < 0.8


def test_the_smallest_shown_gain_passes_a_target_with_the_power_and_a_smaller_one_does_not():
    gain = smallest_shown_gain(400, 0.1, 0.05, 0.05, 0.8)
    assert pass_probability(400, max(0.1, gain), gain, -0.05, 0.05) >= 0.8
    assert pass_probability(400, max(0.1, 0.96 * gain), 0.96 * gain, -0.05, 0.05) < 0.8


def test_too_few_items_block_no_loss():
    assert smallest_blocked_loss(2, 0.0, 0.5, 0.05, 0.8) is None


def test_one_item_supports_only_a_margin_beyond_use():
    assert smallest_margin(1, 0.0, 0.05, 0.8) > 0.7


def test_a_difference_larger_than_the_flip_rate_is_refused():
    with pytest.raises(EvidenceError, match=r"difference of -0.2 cannot come from a flip rate of 0.1"):
        pass_probability(10, 0.1, -0.2, 0.04, 0.05)
