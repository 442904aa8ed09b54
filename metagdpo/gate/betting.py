"""Tests and bounds of a bounded mean by betting: valid for any number of items and any distribution of the scores.

A gambler starts with capital 1 and stakes a share of it on each value y_t in [lowest, highest], lowest < 0 < highest:

    K_t = K_(t-1) (1 + lambda_t y_t),        0 <= lambda_t < 1 / |lowest|, chosen before y_t is seen

When the mean is at most 0 the game is not in his favour: E[K_t | past] <= K_(t-1), so by Ville's inequality the capital
ever reaches 1 / alpha with probability at most alpha. Hence 1 / max_t K_t is a p-value, at every look and at the end.

The bets are a portfolio. Half of the capital is spread over a fixed grid of bets, with weights in proportion to the
bet: it is fast when almost no item flips or the loss is large. The other half follows the spread seen so far and aims
at reaching 1 / alpha after all items: small differences need it. Where an exact test of all items stands behind the
looks (`sequential`), all capital is on the grid. tests/gate/test_betting.py holds the guarantee against
simulation, benchmarks/gate_sequential.py measures the power.

Assumed: the units (items, or clusters) are a random sample of the questions that the suite stands for, independent of
one another, in an order that knows nothing of the scores.

Clusters: a bet is placed on a whole cluster. The mean over items is E[sum of a cluster] / E[its size], so "the mean is
at most m" says E[sum - m size] <= 0. With S the size of the largest cluster, (sum - m size) / S lies in [lowest - m,
highest - m] and is a value like any other. S belongs to the suite's design and must be fixed without regard to the
scores. It counts every cluster as if it were that large, so one giant cluster among small ones costs much evidence.

Home of: betting capital (Waudby-Smith and Ramdas, JRSS-B 86:1-27, 2024; the portfolio: Cover, Mathematical Finance
1:1-29, 1991; Orabona and Jun, arXiv 2110.14099)
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from metagdpo.errors import EvidenceError

Floats = npt.NDArray[np.float64]

# Suffixes: T units (items or clusters) in order, K bets; "..." independent repetitions, for simulations.

BETS_K: Floats = np.array([0.999, *(2.0 ** (-k / 2) for k in range(1, 11))])
"""Bets of the grid as shares of the largest one, 1 / |lowest|; 1 itself would be ruined by a single lowest value."""
WEIGHTS_K: Floats = BETS_K / BETS_K.sum()
"""Share of the grid's capital that starts on each bet."""
PLUG_IN_WEIGHT = 0.5
"""Capital that starts on the bets that follow the spread; the grid has the rest."""
_PLUG_IN_CAP = 0.75  # of 1 / |lowest|: the grid covers the bolder bets
_AIM = math.log(1 / 0.05)  # log capital that the following bets aim at; any value is valid, this one suits alpha = 0.05
_ROUNDING = 1e-9  # slack of values at the ends of their range, and of the bounds; in accuracy
_MOST_ITEMS = 1_000_000  # beyond it the honest answer is "not with such a benchmark"
_PLANNED_BETS_K: Floats = np.geomspace(0.01, 0.95, 60)  # shares of 1 / |lowest| among which planning looks for the best


class Units(NamedTuple):
    """What is bet on, in order: the items, or the clusters scaled to the range of one item."""

    sums: Floats
    """Sum of the values of each unit, divided by the largest size; shape [..., T]."""
    sizes: Floats
    """Size of each unit, divided by the largest size; shape [T]."""
    lowest: float
    highest: float
    """Range of one value."""


def p_positive(values: Floats, lowest: float, highest: float, clusters: Sequence[str] | None = None) -> float:
    """p-value of H0 "the mean is at most 0".

    The units are taken in an order drawn with a fixed seed: files are often sorted by subject or difficulty, and the
    capital of a sorted file means nothing.

    Args:
        values: One value an item, shape [items].
        lowest: Least value that an item can take, below 0.
        highest: Largest value that an item can take, above 0.
        clusters: Name of each item's cluster; None when items are independent.

    Raises:
        EvidenceError: There are no values, or one is not a number of the range.
    """
    units = shuffled(units_of(values, lowest, highest, clusters))
    return p_value(log_capital(units, 0.0, units.sums.shape[-1]))


def interval(
    values: Floats, lowest: float, highest: float, alpha: float, clusters: Sequence[str] | None = None
) -> tuple[float, float]:
    """Lower and upper one-sided (1 - alpha) bounds of the mean; arguments and errors as in `p_positive`.

    Example:
        >>> low, high = interval(np.zeros(400), -1.0, 1.0, alpha=0.05)
        >>> f"{low:.3f} {high:.3f}"
        '-0.012 0.012'
    """
    units = shuffled(units_of(values, lowest, highest, clusters))
    return bounds(units, alpha, units.sums.shape[-1])


