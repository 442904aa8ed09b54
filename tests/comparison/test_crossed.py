"""The interval over items and seeds: against its definition, its special cases, and in repetition."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, t

from metagdpo.comparison.crossed import Block, estimate

LEVEL = 0.95
FLIPS = (-1.0, 0.0, 1.0)


def block(values, units=None):
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    units = np.arange(values.shape[1]) if units is None else np.asarray(units)
    return Block(values, units.astype(np.int64))


blocks = st.integers(1, 4).flatmap(
    lambda seeds: st.integers(1, 12).flatmap(
        lambda items: st.lists(
            st.lists(st.sampled_from((*FLIPS, 0.5, -0.25)), min_size=items, max_size=items),
            min_size=seeds,
            max_size=seeds,
        ).map(block)
    )
)


def by_definition(values, level):
    """Both ends by the formulas of the module's docstring, item by item, with one item lost and one gained more."""
    d = [[*row, 1.0, -1.0] for row in values]
    n_seeds, n = len(d), len(d[0])
    m = sum(map(sum, d)) / (n * n_seeds)
    item = [sum(row[i] for row in d) / n_seeds for i in range(n)]
    seed = [sum(row) / n for row in d]
    v_items = sum((x - m) ** 2 for x in item) / (n * (n - 1))
    v_seeds = sum((x - m) ** 2 for x in seed) / (n_seeds * (n_seeds - 1))
    rest = [(d[s][i] - item[i] - seed[s] + m) ** 2 for s, i in itertools.product(range(n_seeds), range(n))]
    v_cells = sum(rest) / (n * n_seeds * (n - 1) * (n_seeds - 1))
    v = v_items + max(0.0, v_seeds - v_cells)
    df = v**2 / (v_items**2 / (n - 1) + v_seeds**2 / (n_seeds - 1))
    half = t.ppf((1 + level) / 2, df) * v**0.5
    return m - half, m + half


def test_interval_is_that_of_the_definition():
    values = np.random.default_rng(0).choice(FLIPS, size=(3, 40), p=[0.2, 0.5, 0.3])
    found = estimate([block(values)], LEVEL)
    assert (found.low, found.high) == pytest.approx(by_definition(values.tolist(), LEVEL))


def test_interval_of_seeds_that_differ_much_is_that_of_the_definition():
    rng = np.random.default_rng(1)
    values = np.stack([rng.choice((0.0, 1.0), size=60, p=[1 - p, p]) for p in (0.4, 0.5, 0.6)])
    found = estimate([block(values)], LEVEL)
    assert (found.low, found.high) == pytest.approx(by_definition(values.tolist(), LEVEL))


def test_seeds_more_alike_than_chance_take_nothing_from_the_variance():
    """Rolled rows: all seeds have one mean, so V_seeds - V_cells is below 0 and counts as 0."""
    row = np.random.default_rng(2).choice(FLIPS, size=40)
    values = np.stack([np.roll(row, 7 * s) for s in range(3)])
    found = estimate([block(values)], LEVEL)
    assert (found.low, found.high) == pytest.approx(by_definition(values.tolist(), LEVEL))


def test_one_seed_of_flips_has_bonett_and_prices_interval():
    """Their standard error with (lost + 1) / (n + 2) and (gained + 1) / (n + 2), and n + 1 for n + 2 in its divisor."""
    n, lost, gained = 50, 4, 9
    values = [-1.0] * lost + [1.0] * gained + [0.0] * (n - lost - gained)
    p_lost, p_gained = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    error = ((p_lost + p_gained - (p_gained - p_lost) ** 2) / (n + 1)) ** 0.5
    half = t.ppf(0.975, n + 1) * error
    found = estimate([block(values)], LEVEL)
    assert (found.low, found.high) == pytest.approx((p_gained - p_lost - half, p_gained - p_lost + half))


def test_suites_count_the_same_whatever_their_number_of_items():
    found = estimate([block([1.0] * 2 + [0.0] * 2), block([0.0] * 100)], LEVEL)
    assert (0.5 + 0.0) / 2 == found.value


