"""The exact paired test for right-or-wrong items: numbers in, numbers out.

    difference = candidate - base = (gained - lost) / n, in accuracy; higher is better

Outcomes are ordered by Tango's score statistic T. Read against the normal distribution T errs: a candidate that lost
just the margin passes with probability up to 0.08 at alpha = 0.05 (docs/lab-log.md). So the p-value is

    p = max over P(lost) - P(gained) >= margin of P(T >= observed T)

the exact unconditional test: no assumption but independent items, and alpha is an upper bound at every number of items.
The maximum is taken at a loss of just the margin, by Barnard's condition, over the rate of flips, by `trinomial`.

Home of: Tango's score statistic and interval (Statistics in Medicine 17:891-908, 1998)
Home of: the exact unconditional test of non-inferiority (Hsueh, Liu and Chen, Biometrics 57:478-483, 2001)
"""

import functools
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from metagdpo.errors import EvidenceError
from metagdpo.gate import trinomial

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_BISECTIONS = 64  # halves an interval of length 2 below the spacing of doubles
_TIED = 1e-9  # scores this close are the same: exact ties differ by rounding only
_SCORE_STEP = 1e-6  # precision of a critical value
_DIFFERENCE_STEP = 1e-5  # precision of a bound: a thousandth of a point of accuracy
_LOOK_BELOW = (0.003, 0.006, 0.012, 0.025, 0.05, 0.1)  # of an interval's width


def score(n: npt.ArrayLike, lost: npt.ArrayLike, gained: npt.ArrayLike, difference: float) -> Floats:
    """Standardised distance of the observed difference from an assumed one; falls as `difference` rises.

    Args:
        n: Number of items; broadcasts with the two below.
        lost: Items that only the base answers correctly.
        gained: Items that only the candidate answers correctly.
        difference: The true difference assumed, in -1..1.

    Returns:
        T(difference) = (gained - lost - n difference) / sqrt(n (2 q + difference - difference^2)), standard normal for
        large n when `difference` is true; q is the maximum-likelihood P(lost) under it. Without any spread (0 / 0): 0.
    """
    n_, l_, g_ = (np.asarray(value, dtype=np.float64) for value in (n, lost, gained))
    if difference < 0:  # mirrored, so that the quadratic below never cancels
        return -score(n_, g_, l_, -difference)
    # q solves 2 n q^2 + B q + C = 0, the likelihood equation with P(gained) = q + difference.
    b = difference * (2 * n_ - g_ + l_) - (l_ + g_)
    c = -l_ * difference * (1 - difference)
    root = np.sqrt(b * b - 8 * n_ * c)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(b > 0, -2 * c / (b + root), (root - b) / (4 * n_))
        spread = np.sqrt(n_ * np.maximum(2 * q + difference - difference * difference, 0.0))
        distance = g_ - l_ - n_ * difference
        return np.where(distance == 0, 0.0, distance / spread)


def score_interval(n: int, lost: int, gained: int, alpha: float) -> tuple[float, float]:
    """Tango's lower and upper one-sided (1 - alpha) bounds of the difference, which are asymptotic.

    Example:
        >>> low, high = score_interval(161, lost=16, gained=6, alpha=0.025)
        >>> f"{low:.4f} {high:.4f}"
        '-0.1240 -0.0054'

    Raises:
        EvidenceError: The counts are impossible.
    """
    check_counts(n, lost, gained)
    low = _lower(n, lost, gained, z_value(alpha))
    high = -_lower(n, gained, lost, z_value(alpha))
    return low, high


def exact_p_non_inferior(n: int, lost: int, gained: int, margin: float) -> float:
    """p-value of H0 "the candidate lost at least the margin"; small means non-inferior.

    Args:
        n: Number of items.
        lost: Items that only the base answers correctly.
        gained: Items that only the candidate answers correctly.
        margin: In accuracy, in (-1, 1); a negative one asks for a gain larger than that.

    Returns:
        At most alpha with probability at most alpha, whatever the rates of losses and gains under H0.

    Example:
        >>> round(2 * exact_p_non_inferior(161, lost=6, gained=16, margin=0.0), 4)
        0.0342

    Raises:
        EvidenceError: The counts are impossible.
    """
    check_counts(n, lost, gained)
    observed = float(score(n, lost, gained, -margin))
    return trinomial.largest_probability(_region(n, -margin, observed - _TIED), -margin)


def exact_p_worse(n: int, lost: int, gained: int, margin: float) -> float:
    """p-value of H0 "the candidate lost at most the margin"; small means proven worse. Arguments as above."""
    return exact_p_non_inferior(n, gained, lost, -margin)


