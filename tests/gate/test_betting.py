"""The betting test: against its definition, its guarantee by enumeration and simulation, and its edges."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from metagdpo.errors import EvidenceError
from metagdpo.gate.betting import (
    BETS_K,
    PLUG_IN_WEIGHT,
    WEIGHTS_K,
    Units,
    bounds,
    interval,
    items_needed,
    log_capital,
    mirrored,
    p_positive,
    p_value,
    pass_probability,
    shuffled,
    units_of,
)

ALPHA = 0.05


def capital_by_definition(sums, sizes, lowest, highest, n_planned):
    """The portfolio written out with plain loops, against "the mean is at most 0"."""
    fixed, following, path = [(1 - PLUG_IN_WEIGHT) * float(w) for w in WEIGHTS_K], PLUG_IN_WEIGHT, []
    for t, value in enumerate(sums):
        fixed = [k * (1 + bet * value / -lowest) for k, bet in zip(fixed, BETS_K, strict=True)]
        squares = 0.0
        for s in range(t):
            running_mean = sum(sums[: s + 1]) / sum(sizes[: s + 1])
            squares += (sums[s] - running_mean * sizes[s]) ** 2
        variance = (((highest - lowest) / 4) ** 2 + squares) / (t + 1)
        bet = min(math.sqrt(2 * math.log(20) / (n_planned * variance)), 0.75 / -lowest)
        following *= 1 + bet * value
        path.append(sum(fixed) + following)
    return path


def test_the_starting_capital_is_one():
    nothing_won = units_of(np.zeros(1), -1.0, 1.0)
    assert pytest.approx([0.0, 0.0]) == [log_capital(nothing_won, 0.0, n_planned)[0] for n_planned in (None, 1)]


@pytest.mark.parametrize("n_planned", [7, 50, 400])  # the first is so small that all following bets are capped
def test_the_capital_equals_its_definition(n_planned):
    sums, sizes = [0.04, -0.96, 0.04, 0.5, 1.0, 0.02, -0.3], [1.0, 1.0, 0.25, 0.5, 1.0, 0.5, 0.75]
    units = Units(np.array(sums), np.array(sizes), -0.96, 1.04)
    expected = capital_by_definition(sums, sizes, -0.96, 1.04, n_planned)
    assert expected == pytest.approx(np.exp(log_capital(units, 0.0, n_planned)))


@pytest.mark.parametrize("value", [-0.5, 0.04, 1.0])
def test_equal_values_have_a_closed_form(value):
    """The variance before item t is then the prior's 1 / t-th, so the following bets grow like sqrt(t)."""
    n, lowest, highest = 30, -0.96, 1.04
    bets = np.minimum(np.sqrt(2 * math.log(20) * np.arange(1, n + 1) / (n * 0.25)), 0.75 / 0.96)
    expected = (np.sum(WEIGHTS_K * (1 + BETS_K * value / 0.96) ** n) + np.prod(1 + bets * value)) / 2
    units = units_of(np.full(n, value), lowest, highest)
    assert math.log(expected) == pytest.approx(log_capital(units, 0.0, n)[-1])


@pytest.mark.parametrize("points", [(-0.96, 1.04), (-0.96, 0.04), (-0.2, 0.6)])
@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("n_planned", [None, 9, 400])
def test_the_game_is_fair_at_the_boundary(points, n, n_planned):
    """Enumerated: over all sequences of two values with mean 0, the expected capital is 1."""
    low, high = points
    p_high = -low / (high - low)
    sequences = np.array(list(itertools.product([low, high], repeat=n)))
    probabilities = np.prod(np.where(sequences == high, p_high, 1 - p_high), axis=1)
    capital = np.exp(log_capital(units_of(sequences, -0.96, 1.04), 0.0, n_planned)[:, -1])
    assert pytest.approx(1.0) == float(probabilities @ capital)


def test_the_game_is_unfair_below_the_boundary():
    sequences = np.array(list(itertools.product([-0.96, 0.04, 1.04], repeat=6)))
    probabilities = np.prod(np.select([sequences < 0, sequences < 1], [0.08, 0.9], 0.02), axis=1)  # mean -0.02
    capital = np.exp(log_capital(units_of(sequences, -0.96, 1.04), 0.0, 6)[:, -1])
    assert float(probabilities @ capital) < 1


