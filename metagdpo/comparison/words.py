"""Numbers of the comparison in words: points of accuracy with a sign, intervals, costs, verdicts."""

from collections import Counter
from collections.abc import Sequence

from metagdpo.records.comparison import Estimate, Spread
from metagdpo.records.verdict import Decision

NONE = "–"
DECISIONS: tuple[Decision, ...] = ("PROMOTE", "INCONCLUSIVE", "BLOCK")


def points(share: float) -> str:
    """Points of accuracy with a sign, and no negative zero."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "\u2212")


def measured(estimate: Estimate | None) -> str:
    """A change in points with its interval, such as `−2.1 [−4.0, −0.2]`."""
    return NONE if estimate is None else f"{points(estimate.value)} {interval(estimate)}"


def interval(estimate: Estimate) -> str:
    """Both ends in points."""
    return f"[{points(estimate.low)}, {points(estimate.high)}]"


def nats(estimate: Estimate | None) -> str:
    """A drift in nats a token with its interval."""
    if estimate is None:
        return NONE
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]".replace("-", "\u2212")


def minutes(seconds: Spread | None) -> str:
    """Mean wall time in minutes."""
    return NONE if seconds is None else f"{seconds.mean / 60:.1f}"


def gigabytes(spread: Spread | None) -> str:
    """Mean peak memory, 10^9 bytes."""
    return NONE if spread is None else f"{spread.mean:.2f}"


def count(spread: Spread | None) -> str:
    """A mean count."""
    return NONE if spread is None else f"{spread.mean:,.0f}"


def alphas(values: Sequence[float]) -> str:
    """Shares of the way from the base to the trained weights; empty where nothing was interpolated."""
    if all(value == 1 for value in values):
        return ""
    return ", ".join(f"{value:g}" for value in values)


def verdicts(decisions: Sequence[Decision]) -> str:
    """How often each verdict was given, such as `2 PROMOTE, 1 BLOCK`."""
    counts = Counter(decisions)
    return ", ".join(f"{counts[name]} {name}" for name in DECISIONS if counts[name]) or NONE


def correlation(value: float | None, low: float | None, high: float | None) -> str:
    """A correlation with its interval."""
    if value is None or low is None or high is None:
        return NONE
    return f"{value:.2f} [{low:.2f}, {high:.2f}]".replace("-", "\u2212")
