"""Probability that a paired comparison ends in a region of (lost, gained), and its largest value over the nuisance.

Of n independent items each is lost with probability u + max(0, -d), gained with u + max(0, d), and else unchanged; d is
the true difference and u in [0, (1 - |d|) / 2] the nuisance. A region is an array `most`: most[f] is the largest number
of losses among f flips inside it, -1 for none. With a table it holds the tables with one loss less and with one
gain more in place of an unchanged item (Barnard's condition): most[f + 1] - most[f] is 0 or 1. `closed` makes it so.

B(f) is the probability of the region given f flips, r the share of losses among flips, and e(f) the probability of
the edge: of most[f] losses among f flips when the step to f + 1 is 0, of most[f] + 1 when it is 1. Then

    B(f + 1) = B(f) - r e(f)   or, with a step,   B(f) + (1 - r) e(f)
    S(u)  = sum_f Binomial(f; n, F) B(f)                      F = P(flip)
    S'(u) = n sum_f Binomial(f; n - 1, F) e(f) (-1 or, with a step, +1)

so S and S' cost one probability a flip. The largest S is proven, not read off a grid. Cell probabilities are linear in
u, so the fourth derivative of S is 4! times the covariance of the region with the fourth elementary symmetric
polynomial of the items' scores; scores are independent with mean 0 and variance I, hence by Cauchy and Schwarz

    |S''''| <= sqrt(4! n (n-1) (n-2) (n-3) S (1 - S)) I^2,     I = 1 / P(lost) + 1 / P(gained) + 4 / P(unchanged)

and, where I diverges, |S''''| <= 128 n (n-1) (n-2) (n-3). A cubic through S and S' at two values of u is off by at most
width^4 / 384 of that between them. Intervals are halved until none can hold more than the best value and a tolerance.

Home of: the probability of a region of flips and its largest value over the nuisance
"""

import functools
import math

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
TOLERANCE = 1e-8
"""How far the proven bound may lie above the largest probability, beside a millionth of it."""
_LEFT_OUT = 1e-10  # largest probability of the numbers of flips that are left out of a sum
_SIGMAS, _FLIPS = 7.0, 16.0  # Bernstein's inequality: further from the mean than both lies less than _LEFT_OUT
_NARROWEST = 1e-15  # intervals of u that doubles cannot halve
_BLOCK = 1_000_000  # elements of an array: 8 MB


def closed(most: Counts) -> Counts:
    """The smallest region with Barnard's condition that holds the region `most`, shape (n + 1,)."""
    flips = np.arange(len(most))
    upward = np.maximum.accumulate(most)  # a gain more keeps a table inside
    return np.maximum.accumulate((upward - flips)[::-1])[::-1] + flips  # so does a loss less


def probabilities(most: Counts, lost_rates: npt.ArrayLike, gained_rates: npt.ArrayLike) -> Floats:
    """Probability of a region with Barnard's condition under each pair of rates.

    Args:
        most: Shape (n + 1,), the region of n items.
        lost_rates: P(lost), shape (Q,).
        gained_rates: P(gained), shape (Q,); the sum of both is at most 1.

    Returns:
        Shape (Q,); an error of at most 1e-10, by which they may be too small.
    """
    return _values_and_slopes(most, np.asarray(lost_rates, np.float64), np.asarray(gained_rates, np.float64))[0]


def largest_probability(most: Counts, difference: float) -> float:
    """Upper bound of the probability of a region under all rates with P(gained) - P(lost) = `difference`.

    By Barnard's condition no smaller difference gives the region more: it bounds the whole hypothesis "at most".

    Args:
        most: Shape (n + 1,), a region with Barnard's condition.
        difference: In -1..1.

    Returns:
        At least the largest probability, and above it by less than 1e-6 of it + 1.1 `TOLERANCE`.
    """
    return _search(most, difference, lowest=0.0, highest=1.0)


def may_exceed(most: Counts, difference: float, level: float) -> bool:
    """Whether `largest_probability` is above `level`; less work, as only the neighbourhood of the level is searched."""
    return _search(most, difference, lowest=level, highest=level) > level


def _search(most: Counts, difference: float, lowest: float, highest: float) -> float:
    """The bound, right between `lowest` and `highest`; beyond them only on the right side of them."""
    n = len(most) - 1
    # The first grid is equidistant in arcsin, the arc length of Fisher's information when there is no difference.
    u = (1 - abs(difference)) / 2 * np.sin(np.linspace(0, math.pi / 2, 9 + 3 * math.isqrt(n))) ** 2
    points = np.stack([u, *_at(most, difference, u)])
    left, right, best, proven = points[:, :-1], points[:, 1:], float(points[1].max()), 0.0
    while True:
        bounds = _bounds(n, difference, left, right)
        wide = (bounds > max(lowest, best + TOLERANCE + 1e-6 * best)) & (right[0] - left[0] > _NARROWEST)
        proven = max(proven, float(bounds[~wide].max(initial=0.0)))
        if not wide.any() or best > highest:
            return min(max(proven, best) + _LEFT_OUT, 1.0)
        left, right = left[:, wide], right[:, wide]
        u = (left[0] + right[0]) / 2
        middle = np.stack([u, *_at(most, difference, u)])
        best = max(best, float(middle[1].max()))
        left, right = np.concatenate([left, middle], axis=1), np.concatenate([middle, right], axis=1)


def _at(most: Counts, difference: float, u: Floats) -> tuple[Floats, Floats]:
    return _values_and_slopes(most, u + max(0.0, -difference), u + max(0.0, difference))


