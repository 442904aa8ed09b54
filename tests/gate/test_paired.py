"""The exact test against published p-values, a written-out oracle and its own promise; Tango's score under it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import beta, binom, multinomial

from metagdpo.errors import EvidenceError
from metagdpo.gate.paired import (
    critical_value,
    exact_interval,
    exact_p_non_inferior,
    exact_p_worse,
    most_lost,
    score,
    score_interval,
    z_value,
)
from metagdpo.gate.trinomial import closed, probabilities

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


# Exact tests. (n, lost, gained), two-sided p as printed. At margin 0 the score is McNemar's statistic.
PUBLISHED_EXACT = [
    # Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91 (2013): Suissa and Shuster's exact test.
    pytest.param((21, 1, 7), 0.0353, id="Bentur 2009"),
    pytest.param((161, 6, 16), 0.0342, id="Cavo 2012"),
]


@pytest.mark.parametrize(("counts", "published"), PUBLISHED_EXACT)
def test_twice_the_p_value_at_margin_zero_is_the_published_exact_mcnemar_test(counts, published):
    assert round(2 * exact_p_non_inferior(*counts, 0.0), 4) == published


@pytest.mark.parametrize(
    ("n", "lost", "gained", "published"), [(161, 6, 16, 0.034053), (14, 0, 1, 0.542071)], ids=["Cavo", "a tenth of it"]
)
def test_the_probability_of_a_region_reproduces_the_test_with_a_restricted_nuisance(n, lost, gained, published):
    """R package contingencytables: over the Clopper-Pearson interval of the flip rate with error 1e-4, plus 1e-4."""
    flips, gamma = lost + gained, 1e-4
    low, high = beta.ppf(gamma / 2, flips, n - flips + 1), beta.isf(gamma / 2, flips + 1, n - flips)
    rates = np.linspace(low, high, 2000) / 2
    region = closed(most_lost(n, np.arange(n + 1), 0.0, float(score(n, lost, gained, 0.0)) - 1e-9))
    assert 2 * probabilities(region, rates, rates).max() + gamma == pytest.approx(published, abs=2e-6)


def oracle_p(n: int, lost: int, gained: int, margin: float) -> float:
    """The definition: the largest sum of trinomial probabilities of all tables with no smaller score, on a grid."""
    every = [(x, y) for x, y in itertools.product(range(n + 1), repeat=2) if x + y <= n]
    observed = float(score(n, lost, gained, -margin))
    extreme = [(x, y) for x, y in every if float(score(n, x, y, -margin)) >= observed - 1e-9]
    counts = np.array([(x, y, n - x - y) for x, y in extreme])
    least, most = max(0.0, margin), (1 + margin) / 2
    lost_rates = np.concatenate([np.linspace(least, most, 400), least + np.geomspace(1e-5, most - least, 300)])
    cells = np.stack([lost_rates, lost_rates - margin, 1 - 2 * lost_rates + margin], axis=1).clip(0, 1)
    return max(float(multinomial.pmf(counts, n, cell / cell.sum()).sum()) for cell in cells)


@pytest.mark.parametrize("margin", [0.0, 0.04, 0.3, -0.1, -0.5])
@pytest.mark.parametrize(("n", "lost", "gained"), [(1, 0, 0), (1, 0, 1), (4, 1, 2), (7, 0, 3), (12, 1, 0), (12, 2, 6)])
def test_the_p_value_is_the_largest_probability_of_all_outcomes_at_least_as_extreme(n, lost, gained, margin):
    assert exact_p_non_inferior(n, lost, gained, margin) == pytest.approx(oracle_p(n, lost, gained, margin), abs=3e-5)


@pytest.mark.parametrize(("n", "margin"), [(1, 0.04), (1, 0.9), (10, 0.2), (77, 0.04), (1000, 0.003)])
def test_without_flips_p_is_the_probability_that_no_item_shows_the_loss(n, margin):
    """The rule of three. A much smaller p is larger than that: at high flip rates other outcomes are as extreme."""
    assert exact_p_non_inferior(n, 0, 0, margin) == pytest.approx((1 - margin) ** n, rel=2e-6)


def test_no_flip_and_no_margin_is_no_evidence():
    assert [exact_p_non_inferior(400, 0, 0, 0.0), exact_p_worse(400, 0, 0, 0.0)] == [1.0, 1.0]


@settings(max_examples=20, deadline=None)
@given(tables, st.floats(-0.5, 0.5))
def test_worse_is_the_mirrored_test(case, margin):
    n, lost, gained = case
    assert exact_p_worse(n, lost, gained, margin) == exact_p_non_inferior(n, gained, lost, -margin)


@pytest.mark.parametrize("margin", [-0.2, -0.02, 0.0, 0.03, 0.25])
@pytest.mark.parametrize("n", [1, 2, 7, 40, 150])
def test_outcomes_are_ordered_as_barnard_asks(n, margin):
    """A loss less or a gain more never lowers the score: so H0's largest probability lies on its boundary."""
    lost, gained = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    scores = np.where(lost + gained <= n, score(n, lost, np.minimum(gained, n - lost), -margin), np.nan)
    assert np.nanmax(np.diff(scores, axis=0)) <= 1e-9
    assert np.nanmin(np.diff(scores, axis=1)) >= -1e-9


