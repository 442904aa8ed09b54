"""Tango's score interval for a paired difference of proportions: numbers in, numbers out.

    difference = candidate - base = (gained - lost) / n, in accuracy; higher is better

The interval is made of all differences that the score test does not reject. It keeps a width when no item flips, where
a Wald interval shrinks to a point and would let ten identical answers prove anything.

How far to trust it: the bounds are asymptotic and hold alpha on average, not always. Enumerated exactly at alpha = 0.05
over thousands of margins (1 to 15 points), item counts and discordances, a candidate that loses just the margin passes
with probability at most 0.080 for n from 10, 0.070 from 100, 0.060 from 500 (below 0.05 on average); it is called worse
with at most 0.10, 0.10, 0.08. The excess needs nearly all flips to be losses and only a few of them to be expected.
tests/gate/test_power.py repeats the enumeration.

Home of: Tango's score interval (Statistics in Medicine 17:891-908, 1998)
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from metagdpo.errors import EvidenceError

Floats = npt.NDArray[np.float64]
_BISECTIONS = 64  # halves an interval of length 2 below the spacing of doubles


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
    """Lower and upper one-sided (1 - alpha) bounds of the difference; together a two-sided (1 - 2 alpha) interval.

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


def p_non_inferior(n: int, lost: int, gained: int, margin: float) -> float:
    """One-sided p-value of H0 "the candidate lost at least the margin"; below alpha exactly when low > -margin."""
    return _upper_tail(float(score(n, lost, gained, -margin)))


def p_worse(n: int, lost: int, gained: int, margin: float) -> float:
    """One-sided p-value of H0 "the candidate lost at most the margin"; below alpha exactly when high < -margin."""
    return _upper_tail(-float(score(n, lost, gained, -margin)))


def count_flips(suite: str, pairs: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """Number of items lost and gained among (base score, candidate score) pairs.

    Raises:
        EvidenceError: A score is neither 0 nor 1, NaN included: this interval is for right-or-wrong items only.
    """
    for index, pair in enumerate(pairs):
        if any(value not in {0.0, 1.0} for value in pair):
            message = (
                f"suite {suite}, item {index}: scores {pair} are not 0 or 1. The gate compares right-or-wrong items; "
                "give the suite a binary metric such as acc or exact_match."
            )
            raise EvidenceError(message)
    lost = sum(base > candidate for base, candidate in pairs)
    gained = sum(base < candidate for base, candidate in pairs)
    return lost, gained


def check_counts(n: int, lost: int, gained: int) -> None:
    """Refuse counts that no paired comparison can give."""
    if n < 1 or lost < 0 or gained < 0 or lost + gained > n:
        raise EvidenceError(f"{lost} lost and {gained} gained of {n} items is impossible: compare at least one item.")


def z_value(alpha: float) -> float:
    """Upper alpha quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(1 - alpha)


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


def _upper_tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2