def _bounds(n: int, difference: float, left: Floats, right: Floats) -> Floats:
    """Upper bounds of S between neighbouring points; `left` and `right` hold u, S and S', shape (3, cells)."""
    width = right[0] - left[0]
    top = _cubic_maximum(left[1], width * left[2], right[1], width * right[2])
    falling = float(n) * (n - 1) * (n - 2) * (n - 3)
    information = np.maximum(_information(difference, left[0]), _information(difference, right[0]))  # I is convex
    # x <= top + share sqrt(x) for the largest value x, as S (1 - S) <= x
    share = width**4 / 384 * np.sqrt(24 * falling) * information**2
    by_information = ((share + np.sqrt(share * share + 4 * top)) / 2) ** 2
    return np.asarray(np.minimum(by_information, top + width**4 / 384 * 128 * falling), dtype=np.float64)


def _information(difference: float, u: Floats) -> Floats:
    """Fisher's information of one item about u, capped where it diverges."""
    cells = np.stack([u, u + abs(difference), 1 - 2 * u - abs(difference)])
    return np.asarray(np.array([1.0, 1.0, 4.0]) @ (1 / np.maximum(cells, 1e-30)), dtype=np.float64)


def _cubic_maximum(first: Floats, first_slope: Floats, last: Floats, last_slope: Floats) -> Floats:
    """Largest value on [0, 1] of the cubics with these values and slopes at 0 and 1."""
    a = 2 * first - 2 * last + first_slope + last_slope
    b = 3 * last - 3 * first - 2 * first_slope - last_slope
    root = np.sqrt(np.maximum(b * b - 3 * a * first_slope, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # the root with a negative second derivative, in its two forms: one of them does not cancel
        turns = [np.nan_to_num(np.clip(t, 0, 1)) for t in (-(b + root) / (3 * a), first_slope / (root - b))]
    inner = [first + t * (first_slope + t * (b + t * a)) for t in turns]
    return np.asarray(np.maximum.reduce([first, last, *inner]), dtype=np.float64)


def _values_and_slopes(most: Counts, lost_rates: Floats, gained_rates: Floats) -> tuple[Floats, Floats]:
    """S and S' at each pair of rates, in blocks of bounded memory."""
    n, flip_rates = len(most) - 1, lost_rates + gained_rates
    reach = _SIGMAS * np.sqrt(n * np.maximum(flip_rates * (1 - flip_rates), 0.0)) + _FLIPS
    first = np.maximum(np.floor(n * flip_rates - reach), 0).astype(np.int64)
    length = min(int(2 * reach.max()) + 3, n + 1)
    first = np.minimum(first, n + 1 - length)
    tables = _tables(most)
    rows = max(1, _BLOCK // length)
    blocks = [slice(i, i + rows) for i in range(0, len(lost_rates), rows)]
    parts = [_block(most, tables, lost_rates[b], gained_rates[b], first[b, None] + np.arange(length)) for b in blocks]
    return np.concatenate([value for value, _ in parts]), np.concatenate([slope for _, slope in parts])


def _tables(most: Counts) -> tuple[Floats, Counts, Floats, Counts]:
    """By number of flips: log C(n, f), losses on the edge, log C(f, edge), and the step to f + 1."""
    n = len(most) - 1
    log_factorial = _log_factorials(n)
    flips = np.arange(n + 1)
    step = np.append(np.diff(most), 0)
    edge = most + step
    possible = (edge >= 0) & (edge <= flips)
    edge = np.where(possible, edge, 0)
    of_edge = np.where(possible, log_factorial - log_factorial[edge] - log_factorial[flips - edge], -np.inf)
    return log_factorial[n] - log_factorial - log_factorial[::-1], edge, of_edge, step


@functools.lru_cache(maxsize=64)
def _log_factorials(n: int) -> Floats:
    from scipy.special import gammaln

    return np.asarray(gammaln(np.arange(n + 1) + 1.0), dtype=np.float64)


def _block(
    most: Counts, tables: tuple[Floats, Counts, Floats, Counts], lost_rates: Floats, gained_rates: Floats, flips: Counts
) -> tuple[Floats, Floats]:
    """S and S' at each pair of rates, shape (Q,), over the numbers of flips that matter, shape (Q, F)."""
    from scipy.special import xlogy
    from scipy.stats import binom

    n, of_flips, (edge, of_edge, step) = len(most) - 1, tables[0], tables[1:]
    flip_rate = np.clip(lost_rates + gained_rates, 0.0, 1.0)[:, None]
    lost_share = np.clip(lost_rates[:, None] / np.where(flip_rate > 0, flip_rate, 1.0), 0.0, 1.0)
    gained_share = np.clip(gained_rates[:, None] / np.where(flip_rate > 0, flip_rate, 1.0), 0.0, 1.0)
    # Binomial(f; n, F), and n Binomial(f; n - 1, F) = C(n, f) (n - f) F^f (1 - F)^(n - 1 - f)
    log_flips = of_flips[flips] + xlogy(flips, flip_rate)
    weights = np.exp(log_flips + xlogy(n - flips, 1 - flip_rate))
    others = (n - flips) * np.exp(log_flips + xlogy(np.maximum(n - 1 - flips, 0), 1 - flip_rate))
    at_edge = np.exp(of_edge[flips] + xlogy(edge[flips], lost_share) + xlogy(flips - edge[flips], gained_share))
    rises = step[flips] == 1
    change = np.where(rises, gained_share, -lost_share) * at_edge
    inside = binom.cdf(most[flips[:, :1]], flips[:, :1], lost_share) + np.cumsum(change, axis=1) - change
    value = np.minimum(np.sum(weights * np.clip(inside, 0.0, 1.0), axis=1), 1.0)
    return value, np.sum(others * np.where(rises, at_edge, -at_edge), axis=1)
