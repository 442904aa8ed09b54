"""What a suite can show: exact probabilities of the gate's outcomes, item counts, margins and losses.

Items are independent; each flips with probability `flip_rate`, and P(gained) - P(lost) = `difference`. The number of
flips is binomial and, given it, so is the number of losses: the probabilities below are sums over both, no simulation.
The test is the one that decides (`paired.critical_value`), so a plan and a verdict never disagree about it. The
probabilities are exact for that model of the candidate; item counts stay a plan, since the rate itself is estimated.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from metagdpo.errors import EvidenceError
from metagdpo.gate.paired import critical_value, most_lost, z_value

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_NEGLIGIBLE = 1e-10  # total probability left out of the sums, far below any use of the results
_MOST_ITEMS = 1_000_000  # beyond it the honest answer is "not with such a benchmark"
_EXACT_ITEMS = 20_000  # beyond it a plan takes this number's critical value: larger than needed by less than 0.02
_STEP = 1e-4  # of a margin and of a loss: a hundredth of a point of accuracy


def pass_probability(n: int, flip_rate: float, difference: float, margin: float, alpha: float) -> float:
    """Probability that n items prove non-inferiority.

    Args:
        n: Number of items.
        flip_rate: P(lost) + P(gained), in 0..1.
        difference: True difference candidate - base; |difference| <= flip_rate.
        margin: Largest loss that is accepted, in accuracy; a negative one is a gain that must be exceeded.
        alpha: One-sided error rate.

    Raises:
        EvidenceError: The difference cannot come from the flip rate.
    """
    _check(flip_rate, difference)
    return _pass_probability(n, flip_rate, difference, margin, _threshold(n, margin, alpha))


def worse_probability(n: int, flip_rate: float, difference: float, margin: float, alpha: float) -> float:
    """Probability that n items prove a loss beyond the margin; arguments as in `pass_probability`."""
    return pass_probability(n, flip_rate, -difference, -margin, alpha)


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
    _check(flip_rate, difference)
    if difference < -margin:  # to prove worse is the mirrored test
        difference, margin = -difference, -margin
    return _first_enough(
        lambda z, n: _pass_probability(n, flip_rate, difference, margin, z) >= power,
        lambda n: _threshold(n, margin, alpha),
        alpha,
        _MOST_ITEMS,
    )


def smallest_margin(n: int, flip_rate: float, alpha: float, power: float) -> float | None:
    """Smallest margin, in steps of 0.0001, that an unchanged candidate passes with probability `power`.

    Returns:
        The margin in accuracy, up to the saw-tooth of whole items, or None when n items cannot support any below 1.
    """
    steps = _first_enough(
        lambda z, step: _pass_probability(n, flip_rate, 0.0, step * _STEP, z) >= power,
        lambda step: _threshold(n, step * _STEP, alpha),
        alpha,
        round(1 / _STEP) - 1,
    )
    return None if steps is None else round(steps * _STEP, 4)


def smallest_blocked_loss(n: int, flip_rate: float, margin: float, alpha: float, power: float) -> float | None:
    """Smallest true loss, in steps of 0.0001, that is proven to exceed the margin with probability `power`.

    Args:
        n: Number of items.
        flip_rate: P(lost) + P(gained) of a candidate without a loss; a larger loss is made of flips by itself.
        margin: Largest loss that is accepted, in accuracy; a negative one is a gain that must be exceeded.
        alpha: One-sided error rate.
        power: Probability of the proof.

    Returns:
        The loss in accuracy (negative: a gain that is proven too small), or None when n items prove none below 1.
    """
    z, first = _threshold(n, -margin, alpha), round(margin / _STEP)

    def blocked(step: int) -> bool:
        loss = (first + step) * _STEP
        return _pass_probability(n, max(flip_rate, abs(loss)), loss, -margin, z) >= power

    step = _first(blocked, 1, round(1 / _STEP) - 1 - first, stride=1)
    return None if step is None else round((first + step) * _STEP, 4)


def smallest_shown_gain(n: int, flip_rate: float, gain: float, alpha: float, power: float) -> float | None:
    """Smallest true gain, in steps of 0.0001, that is proven to exceed a demanded one with probability `power`."""
    return smallest_blocked_loss(n, flip_rate, gain, alpha, power)  # the mirrored test


def _first_enough(
    enough: Callable[[float, int], bool], threshold: Callable[[int], float], alpha: float, most: int
) -> int | None:
    """First number that is enough at its own critical value; sought from the one that the normal quantile asks for."""
    start = _first(functools.partial(enough, z_value(alpha)), 1, most, stride=1)
    if start is None:
        return None
    return _first(lambda number: enough(threshold(number), number), start, most, stride=max(1, start // 200))


def _first(holds: Callable[[int], bool], least: int, most: int, stride: int) -> int | None:
    """First number from `least` to `most` for which `holds`, to a thousandth of it; None when there is none."""
    low, high = least - 1, min(least, most)
    while not holds(high):
        if high == most:
            return None
        low, high, stride = high, min(high + stride, most), 2 * stride
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _threshold(n: int, margin: float, alpha: float) -> float:
    return critical_value(min(n, _EXACT_ITEMS), margin, alpha)


def _pass_probability(n: int, flip_rate: float, difference: float, margin: float, z: float) -> float:
    """Probability that the score against the margin reaches z."""
    from scipy.stats import binom

    if math.isinf(z):
        return 0.0
    flips, weights = _flips(n, flip_rate)
    share_lost = 0.5 if flip_rate == 0 else float(np.clip((flip_rate - difference) / (2 * flip_rate), 0.0, 1.0))
    inside = binom.cdf(most_lost(n, flips, -margin, z), flips, share_lost)
    return float(np.clip(np.sum(weights * inside), 0.0, 1.0))


def _flips(n: int, flip_rate: float) -> tuple[Counts, Floats]:
    """The numbers of flips that matter and their binomial probabilities."""
    from scipy.stats import binom

    first = int(binom.ppf(_NEGLIGIBLE / 2, n, flip_rate))
    last = int(binom.isf(_NEGLIGIBLE / 2, n, flip_rate))
    flips = np.arange(max(first, 0), last + 1)
    return flips, np.asarray(binom.pmf(flips, n, flip_rate), dtype=np.float64)


def _check(flip_rate: float, difference: float) -> None:
    if not 0 <= flip_rate <= 1 or abs(difference) > flip_rate + 1e-12:
        raise EvidenceError(f"a difference of {difference} cannot come from a flip rate of {flip_rate}.")