def test_the_variances_of_two_suites_add_with_the_square_of_their_share():
    """One seed: half-widths h of two equal suites give h / sqrt(2), up to the degrees of freedom."""
    one = block(np.random.default_rng(2).choice(FLIPS, size=400))
    single, both = estimate([one], LEVEL), estimate([one, one], LEVEL)
    shrink = (both.high - both.low) / (single.high - single.low)
    assert shrink == pytest.approx(t.ppf(0.975, 802) / t.ppf(0.975, 401) / 2**0.5)


def test_a_seed_that_moves_all_suites_alike_is_not_averaged_out():
    """With the seeds' effect common, two suites have the interval of one; with opposite effects it goes away."""
    up = np.repeat([[0.0], [0.5], [1.0]], 50, axis=1)
    alike = estimate([block(up), block(up)], LEVEL)
    opposite = estimate([block(up), block(1 - up)], LEVEL)
    assert opposite.high - opposite.low < 0.2 < alike.high - alike.low


def test_items_copied_into_clusters_add_nothing():
    values = np.random.default_rng(3).choice(FLIPS, size=(3, 30))
    copied = block(np.repeat(values, 4, axis=1), np.repeat(np.arange(30), 4))
    alone = estimate([block(values)], LEVEL)
    assert estimate([copied], LEVEL).model_dump() == pytest.approx(alone.model_dump())


def test_ignoring_clusters_would_be_too_sure():
    values = np.repeat(np.random.default_rng(4).choice(FLIPS, size=(1, 30)), 4, axis=1)
    honest = estimate([block(values, np.repeat(np.arange(30), 4))], LEVEL)
    naive = estimate([block(values)], LEVEL)
    assert honest.high - honest.low > 1.8 * (naive.high - naive.low)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_one_item_says_next_to_nothing(n_seeds):
    found = estimate([block(np.zeros((n_seeds, 1)))], LEVEL)
    assert (-1.0, 1.0) == (found.low, found.high)


@pytest.mark.parametrize("n", [2, 10, 200, 2000])
def test_no_flips_leave_room_for_more_than_one_flip_of_all_items(n):
    found = estimate([block(np.zeros((3, n)))], LEVEL)
    assert found.low < -1 / n < 1 / n < found.high


def test_no_flips_are_nothing_to_prove():
    assert 1.0 == estimate([block(np.zeros((3, 50)))], LEVEL).p_value


def test_all_gained_is_not_certain_either():
    found = estimate([block(np.ones((3, 200)))], LEVEL)
    assert found.low < 0.99
    assert 1.0 == found.high


@settings(max_examples=60, deadline=None)
@given(st.lists(blocks, min_size=1, max_size=1), st.sampled_from([0.5, 0.9, 0.95]))
def test_interval_holds_the_value_and_has_a_width(suites, level):
    found = estimate(suites, level)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


@settings(max_examples=60, deadline=None)
@given(blocks)
def test_the_p_value_agrees_with_the_interval(suite):
    found = estimate([suite], LEVEL)
    if min(abs(found.low), abs(found.high)) > 1e-9 and abs(found.p_value - 0.05) > 1e-9:
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)


@settings(max_examples=40, deadline=None)
@given(blocks)
def test_losses_mirror_gains(suite):
    found, turned = estimate([suite], LEVEL), estimate([block(-suite.values)], LEVEL)
    assert (found.low, found.value) == pytest.approx((-turned.high, -turned.value))


@settings(max_examples=40, deadline=None)
@given(blocks, st.randoms(use_true_random=False))
def test_the_order_of_items_and_seeds_does_not_matter(suite, random):
    rows, columns = (random.sample(range(n), n) for n in suite.values.shape)
    shuffled = estimate([block(suite.values[rows][:, columns])], LEVEL)
    assert shuffled.model_dump() == pytest.approx(estimate([suite], LEVEL).model_dump())