@pytest.mark.parametrize("margin", [0.0, 0.04, -0.1])
def test_p_rises_with_losses_and_falls_with_gains(margin):
    n = 30
    p = {(x, y): exact_p_non_inferior(n, x, y, margin) for x in range(8) for y in range(8)}
    assert all(p[x, y] <= p[x + 1, y] + 1e-7 for x in range(7) for y in range(8))
    assert all(p[x, y] >= p[x, y + 1] - 1e-7 for x in range(8) for y in range(7))


def size_on_a_finer_grid(n: int, margin: float, alpha: float) -> float:
    """The largest rate of false passes, by an own search: summed by scipy on grids that zoom in on the worst rate."""
    z, flips = critical_value(n, margin, alpha), np.arange(n + 1)
    low, high = most_lost(n, flips, -margin, z), (1 - abs(margin)) / 2

    def false_pass(u: float) -> float:
        lost, gained = u + max(0.0, margin), u + max(0.0, -margin)
        if lost + gained == 0:
            return float(low[0] >= 0)
        return float(binom.pmf(flips, n, lost + gained) @ binom.cdf(low, flips, lost / (lost + gained)))

    u = np.concatenate([[0.0], np.geomspace(0.01 / n, high, 80), np.linspace(0, high, 40)])
    for _ in range(3):
        values = np.array([false_pass(value) for value in u])
        best, gap = u[values.argmax()], np.diff(np.sort(u))[max(np.searchsorted(np.sort(u), u[values.argmax()]) - 1, 0)]
        u = np.clip(np.linspace(best - 2 * gap, best + 2 * gap, 41), 0, high)
    return float(values.max())


@pytest.mark.parametrize("n", [10, 11, 25, 60, 137, 400, 1000])
@pytest.mark.parametrize("margin", [-0.05, 0.0, 0.01, 0.02, 0.04, 0.1])
def test_the_size_is_at_most_alpha_at_the_worst_rate(n, margin):
    """Exact, not simulated, with the worst rate found by another search than the code's."""
    assert size_on_a_finer_grid(n, margin, 0.05) <= 0.05


@pytest.mark.parametrize("alpha", [0.01, 0.025, 0.1])
def test_the_size_is_at_most_alpha_at_other_levels(alpha):
    assert 0.8 * alpha < size_on_a_finer_grid(300, 0.04, alpha) <= alpha


def test_ten_thousand_items_are_tested_exactly_too():
    n, margin, rng = 10_000, 0.04, np.random.default_rng(4)
    region = closed(most_lost(n, np.arange(n + 1), -margin, critical_value(n, margin, 0.05)))
    u = np.concatenate([np.geomspace(1e-7, 0.49, 300), rng.uniform(0, 0.01, 200), rng.uniform(0, 0.49, 200)])
    assert 0.045 < probabilities(region, u + margin, u).max() <= 0.05


@pytest.mark.parametrize("n", [1, 2, 5, 30, 120])
@pytest.mark.parametrize("margin", [-0.1, 0.0, 0.05, 0.4])
def test_the_critical_value_and_the_p_value_are_one_test(n, margin):
    z = critical_value(n, margin, 0.05)
    rng = np.random.default_rng(n)
    for lost, gained, _ in rng.multinomial(n, [0.1, 0.2, 0.7], size=25):
        proof = exact_p_non_inferior(n, int(lost), int(gained), margin) <= 0.05
        assert proof == (float(score(n, lost, gained, -margin)) >= z)


def at_the_margin(base: float, discordance: float) -> tuple[float, list[float]] | None:
    """Margin and cell probabilities of a candidate that loses just the margin; None when the base leaves no room."""
    margin = min(0.04, base)
    flip_rate = max(discordance, margin)
    lost_rate, gained_rate = (flip_rate + margin) / 2, (flip_rate - margin) / 2
    cells = [lost_rate, gained_rate, base - lost_rate, 1 - base - gained_rate]
    return None if min(cells) < -1e-12 else (margin, [max(cell, 0.0) for cell in cells])


FEASIBLE = [
    (base, discordance)
    for base in (0.02, 0.2, 0.5, 0.9, 0.98)
    for discordance in (0.0, 0.02, 0.1, 0.3, 0.5)
    if at_the_margin(base, discordance)
]