def exact_interval(n: int, lost: int, gained: int, alpha: float) -> tuple[float, float]:
    """One-sided (1 - alpha) bounds of the difference: all that the exact test does not reject, from first to last.

    The p-value is not quite monotone in the margin: ties that part can lower it where it should rise, within one or two
    hundredths of the interval's width. A bound is put beyond the furthest difference that is not rejected, as far as a
    look at a tenth of the width shows, and is rounded outwards by at most 1e-5.

    Args:
        n: Number of items.
        lost: Items that only the base answers correctly.
        gained: Items that only the candidate answers correctly.
        alpha: One-sided error rate.

    Returns:
        Lower and upper bound; low > -margin only if `exact_p_non_inferior` is at most alpha, high < -margin only if
        `exact_p_worse` is.

    Raises:
        EvidenceError: The counts are impossible.
    """
    low, high = score_interval(n, lost, gained, alpha)
    exact_low = _exact_lower(n, lost, gained, alpha, (low, high))
    return exact_low, -_exact_lower(n, gained, lost, alpha, (-high, -low))


@functools.lru_cache(maxsize=4096)
def critical_value(n: int, margin: float, alpha: float) -> float:
    """Smallest score T(-margin) that proves non-inferiority: `exact_p_non_inferior` is then at most alpha.

    Scores closer together than 1e-6 share a side, the one that is not proof.

    Args:
        n: Number of items.
        margin: In accuracy, in (-1, 1).
        alpha: One-sided error rate.

    Returns:
        About the normal quantile for many items; infinite when no outcome of n items is proof.
    """

    def too_low(threshold: float) -> bool:
        return trinomial.may_exceed(_region(n, -margin, threshold), -margin, alpha)

    largest = float(score(n, 0, n, -margin)) - _TIED
    if too_low(largest):
        return math.inf
    low, high, step = z_value(alpha), largest, 0.05
    while not too_low(low):
        low, high, step = low - step, low, 2 * step
    while low + step < high and too_low(low + step):
        low, step = low + step, 2 * step
    return _bracket(too_low, low, min(low + step, high), _SCORE_STEP)[1]


def most_lost(n: int, flips: Counts, difference: float, threshold: float) -> Counts:
    """For each number of flips the largest count of losses with T(difference) >= threshold; -1 when none has it."""
    low, high = np.full_like(flips, -1), flips.copy()
    for _ in range(int(n).bit_length() + 1):  # T falls as losses replace gains, so bisection finds the edge
        middle = (low + high + 1) // 2
        some = np.maximum(middle, 0)
        passes = (middle < 0) | (score(n, some, flips - some, difference) >= threshold)
        low, high = np.where(passes, middle, low), np.where(passes, high, middle - 1)
    return low


def check_counts(n: int, lost: int, gained: int) -> None:
    """Refuse counts that no paired comparison can give."""
    if n < 1 or lost < 0 or gained < 0 or lost + gained > n:
        raise EvidenceError(f"{lost} lost and {gained} gained of {n} items is impossible: compare at least one item.")


def z_value(alpha: float) -> float:
    """Upper alpha quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(1 - alpha)


def _region(n: int, difference: float, threshold: float) -> Counts:
    return trinomial.closed(most_lost(n, np.arange(n + 1), difference, threshold))


def _lower(n: int, lost: int, gained: int, z: float) -> float:
    """Smallest difference with T <= z, by bisection; T is 0 / 0 at two corners, whose limits have closed forms."""
    if lost == n:
        return -1.0
    if lost + gained == 0:
        return -z * z / (n + z * z)
    if gained == n:
        return (n - z * z) / (n + z * z)
    below, above = -1.0, (gained - lost) / n
    for _ in range(_BISECTIONS):
        middle = (below + above) / 2
        if score(n, lost, gained, middle) > z:
            below = middle
        else:
            above = middle
    return above


def _exact_lower(n: int, lost: int, gained: int, alpha: float, start: tuple[float, float]) -> float:
    """The exact lower bound, searched from Tango's interval `start` on."""
    if lost == n:
        return -1.0

    def rejected(difference: float) -> bool:
        region = _region(n, difference, float(score(n, lost, gained, difference)) - _TIED)
        return not trinomial.may_exceed(region, difference, alpha)

    width, kept = start[1] - start[0], start[0]
    step = width / 50
    while kept < 1 and rejected(kept):
        kept = min(kept + step, 1.0)
    while True:
        bound = max(kept - step, -1.0)
        while bound > -1 and not rejected(bound):
            kept, bound = bound, max(bound - step, -1.0)
        bound, kept = _bracket(rejected, bound, kept, _DIFFERENCE_STEP)
        below = [bound - share * width for share in _LOOK_BELOW if bound - share * width > -1]
        kept = min((difference for difference in below if not rejected(difference)), default=bound)
        if kept == bound:
            return bound


def _bracket(holds: Callable[[float], bool], low: float, high: float, precision: float) -> tuple[float, float]:
    """Neighbours of which `holds` is true for the lower one only, given that it is so for `low` and `high`."""
    while high - low > precision:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high
