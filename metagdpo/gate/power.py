"""What a suite can show: exact probabilities of the gate's outcomes, item counts and margins.

Items are independent; each flips with probability `flip_rate`, and P(gained) - P(lost) = `difference`. The number of
flips is binomial and, given it, so is the number of losses: the probabilities below are sums over both, no simulation.
They are exact for that model of the candidate; item counts stay a plan, since the rate itself is estimated.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from metagdpo.errors import EvidenceError
from metagdpo.gate.paired import score, z_value

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_NEGLIGIBLE = 1e-10  # total probability left out of the sums, far below any use of the results
_MOST_ITEMS = 1_000_000  # beyond it the honest answer is "not with such a benchmark"
_MARGIN_STEP = 1e-4  # a hundredth of a point of accuracy


def pass_probability(n: int, flip_rate: float, difference: float, margin: float, alpha: float) -> float:
    """Probability that n items prove non-inferiority.

    Args:
        n: Number of items.
        flip_rate: P(lost) + P(gained), in 0..1.
        difference: True difference candidate - base; |difference| <= flip_rate.
        margin: Largest loss that is accepted, in accuracy.
        alpha: One-sided error rate.
    """
    _check(flip_rate, difference)
    flips, weights = _flips(n, flip_rate)
    most_lost = _most(n, flips, lambda lost, gained: score(n, lost, gained, -margin) > z_value(alpha))
    return _mass(weights, most_lost, flips, _share(flip_rate, -difference))


def worse_probability(n: int, flip_rate: float, difference: float, margin: float, alpha: float) -> float:
    """Probability that n items prove a loss beyond the margin; arguments as in `pass_probability`."""
    _check(flip_rate, difference)
    flips, weights = _flips(n, flip_rate)
    most_gained = _most(n, flips, lambda gained, lost: score(n, lost, gained, -margin) < -z_value(alpha))
    return _mass(weights, most_gained, flips, _share(flip_rate, difference))


def power_if_unchanged(n: int, flip_rate: float, margin: float, alpha: float) -> float:
    """Probability that a candidate of equal accuracy passes: flips happen, as many gained as lost on average."""
    return pass_probability(n, flip_rate, 0.0, margin, alpha)


def items_needed(flip_rate: float, difference: float, margin: float, alpha: float, power: float) -> int | None:
    """About how many items decide the suite with probability `power`, if the truth is what was observed.

    Decided means non-inferior when the difference lies above -margin, worse when it lies below.

    Returns:
        The smallest such n up to saw-tooth effects of whole items, or None when a million would not do.
    """
    if np.isclose(difference, -margin, rtol=0, atol=1e-9):
        return None
    decided = pass_probability if difference > -margin else worse_probability
    high = 1
    while decided(high, flip_rate, difference, margin, alpha) < power:
        high *= 2
        if high > _MOST_ITEMS:
            return None
    low = high // 2
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        if decided(middle, flip_rate, difference, margin, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def smallest_margin(n: int, flip_rate: float, alpha: float, power: float) -> float | None:
    """Smallest margin, in steps of 0.0001, that an unchanged candidate passes with probability `power`.

    Returns:
        The margin in accuracy, or None when n items cannot support any margin below 1.
    """
    low, high = 0, round(1 / _MARGIN_STEP) - 1
    if power_if_unchanged(n, flip_rate, high * _MARGIN_STEP, alpha) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if power_if_unchanged(n, flip_rate, middle * _MARGIN_STEP, alpha) < power:
            low = middle
        else:
            high = middle
    return round(high * _MARGIN_STEP, 4)


def _flips(n: int, flip_rate: float) -> tuple[Counts, Floats]:
    """The numbers of flips that matter and their binomial probabilities."""
    from scipy.stats import binom

    first = int(binom.ppf(_NEGLIGIBLE / 2, n, flip_rate))
    last = int(binom.isf(_NEGLIGIBLE / 2, n, flip_rate))
    flips = np.arange(max(first, 0), last + 1)
    return flips, np.asarray(binom.pmf(flips, n, flip_rate), dtype=np.float64)


def _most(n: int, flips: Counts, holds: Callable[[Counts, Counts], npt.NDArray[np.bool_]]) -> Counts:
    """For each number of flips the largest count of one kind with which the outcome still holds; -1 when none does."""
    low, high = np.full_like(flips, -1), flips.copy()
    for _ in range(int(n).bit_length() + 1):  # the score is monotone in the count, so bisection finds the edge
        middle = (low + high + 1) // 2
        passes = (middle < 0) | holds(np.maximum(middle, 0), flips - np.maximum(middle, 0))
        low, high = np.where(passes, middle, low), np.where(passes, high, middle - 1)
    return low


def _mass(weights: Floats, most: Counts, flips: Counts, share: float) -> float:
    from scipy.stats import binom

    return float(np.clip(np.sum(weights * binom.cdf(most, flips, share)), 0.0, 1.0))


def _share(flip_rate: float, tilt: float) -> float:
    """Probability that a flip is of the kind whose rate is (flip_rate + tilt) / 2."""
    return 0.5 if flip_rate == 0 else float(np.clip((flip_rate + tilt) / (2 * flip_rate), 0.0, 1.0))


def _check(flip_rate: float, difference: float) -> None:
    if not 0 <= flip_rate <= 1 or abs(difference) > flip_rate + 1e-12:
        raise EvidenceError(f"a difference of {difference} cannot come from a flip rate of {flip_rate}.")