@pytest.mark.parametrize("n", [10, 100, 1000, 10_000])
@pytest.mark.parametrize(("base", "discordance"), FEASIBLE)
def test_simulated_false_promotion_at_the_margin_is_at_most_alpha(n, base, discordance):
    """With a binomial interval whose error over all cases together is below one in ten thousand."""
    margin, cells = at_the_margin(base, discordance)
    runs, rng = 4000, np.random.default_rng([n, int(100 * base), int(100 * discordance)])
    drawn = rng.multinomial(n, cells, size=runs)
    passed = int(np.sum(score(n, drawn[:, 0], drawn[:, 1], -margin) >= critical_value(n, margin, 0.05)))
    assert passed <= binom.isf(1e-6, runs, 0.05)


@pytest.mark.parametrize(("n", "lost", "gained"), [(1, 0, 0), (10, 3, 0), (44, 1, 0), (161, 16, 6), (400, 8, 9)])
def test_the_exact_interval_holds_tangos_nearly_and_agrees_with_the_p_values(n, lost, gained):
    low, high = exact_interval(n, lost, gained, 0.05)
    for step in (2e-5, 0.001, 0.01, 0.1):
        if low - step > -1:
            assert exact_p_non_inferior(n, lost, gained, -(low - step)) <= 0.05
        if high + step < 1:
            assert exact_p_worse(n, lost, gained, -(high + step)) <= 0.05
    assert exact_p_non_inferior(n, lost, gained, -(low + 1e-4)) > 0.05
    assert exact_p_worse(n, lost, gained, -(high - 1e-4)) > 0.05


@pytest.mark.parametrize("n", [1, 10, 100, 2000])
def test_without_flips_the_exact_bounds_are_the_closed_form(n):
    """(1 - m)^n = alpha at m = 1 - alpha^(1 / n): for large n the rule of three, 3 / n."""
    bound = 1 - 0.05 ** (1 / n)
    assert exact_interval(n, 0, 0, 0.05) == pytest.approx((-bound, bound), abs=1.1e-5)


@settings(max_examples=5, deadline=None)
@given(tables)
def test_swapping_the_models_mirrors_the_exact_interval(case):
    n, lost, gained = case
    low, high = exact_interval(n, lost, gained, 0.05)
    assert exact_interval(n, gained, lost, 0.05) == (-high, -low)
    assert -1 <= low <= (gained - lost) / n <= high <= 1


def test_bounds_at_the_corners_are_the_ends_of_the_scale():
    assert [exact_interval(10, 10, 0, 0.05)[0], exact_interval(10, 0, 10, 0.05)[1]] == [-1.0, 1.0]


def test_the_interval_of_a_p_value_that_falls_back_is_beyond_the_last_difference_not_rejected():
    """327 items with 13 lost and 13 gained: the p-value crosses alpha three times."""
    low, _ = exact_interval(327, 13, 13, 0.05)
    p_values = [exact_p_non_inferior(327, 13, 13, margin) for margin in np.linspace(-low, -low + 0.01, 60)]
    assert max(p_values) <= 0.05


@pytest.mark.parametrize("n", [10, 40, 200])
@pytest.mark.parametrize(("lost_rate", "gained_rate"), [(0.01, 0.01), (0.08, 0.0), (0.02, 0.06), (0.2, 0.25)])
def test_each_exact_bound_covers_the_truth_with_the_probability_promised(n, lost_rate, gained_rate):
    """Exact coverage at the truth: the outcomes that reject it have a probability of at most alpha on each side."""
    difference = gained_rate - lost_rate
    region = closed(most_lost(n, np.arange(n + 1), difference, critical_value(n, -difference, 0.05)))
    mirrored = closed(most_lost(n, np.arange(n + 1), -difference, critical_value(n, difference, 0.05)))
    assert probabilities(region, [lost_rate], [gained_rate])[0] <= 0.05
    assert probabilities(mirrored, [gained_rate], [lost_rate])[0] <= 0.05


def test_simulated_exact_intervals_cover_the_truth_as_often_as_they_promise():
    """Two-sided 90 %, with a binomial interval."""
    n, runs, cells = 40, 400, [0.06, 0.02, 0.92]
    drawn = np.random.default_rng(8).multinomial(n, cells, size=runs)
    outcomes = [(int(lost), int(gained)) for lost, gained, _ in drawn]
    bounds = {outcome: exact_interval(n, *outcome, 0.05) for outcome in set(outcomes)}
    covered = sum(bounds[outcome][0] <= -0.04 <= bounds[outcome][1] for outcome in outcomes)
    assert covered >= binom.ppf(1e-4, runs, 0.9)


@pytest.mark.parametrize(("n", "lost", "gained"), [(0, 0, 0), (5, -1, 0), (5, 3, 3)])
def test_impossible_counts_have_no_p_value(n, lost, gained):
    with pytest.raises(EvidenceError, match="impossible"):
        exact_p_non_inferior(n, lost, gained, 0.04)