def units_of(
    values: Floats,
    lowest: float,
    highest: float,
    clusters: Sequence[str] | None = None,
    largest: int | None = None,
) -> Units:
    """Values by independent unit, clusters in the order of their first item.

    Args:
        values: Shape [items], or [..., items] without clusters.
        lowest: Least value that an item can take.
        highest: Largest value that an item can take.
        clusters: Name of each item's cluster; None when items are independent.
        largest: Items of the suite's largest cluster; None: the largest of those given, which must then be all.

    Raises:
        EvidenceError: There are no values, one is not a number of the range, or a cluster exceeds `largest`.
    """
    values = np.asarray(values, dtype=np.float64)
    _check(values, lowest, highest)
    if clusters is None:
        return Units(values, np.ones(values.shape[-1]), lowest, highest)
    _, first, inverse = np.unique(np.asarray(clusters), return_index=True, return_inverse=True)
    order = np.argsort(first)
    sizes = np.bincount(inverse)[order].astype(np.float64)
    most = int(sizes.max()) if largest is None else largest
    if sizes.max() > most:
        raise EvidenceError(f"a cluster has {int(sizes.max())} items, but the suite's largest was said to have {most}.")
    # Sorted before they are added, so that the order of items within a cluster cannot change the last digit.
    by_value = np.argsort(values, kind="stable")
    sums = np.bincount(inverse[by_value], weights=values[by_value])[order]
    return Units(sums / most, sizes / most, lowest, highest)


def shuffled(units: Units) -> Units:
    """The same units in an order that knows nothing of the scores: drawn with a fixed seed."""
    order = np.random.default_rng(20240107).permutation(units.sums.shape[-1])
    return units._replace(sums=units.sums[..., order], sizes=units.sizes[order])


def mirrored(units: Units) -> Units:
    """The units of -values: a bet that the mean is negative is a bet on them that it is positive."""
    return Units(-units.sums, units.sizes, -units.highest, -units.lowest)


def log_capital(units: Units, mean: float, n_planned: float | None) -> Floats:
    """Log of the capital that was won against H0 "the mean is at most `mean`" after each unit.

    Every factor falls as `mean` rises (the fixed bets are b / (mean - lowest), the following ones do not depend on it
    except through their cap), so the capital does, and the means that are not rejected form an interval.

    Args:
        units: What is bet on.
        mean: Assumed mean, in lowest..highest without the lower end.
        n_planned: Units after which the last chance comes; tunes the following bets, fixed before scores are seen.
            None: all capital is on the grid, for looks of which only the early ones matter.

    Returns:
        Shape [..., T], in nats.
    """
    stakes_T = (units.sums - mean * units.sizes) / (mean - units.lowest)  # >= -1
    factors_KT, shares_K = np.multiply.outer(BETS_K, stakes_T), WEIGHTS_K
    if n_planned is not None:
        bets_T = np.minimum(_following_bets(units, n_planned) * (mean - units.lowest), _PLUG_IN_CAP)
        factors_KT = np.concatenate([factors_KT, (bets_T * stakes_T)[None]])
        shares_K = np.array([*((1 - PLUG_IN_WEIGHT) * WEIGHTS_K), PLUG_IN_WEIGHT])
    logs_KT = np.cumsum(np.log1p(factors_KT), axis=-1) + np.log(shares_K).reshape(-1, *([1] * stakes_T.ndim))
    best_T = logs_KT.max(axis=0)
    return np.asarray(best_T + np.log(np.exp(logs_KT - best_T).sum(axis=0)))


def p_value(log_capital_T: Floats) -> float:
    """1 / (the largest capital there was), at most 1: Ville's inequality."""
    return math.exp(-max(0.0, float(np.max(log_capital_T, initial=0.0))))


def bounds(units: Units, alpha: float, n_planned: float | None) -> tuple[float, float]:
    """Lower and upper one-sided (1 - alpha) bounds of the mean, valid at every look.

    Looks that contradict one another can push the lower bound above the upper one; the two then change places, which
    only widens each.
    """
    low = _lower(units, alpha, n_planned)
    high = -_lower(mirrored(units), alpha, n_planned)
    return min(low, high), max(low, high)