def draw(rng, n_seeds, *, n_items=200, flips=(0.08, 0.06), common=0.7, seed_sd=0.0):
    """Flips that seeds share with probability `common`; a seed pushes a share of its items up, or as many down."""
    lost, gained = flips
    chances = [lost, 1 - lost - gained, gained]
    shared = rng.choice(FLIPS, n_items, p=chances)
    own = rng.choice(FLIPS, (n_seeds, n_items), p=chances)
    values = np.where(rng.random((n_seeds, n_items)) < common, shared, own)
    push = rng.uniform(-1, 1, (n_seeds, 1)) * seed_sd * 3**0.5
    return np.where(rng.random(values.shape) < np.abs(push), np.sign(push), values)


def truth(flips=(0.08, 0.06), seed_sd=0.0, **_):
    """E[(1 - |push|) flip + push] with a uniform push of mean 0 and standard deviation seed_sd."""
    return (flips[1] - flips[0]) * (1 - seed_sd * 3**0.5 / 2)


N_RUNS = 400


def share_covered(n_seeds, seed, *, as_one_seed=False, **how):
    """In how many of N_RUNS repetitions the interval holds the truth."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(N_RUNS):
        values = draw(rng, n_seeds, **how)
        values = values.mean(axis=0, keepdims=True) if as_one_seed else values
        found = estimate([block(values)], LEVEL)
        hits += found.low <= truth(**how) <= found.high
    return hits


@pytest.mark.parametrize(
    ("n_seeds", "how"),
    [
        (3, {}),
        (3, {"common": 0.0}),
        (3, {"common": 1.0}),
        (3, {"seed_sd": 0.02}),
        (3, {"seed_sd": 0.1}),
        (3, {"flips": (0.005, 0.005)}),
        (3, {"flips": (0.0, 0.6), "seed_sd": 0.05}),
        (5, {"seed_sd": 0.05}),
        (1, {}),
        (1, {"flips": (0.02, 0.0)}),
        (1, {"n_items": 30}),
    ],
)
def test_intervals_cover_the_truth_nearly_as_often_as_they_say(n_seeds, how):
    """At least 93 % of repetitions, up to the chance of this many: a miss of the 1 in 2,000 quantile."""
    assert share_covered(n_seeds, 11, **how) >= binom.ppf(0.0005, N_RUNS, 0.93)


@pytest.mark.parametrize(("n_seeds", "how"), [(3, {"common": 1.0}), (1, {})])
def test_intervals_are_not_much_wider_than_needed(n_seeds, how):
    """Where seeds add nothing, no more than 98 % of the repetitions are covered."""
    assert share_covered(n_seeds, 12, **how) <= binom.ppf(0.9995, N_RUNS, 0.98)


def test_an_interval_over_items_alone_misses_when_seeds_differ():
    """Why seeds are in the variance: taken as one model, three seeds cover far too seldom."""
    assert share_covered(3, 13, as_one_seed=True, seed_sd=0.1) < binom.ppf(0.0005, N_RUNS, 0.85)


def test_clustered_items_are_covered():
    """Passages of five items that flip together."""
    rng = np.random.default_rng(14)
    units = np.repeat(np.arange(40), 5)
    hits = 0
    for _ in range(N_RUNS):
        by_cluster = draw(rng, 3, n_items=40)
        found = estimate([block(np.repeat(by_cluster, 5, axis=1), units)], LEVEL)
        hits += found.low <= truth() <= found.high
    assert hits >= binom.ppf(0.0005, N_RUNS, 0.93)


def test_the_mean_over_suites_is_covered():
    """Four suites that share their seeds' push."""
    rng = np.random.default_rng(15)
    hits = 0
    for _ in range(N_RUNS):
        push = rng.normal(0, 0.03, (3, 1))
        suites = [
            block(np.clip(rng.normal(-0.05, 0.3, 100) + push + rng.normal(0, 0.1, (3, 100)), -1, 1)) for _ in range(4)
        ]
        found = estimate(suites, LEVEL)
        hits += found.low <= -0.05 <= found.high
    assert hits >= binom.ppf(0.0005, N_RUNS, 0.93)