def test_the_game_is_fair_when_large_clusters_lose_what_small_ones_gain():
    """Enumerated: sizes 1 and 4, E[sum] = 0 although the mean of the clusters' means is far above 0."""
    small, large = (0.4, 1), (-0.8, 4)  # P(small) 8/9: 8/9 * 0.4 * 1 = 1/9 * 0.8 * 4
    expected = 0.0
    for drawn in itertools.product([small, large], repeat=7):
        sums, sizes = np.array([m * s for m, s in drawn]) / 4, np.array([s for _, s in drawn]) / 4
        probability = math.prod(8 / 9 if unit == small else 1 / 9 for unit in drawn)
        expected += probability * math.exp(log_capital(Units(sums, sizes, -1.0, 1.0), 0.0, 100)[-1])
    assert pytest.approx(1.0) == expected


def binary(rng, runs, n, lost, gained):
    margin = lost - gained
    return rng.choice([-1.0, 0.0, 1.0], p=[lost, 1 - lost - gained, gained], size=(runs, n)) + margin, margin


def graded(rng, runs, n):
    return rng.beta(0.5, 0.7, (runs, n)) - rng.beta(0.5, 0.5, (runs, n)) + (0.5 - 0.5 / 1.2), 0.5 - 0.5 / 1.2


def rare_loss(rng, runs, n):
    """Mostly just above 0, rarely the worst: where a test that believes the observed spread is fooled."""
    return np.where(rng.random((runs, n)) < 0.02, -0.96, 0.96 * 0.02 / 0.98), 0.04


FAMILIES = [
    pytest.param(lambda rng, runs, n: binary(rng, runs, n, 0.04, 0.0), id="only losses"),
    pytest.param(lambda rng, runs, n: binary(rng, runs, n, 0.3, 0.2), id="many flips"),
    pytest.param(graded, id="graded"),
    pytest.param(rare_loss, id="rare loss"),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [10, 200])
@pytest.mark.parametrize("side", [1, -1])
def test_stopping_at_any_item_keeps_the_error_rate(family, n, side):
    """At the boundary of H0 the capital ever reaches 1 / alpha in at most alpha of the evaluations (Ville)."""
    runs = 2000
    values, margin = family(np.random.default_rng(n), runs, n)
    units = units_of(values, margin - 1, margin + 1)
    reached = log_capital(units if side > 0 else mirrored(units), 0.0, n).max(axis=-1) >= math.log(1 / ALPHA)
    assert int(reached.sum()) <= binom.isf(1e-6, runs, ALPHA)


def draw_clusters(rng, n_clusters):
    """Values with mean 0 over items, all items of a cluster alike, large clusters worse than small ones."""
    sizes = rng.choice([1, 2, 8], p=[0.5, 0.3, 0.2], size=n_clusters)
    # E[size x effect]: 0.5 * 0.2 + 0.3 * 2 * 0.1 + 0.2 * 8 * e = 0 gives e = -0.1 for the large ones
    effect = np.select([sizes == 1, sizes == 2], [0.2, 0.1], -0.1)
    signs = np.where(rng.random(n_clusters) < (1 + effect) / 2, 1.0, -1.0)
    return np.repeat(signs, sizes), [f"c{i}" for i in np.repeat(np.arange(n_clusters), sizes)]


def test_clustered_items_keep_the_error_rate():
    rng, runs, false = np.random.default_rng(3), 1500, 0
    for _ in range(runs):
        values, clusters = draw_clusters(rng, 60)
        units = units_of(values, -1.0, 1.0, clusters, largest=8)
        false += p_value(log_capital(units, 0.0, 60)) <= ALPHA
    assert false <= binom.isf(1e-6, runs, ALPHA)


@pytest.mark.parametrize("clustered", [False, True])
def test_each_bound_covers_the_mean(clustered):
    rng, runs, missed = np.random.default_rng(8), 250, np.zeros(2)
    for _ in range(runs):
        values, clusters = draw_clusters(rng, 50) if clustered else (rng.choice([-1.0, 0, 1.0], 50), None)
        low, high = interval(values, -1.0, 1.0, ALPHA, clusters)
        missed += [low > 0, high < 0]
    assert missed.max() <= binom.isf(1e-6, runs, ALPHA)


