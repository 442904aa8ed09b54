"""Tango's interval against published values, against brute-force maximum likelihood, and at its corners."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from metagdpo.errors import EvidenceError
from metagdpo.gate.paired import count_flips, p_non_inferior, p_worse, score, score_interval, z_value

# (n, lost, gained), one-sided alpha, interval, decimals printed by the source
PUBLISHED = [
    # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter 8: Cavo et al. 2012,
    # complete response before / after consolidation therapy; printed by their R package contingencytables.
    pytest.param((161, 16, 6), 0.025, (-0.1240, -0.0054), 4, id="Cavo 2012"),
    # The same authors, Statistics in Medicine 33:2850 (2014): Bentur et al. 2009, airway hyper-responsiveness.
    pytest.param((21, 7, 1), 0.025, (-0.517, -0.026), 3, id="Bentur 2009"),
    # Tango 1998, the cross-over trial of soft contact lens disinfection: 43 / 0 / 1 / 0 pairs, 90 % interval.
    pytest.param((44, 1, 0), 0.05, (-0.096, 0.037), 3, id="Tango 1998, contact lenses"),
    # PropCIs::scoreci.mp(25, 28, 618, conf.level = 0.90), as several public ports quote it.
    pytest.param((618, 25, 28), 0.05, (-0.0148, 0.0247), 4, id="PropCIs"),
]


@pytest.mark.parametrize(("counts", "alpha", "published", "decimals"), PUBLISHED)
def test_the_interval_equals_the_published_one(counts, alpha, published, decimals):
    assert tuple(round(bound, decimals) for bound in score_interval(*counts, alpha)) == published


def brute_force_score(n: int, lost: int, gained: int, difference: float) -> float:
    """T with P(lost) found by maximising the written-out trinomial likelihood, without Tango's quadratic."""
    least, most = max(0.0, -difference), (1 - difference) / 2

    def minus_log_likelihood(q):
        terms = [(lost, q), (gained, q + difference), (n - lost - gained, 1 - 2 * q - difference)]
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    found = minimize_scalar(minus_log_likelihood, bounds=(least, most), method="bounded", options={"xatol": 1e-13})
    q = min([found.x, least, most], key=minus_log_likelihood)
    return (gained - lost - n * difference) / math.sqrt(n * (2 * q + difference - difference**2))


@pytest.mark.parametrize(
    ("n", "lost", "gained"), [(10, 0, 0), (10, 3, 0), (10, 0, 3), (50, 5, 2), (200, 31, 30), (9, 4, 5)]
)
@pytest.mark.parametrize("difference", [-0.6, -0.05, 0.013, 0.3])
def test_the_score_uses_the_constrained_maximum_likelihood(n, lost, gained, difference):
    assert float(score(n, lost, gained, difference)) == pytest.approx(
        brute_force_score(n, lost, gained, difference), rel=1e-5
    )


@pytest.mark.parametrize(
    ("n", "lost", "gained"), [(10, 3, 0), (10, 0, 3), (10, 9, 0), (40, 1, 1), (1000, 60, 41), (10**6, 3, 9)]
)
def test_the_bounds_solve_the_score_equation(n, lost, gained):
    low, high = score_interval(n, lost, gained, 0.05)
    assert [float(score(n, lost, gained, low)), float(score(n, lost, gained, high))] == pytest.approx(
        [z_value(0.05), -z_value(0.05)], abs=1e-7
    )


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 10**6])
@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.4])
def test_without_flips_the_bounds_are_z2_over_n_plus_z2(n, alpha):
    z2 = z_value(alpha) ** 2
    assert score_interval(n, 0, 0, alpha) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)))


def test_when_every_item_is_lost_the_bounds_are_minus_one_and_its_closed_form():
    z2 = z_value(0.05) ** 2
    assert score_interval(10, 10, 0, 0.05) == pytest.approx((-1.0, -(10 - z2) / (10 + z2)))


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (0, 1)])
def test_one_item_never_gives_a_narrow_interval(lost, gained):
    low, high = score_interval(1, lost, gained, 0.05)
    assert high - low > 1.4


