"""Regions of flips: probabilities against the trinomial written out, and the proof of the largest one."""

import itertools

import numpy as np
import pytest
from scipy.stats import multinomial

from metagdpo.gate.trinomial import TOLERANCE, closed, largest_probability, may_exceed, probabilities


def tables(n):
    return [(lost, gained) for lost, gained in itertools.product(range(n + 1), repeat=2) if lost + gained <= n]


def written_out(most, lost_rate, gained_rate):
    n = len(most) - 1
    cells = [lost_rate, gained_rate, max(1 - lost_rate - gained_rate, 0.0)]
    return sum(
        multinomial.pmf([lost, gained, n - lost - gained], n, cells)
        for lost, gained in tables(n)
        if lost <= most[lost + gained]
    )


def some_region(n, seed):
    """A random walk with steps of 0 and 1 is a region with Barnard's condition."""
    rng = np.random.default_rng(seed)
    steps = rng.random(n) < rng.uniform(0.1, 0.9)
    return np.append(0, np.cumsum(steps)) + int(rng.integers(-1, 1))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 25])
@pytest.mark.parametrize(
    "rates", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (1.0, 0.0), (0.5, 0.5), (0.2, 0.25), (1e-9, 0.6)]
)
def test_a_probability_is_the_sum_over_the_tables_of_the_region(n, rates):
    for seed in range(5):
        most = some_region(n, seed)
        assert probabilities(most, [rates[0]], [rates[1]])[0] == pytest.approx(written_out(most, *rates), abs=1e-9)


@pytest.mark.parametrize("n", [1, 4, 9, 40])
@pytest.mark.parametrize("difference", [-0.6, -0.04, 0.0, 0.1])
def test_the_largest_probability_is_that_of_a_fine_grid(n, difference):
    """From below by a grid of 20,000 rates, and above it by no more than promised and than such a grid can miss."""
    u = (1 - abs(difference)) / 2 * np.linspace(0, 1, 20_001)
    for seed in range(4):
        most = some_region(n, seed)
        on_grid = probabilities(most, u + max(0.0, -difference), u + max(0.0, difference)).max()
        found = largest_probability(most, difference)
        assert on_grid <= found <= min(on_grid + 1e-6 * on_grid + 1.1 * TOLERANCE + 1e-6, 1.0)


def test_a_single_item_has_closed_forms():
    """Only a gain is inside: its rate is at most (1 + d) / 2. All but a loss is inside: 1 - P(lost), at most 1 - m."""
    assert largest_probability(np.array([-1, 0]), -0.04) == pytest.approx(0.48)
    assert largest_probability(np.array([0, 0]), -0.04) == pytest.approx(0.96)


def test_the_question_whether_a_level_is_exceeded_has_the_answer_of_the_largest_probability():
    for n, seed in itertools.product([3, 30, 200], range(4)):
        most = some_region(n, seed)
        largest = largest_probability(most, -0.04)
        for level in (0.01, 0.05, largest * 0.999, largest * 1.001, 0.5):
            assert may_exceed(most, -0.04, level) == (largest > level)


def test_no_region_and_every_region_have_probability_zero_and_one():
    assert largest_probability(np.full(51, -1), 0.0) < 1e-8
    assert largest_probability(np.arange(51), -0.3) == 1.0


def test_closing_adds_the_tables_that_barnards_condition_asks_for_and_no_other():
    """The smallest superset: every table of it follows from a table of the region by fewer losses and more gains."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        n = int(rng.integers(1, 12))
        most = np.array([int(rng.integers(-1, f + 1)) for f in range(n + 1)])
        members = {(lost, gained) for lost, gained in tables(n) if lost <= most[lost + gained]}
        reached = {
            (lost, gained)
            for lost, gained in tables(n)
            if any(lost <= more_lost and gained >= fewer_gained for more_lost, fewer_gained in members)
        }
        found = closed(most)
        assert {(lost, gained) for lost, gained in tables(n) if lost <= found[lost + gained]} == reached
        assert set(np.diff(found)) <= {0, 1}


@pytest.mark.parametrize("difference", [-0.3, 0.0, 0.2])
def test_with_barnards_condition_no_smaller_difference_gives_a_region_more(difference):
    """So the largest probability on the boundary is that of the whole hypothesis."""
    for n, seed in itertools.product([2, 10, 60], range(3)):
        most, rng = some_region(n, seed), np.random.default_rng(seed)
        lost, gained, _ = rng.dirichlet([1, 1, 1], size=400).T
        below = gained - lost <= difference
        assert probabilities(most, lost[below], gained[below]).max() <= largest_probability(most, difference)


def test_the_bound_of_the_fourth_derivative_holds():
    """|S''''| <= sqrt(4! n (n-1) (n-2) (n-3) S (1 - S)) I^2, S'''' from finite differences of S."""
    n, difference, step = 60, -0.05, 2e-3
    offsets, weights = np.arange(-3, 4), np.array([-1, 12, -39, 56, -39, 12, -1]) / 6
    for seed in range(6):
        most = some_region(n, seed)
        for u in (0.02, 0.1, 0.25, 0.4):
            values = probabilities(most, u + offsets * step + 0.05, u + offsets * step)
            derivative = abs(weights @ values) / step**4
            information = 1 / u + 1 / (u + 0.05) + 4 / (1 - 2 * u + difference)
            value = min(max(values[3], 0.0), 1.0)
            bound = np.sqrt(24 * n * (n - 1) * (n - 2) * (n - 3) * value * (1 - value)) * information**2
            assert derivative <= bound * 1.02 + 1e-13 / step**4