def some_values(seed, n=60):
    rng = np.random.default_rng(seed)
    clusters = [f"c{i}" for i in rng.integers(0, n // 2, n)]
    return rng.choice([-1.0, -0.25, 0.0, 0.0, 0.0, 0.5, 1.0], n), clusters


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("clustered", [False, True])
def test_a_bound_beyond_the_margin_and_a_small_p_value_are_the_same(seed, clustered):
    values, clusters = some_values(seed)
    clusters = clusters if clustered else None
    low, high = interval(values, -1.0, 1.0, ALPHA, clusters)
    for margin in (-low - 1e-6, -low + 1e-6, -high - 1e-6, -high + 1e-6):
        p_pass = p_positive(values + margin, margin - 1, margin + 1, clusters)
        p_worse = p_positive(-values - margin, -margin - 1, 1 - margin, clusters)
        assert (low > -margin, high < -margin) == (p_pass <= ALPHA, p_worse <= ALPHA)


@pytest.mark.parametrize("clustered", [False, True])
def test_the_capital_falls_as_the_assumed_mean_rises(clustered):
    values, clusters = some_values(11)
    units = units_of(values, -1.0, 1.0, clusters if clustered else None)
    paths = np.array([log_capital(units, mean, 60) for mean in np.linspace(-0.99, 1.0, 100)])
    assert np.all(np.diff(paths, axis=0) <= 1e-9)


def test_mirrored_values_have_a_mirrored_interval():
    values, clusters = some_values(5)
    low, high = interval(values, -1.0, 1.0, ALPHA, clusters)
    assert (-high, -low) == pytest.approx(interval(-values, -1.0, 1.0, ALPHA, clusters))


def test_the_order_of_items_inside_clusters_and_the_names_of_clusters_do_not_matter():
    values, clusters = some_values(6)
    values = values / 3  # sums of thirds depend on their order in the last digit
    firsts = list(dict.fromkeys(clusters))
    by_cluster = [[v for v, c in zip(values, clusters, strict=True) if c == name] for name in firsts]
    regrouped = np.concatenate([sorted(group) for group in by_cluster])
    renamed = [f"z{i}" for i, group in enumerate(by_cluster) for _ in group]
    assert p_positive(values + 0.2, -0.8, 1.2, clusters) == p_positive(regrouped + 0.2, -0.8, 1.2, renamed)


def test_repeating_every_item_of_a_cluster_adds_no_evidence():
    values, _ = some_values(7)
    names = [str(i) for i in np.repeat(np.arange(60), 5)]
    once, repeated = (
        p_positive(values + 0.2, -0.8, 1.2),
        p_positive(np.repeat(values, 5) + 0.2, -0.8, 1.2, names),
    )
    assert once == pytest.approx(repeated)


def test_a_sorted_file_proves_nothing():
    """First all gains, then all losses: in file order the capital would soar before it falls."""
    values = np.repeat([1.0, -1.0], 100)
    in_file_order = p_value(log_capital(units_of(values, -1.0, 1.0), 0.0, 200))
    assert in_file_order < 1e-20
    assert p_positive(values, -1.0, 1.0) > ALPHA


def test_shuffling_keeps_each_sum_with_its_size():
    values, clusters = some_values(9)
    units = units_of(values, -1.0, 1.0, clusters)
    moved = shuffled(units)
    assert sorted(zip(units.sums, units.sizes, strict=True)) == sorted(zip(moved.sums, moved.sizes, strict=True))


@pytest.mark.parametrize("value", [-1.0, -0.5, 0.0, 0.3, 1.0])
def test_one_item_says_next_to_nothing(value):
    low, high = interval(np.array([value]), -1.0, 1.0, ALPHA)
    assert high - low > 1
    assert p_positive(np.array([value + 0.04]), -0.96, 1.04) > ALPHA


def test_one_cluster_says_next_to_nothing_however_large():
    low, high = interval(np.zeros(500), -1.0, 1.0, ALPHA, ["passage 1"] * 500)
    assert interval(np.zeros(1), -1.0, 1.0, ALPHA) == pytest.approx((low, high))


def test_constant_extremes_stay_in_the_range():
    low, high = interval(np.ones(100), -1.0, 1.0, ALPHA)
    assert (True, 1.0) == (0.8 < low < 1, high)
    assert (-1.0, -low) == pytest.approx(interval(-np.ones(100), -1.0, 1.0, ALPHA))


def test_without_complete_units_nothing_is_known():
    assert (-1.0, 1.0) == bounds(Units(np.zeros(0), np.zeros(0), -1.0, 1.0), ALPHA, 10)


def test_more_items_without_a_flip_are_more_evidence():
    p_values = [p_positive(np.full(n, 0.04), -0.96, 1.04) for n in (1, 10, 100, 1000)]
    assert sorted(p_values, reverse=True) == p_values
    assert p_values[-1] < 1e-15


@pytest.mark.parametrize(
    ("values", "lowest", "message"),
    [
        ([0.0, math.nan], -1.0, "item 1: nan is not a number in -1..1"),
        ([0.0, 0.5, -1.5], -1.0, "item 2: -1.5 is not a number"),
        ([math.inf], -1.0, "item 0: inf is not a number"),
        ([], -1.0, "at least one item"),
        ([0.5], 0.0, "least value must lie below 0"),
    ],
)
def test_impossible_values_are_refused(values, lowest, message):
    with pytest.raises(EvidenceError, match=message):
        p_positive(np.array(values), lowest, 1.0)


def test_a_cluster_larger_than_the_largest_is_refused():
    with pytest.raises(EvidenceError, match="a cluster has 3 items, but the suite's largest was said to have 2"):
        units_of(np.zeros(4), -1.0, 1.0, ["a", "a", "b", "a"], largest=2)


@pytest.mark.parametrize(
    ("flips", "margin", "n"), [(0.02, 0.04, 400), (0.1, 0.05, 400), (0.4, 0.1, 400), (0.1, 0.03, 1000)]
)
def test_planned_power_is_within_a_tenth_of_simulation(flips, margin, n):
    """Planning takes the walk for a Brownian motion and one bet for the portfolio; a plan needs no more."""
    counts = np.rint(np.array([flips / 2, 1 - flips, flips / 2]) * n).astype(int)
    values, runs = np.repeat([-1.0, 0.0, 1.0], counts) + margin, 300
    drawn = np.random.default_rng(n).choice(values, (runs, n))
    reached = log_capital(units_of(drawn, margin - 1, margin + 1), 0.0, n).max(axis=-1) >= math.log(1 / ALPHA)
    assert pass_probability(values, margin - 1, margin + 1, ALPHA) == pytest.approx(reached.mean(), abs=0.1)


def test_the_items_needed_reach_the_power():
    values = np.repeat([-1.0, 0.0, 1.0], [20, 360, 20]) + 0.04
    needed = items_needed(values, -0.96, 1.04, ALPHA, power=0.8)
    times = needed / len(values)
    repeated = np.repeat([-1.0, 0.0, 1.0], np.rint(np.array([20, 360, 20]) * times).astype(int)) + 0.04
    assert 0.8 == pytest.approx(pass_probability(repeated, -0.96, 1.04, ALPHA), abs=0.01)


def test_losses_need_as_many_items_as_mirrored_gains():
    values = np.repeat([-1.0, 0.0, 0.5], [40, 340, 20])
    assert items_needed(values, -1.0, 1.0, ALPHA) == items_needed(-values, -1.0, 1.0, ALPHA)


def test_clusters_need_as_many_clusters_as_items_were_needed():
    values = np.repeat([-1.0, 0.0, 1.0], [20, 360, 20]) + 0.04
    names = [str(i) for i in np.repeat(np.arange(400), 5)]
    alone = items_needed(values, -0.96, 1.04, ALPHA)
    assert 5 * alone == items_needed(np.repeat(values, 5), -0.96, 1.04, ALPHA, names)


def test_no_number_of_items_decides_a_difference_at_the_margin():
    assert items_needed(np.repeat([-1.0, 1.0], 50), -1.0, 1.0, ALPHA) is None