def pass_probability(
    values: Floats, lowest: float, highest: float, alpha: float, clusters: Sequence[str] | None = None
) -> float:
    """About how probable it is that as many values of the same kind reject H0 "the mean is at most 0".

    The log capital of one well chosen bet is taken for a Brownian motion with the mean and spread that the values give
    it; a plan, not a bound. Arguments and errors as in `p_positive`.
    """
    units = units_of(values, lowest, highest, clusters)
    return float(_reach(units, alpha, units.sums.size).max())


def items_needed(
    values: Floats,
    lowest: float,
    highest: float,
    alpha: float,
    clusters: Sequence[str] | None = None,
    *,
    power: float = 0.8,
) -> int | None:
    """About how many items decide whether the mean is above or below 0 with probability `power`, if they go on as here.

    Returns:
        Items, in clusters of the sizes given; None when a million would not do. Other arguments and errors as in
        `pass_probability`.
    """
    units = units_of(values, lowest, highest, clusters)
    units = units if units.sums.sum() > 0 else mirrored(units)
    high, items_a_unit = 1, len(values) / units.sums.size
    while _reach(units, alpha, high).max() < power:
        high *= 2
        if high * items_a_unit > _MOST_ITEMS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _reach(units, alpha, middle).max() < power else (low, middle)
    return math.ceil(high * items_a_unit)


def _following_bets(units: Units, n_planned: float) -> Floats:
    """sqrt(2 log(1 / alpha) / (n variance of the units before)): the source's predictable plug-in bets for a fixed n.

    Residuals are taken from the running mean over items, so adding a constant to every value changes no bet.
    """
    count_T = np.arange(1, units.sums.shape[-1] + 1)
    mean_T = np.cumsum(units.sums, axis=-1) / np.cumsum(units.sizes)
    squares_T = np.cumsum((units.sums - mean_T * units.sizes) ** 2, axis=-1)
    prior = ((units.highest - units.lowest) / 4) ** 2  # counts as one unit: a quarter of the largest possible variance
    variance_T = np.full(units.sums.shape, prior)
    variance_T[..., 1:] = ((prior + squares_T) / (count_T + 1))[..., :-1]
    return np.asarray(np.sqrt(2 * _AIM / (n_planned * variance_T)))


def _lower(units: Units, alpha: float, n_planned: float | None) -> float:
    """Largest mean that is rejected together with every smaller one."""
    from scipy.optimize import brentq

    if units.sums.size == 0:
        return units.lowest

    def excess(mean: float) -> float:
        return float(np.max(log_capital(units, mean, n_planned))) + math.log(alpha)

    least = units.lowest + _ROUNDING
    if excess(least) < 0:
        return units.lowest
    return float(brentq(excess, least, units.highest, xtol=_ROUNDING / 10)) - _ROUNDING


def _reach(units: Units, alpha: float, n: int) -> Floats:
    """For each bet, P(a Brownian motion with the drift and spread of its log capital reaches the hurdle within n).

    The first passage is inverse Gaussian (Schrödinger 1915). The hurdle adds the share of the capital that does not
    follow the best bet.
    """
    from scipy.special import log_ndtr

    logs_KT = np.log1p(np.multiply.outer(_PLANNED_BETS_K, units.sums / -units.lowest))
    hurdle = math.log(1 / alpha) + math.log(1 / PLUG_IN_WEIGHT)
    drift_K, spread_K = logs_KT.mean(axis=1), np.maximum(logs_KT.std(axis=1), 1e-12)
    root = math.sqrt(n)
    direct_K = log_ndtr((n * drift_K - hurdle) / (spread_K * root))
    reflected_K = 2 * drift_K * hurdle / spread_K**2 + log_ndtr(-(n * drift_K + hurdle) / (spread_K * root))
    return np.where(drift_K > 0, np.minimum(np.exp(direct_K) + np.exp(np.minimum(reflected_K, 0.0)), 1.0), 0.0)


def _check(values: Floats, lowest: float, highest: float) -> None:
    if values.size == 0:
        raise EvidenceError("there are no scores to compare: at least one item is needed.")
    if not lowest < 0 < highest:
        message = f"a range of {lowest:g} to {highest:g} leaves nothing to test: the least value must lie below 0, the "
        raise EvidenceError(f"{message}largest above. Use a margin below 1.")
    bad = ~((values >= lowest - _ROUNDING) & (values <= highest + _ROUNDING))  # NaN is bad as well
    if bad.any():
        index = int(np.flatnonzero(bad.ravel())[0])
        message = f"item {index}: {values.ravel()[index]} is not a number in {lowest:g}..{highest:g}. "
        raise EvidenceError(f"{message}Scores are numbers in 0..1; rescale the metric, evaluate missing items again.")