tables = st.integers(1, 400).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda lost: st.tuples(st.just(n), st.just(lost), st.integers(0, n - lost)))
)


@settings(max_examples=60, deadline=None)
@given(tables, st.floats(0.001, 0.4))
def test_swapping_the_models_mirrors_the_interval_which_holds_the_observed_difference(case, alpha):
    n, lost, gained = case
    low, high = score_interval(n, lost, gained, alpha)
    assert score_interval(n, gained, lost, alpha) == (-high, -low)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert low < high


@settings(max_examples=60, deadline=None)
@given(tables, st.floats(0.005, 0.5), st.floats(0.01, 0.4))
def test_the_interval_and_the_p_values_say_the_same(case, margin, alpha):
    n, lost, gained = case
    low, high = score_interval(n, lost, gained, alpha)
    passes, worse = p_non_inferior(n, lost, gained, margin), p_worse(n, lost, gained, margin)
    assert passes + worse == pytest.approx(1)
    if abs(low + margin) > 1e-9:
        assert (low > -margin) == (passes < alpha)
    if abs(high + margin) > 1e-9:
        assert (high < -margin) == (worse < alpha)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_the_score_falls_as_the_assumed_difference_rises(n):
    """So the set of differences that are not rejected is one interval, and bisection finds its ends."""
    for lost, gained in itertools.product(range(n + 1), repeat=2):
        if lost + gained <= n:
            values = [float(score(n, lost, gained, d)) for d in np.linspace(-0.999, 0.999, 61)]
            assert all(right <= left + 1e-9 for left, right in itertools.pairwise(values)), (lost, gained)


@pytest.mark.parametrize("margin", [0.01, 0.04, 0.3])
def test_more_losses_among_the_same_flips_never_help(margin):
    """Monotone in the counts, which the power calculation relies on."""
    for flips in (0, 1, 5, 40, 100):
        lost = np.arange(flips + 1)
        assert np.all(np.diff(score(100, lost, flips - lost, -margin)) < 0)


@pytest.mark.parametrize(("n", "lost", "gained"), [(0, 0, 0), (5, -1, 0), (5, 3, 3)])
def test_impossible_counts_are_refused(n, lost, gained):
    with pytest.raises(EvidenceError, match="impossible"):
        score_interval(n, lost, gained, 0.05)


def test_flips_are_counted_by_direction():
    assert count_flips("grammar", [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 0.0)]) == (1, 2)


@pytest.mark.parametrize("bad", [0.5, math.nan, 2.0, -1.0])
def test_scores_other_than_right_or_wrong_are_refused_with_the_suite(bad):
    with pytest.raises(EvidenceError, match="suite grammar, item 1"):
        count_flips("grammar", [(1.0, 0.0), (1.0, bad)])


@pytest.mark.parametrize("n", [10, 50, 200, 1000])
@pytest.mark.parametrize(("base", "flip_rate", "difference"), [(0.3, 0.02, 0.0), (0.5, 0.2, -0.04), (0.9, 0.1, -0.08)])
def test_simulated_intervals_cover_the_truth_as_often_as_they_promise(n, base, flip_rate, difference):
    """Two-sided 90 %: with a binomial interval, at least 90 % less 2.5 points for Tango's known excess."""
    rng, runs = np.random.default_rng(n), 4000
    lost_rate, gained_rate = (flip_rate - difference) / 2, (flip_rate + difference) / 2
    cells = [base - lost_rate, lost_rate, gained_rate, 1 - base - gained_rate]
    assert min(cells) >= 0
    tables = rng.multinomial(n, cells, size=runs)
    z = score(n, tables[:, 1], tables[:, 2], difference)
    covered = int(np.sum(np.abs(z) <= z_value(0.05)))
    assert covered > binom.ppf(1e-6, runs, 0.875)
