"""Power before spending: which losses the suites can see, said before anything is trained or evaluated.

All numbers follow from the base's scores, the policy and one assumption, the share of items that flip between base and
candidate. They are those of the exact test for independent right-or-wrong items; scores that are graded or clustered,
and relative margins, are judged by betting, which needs more items.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from metagdpo.gate import power
from metagdpo.gate.policy import Margin, Relative
from metagdpo.records.verdict import Tier
from metagdpo.schema import Frozen

_NONE = "-"


class PlannedSuite(Frozen):
    """A suite, and how the base scores on it."""

    suite: str
    tier: Tier
    n_items: int = Field(ge=1)
    base: float = Field(ge=0, le=1)
    """Mean score of the base."""
    chance: float = Field(ge=0, le=1)
    """Score of guessing."""
    margin: Margin
    """Largest accepted loss; not used by a target."""
    gain: float = Field(default=0.0, ge=0, lt=1)
    """Gain that a target must exceed."""
    n_clusters: int | None = None
    """Groups of dependent items; None when items are independent."""


class Assumptions(Frozen):
    """What the plan is made for."""

    alpha: float = Field(gt=0, lt=0.5)
    """One-sided error rate of the test."""
    power: float = Field(gt=0.5, lt=1)
    """Probability with which the suites should show what is there."""
    flip_rate: float = Field(ge=0, le=1)
    """Share of items whose answer turns from right to wrong or back, half of them each way."""
    min_items: int = Field(default=1, ge=1)
    """A suite with fewer items stays undecided."""


class SuitePlan(Frozen):
    """What one suite can show. Losses, gains and margins are in accuracy."""

    suite: str
    tier: Tier
    n_items: int
    base: float
    chance: float
    margin: float
    """Largest accepted loss; of a relative margin its worth at the base's score; negative for a demanded gain."""
    flip_rate: float
    """As assumed, or the largest that the base's score allows."""
    power_if_unchanged: float | None
    """Probability that an unchanged candidate passes; null for a target, which an unchanged one must not pass."""
    smallest_margin: float | None
    """Smallest margin that an unchanged candidate passes with the chosen power; null for a target, or if none is."""
    blocked_loss: float | None
    """Smallest true loss that is proven too large with the chosen power (negative: a gain proven too small); null when
    the base has not so much to lose."""
    shown_gain: float | None
    """Of a target, the smallest true gain that is proven large enough with the chosen power."""
    items_needed: int | None
    """Items with which an unchanged candidate passes with the chosen power; null for a target, or if a million fail."""
    warnings: tuple[str, ...]
    """Sentences for people."""


def plan(suites: Iterable[PlannedSuite], assumptions: Assumptions) -> tuple[SuitePlan, ...]:
    """Say what each suite can show.

    Example:
        >>> suite = PlannedSuite(suite="piqa", tier="required", n_items=400, base=0.66, chance=0.5, margin=0.04)
        >>> row = plan([suite], Assumptions(alpha=0.05, power=0.8, flip_rate=0.05))[0]
        >>> row.smallest_margin, row.items_needed
        (0.0298, 234)
    """
    return tuple(_plan_suite(suite, assumptions) for suite in suites)


def table(rows: Sequence[SuitePlan], form: Literal["text", "markdown"] = "text") -> list[str]:
    """Lines of a table with aligned columns, then the warnings; losses, gains and margins in points of accuracy."""
    cells = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADER))]
    aligned = [
        [cell.ljust(width) if column < _TEXT_COLUMNS else cell.rjust(width) for column, (cell, width) in pairs]
        for pairs in (enumerate(zip(line, widths, strict=True)) for line in cells)
    ]
    warnings = [f"{row.suite}: {warning}" for row in rows for warning in row.warnings]
    if form == "text":
        return ["  ".join(line).rstrip() for line in aligned] + ([""] if warnings else []) + warnings
    rule = ["-" * width if column < _TEXT_COLUMNS else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    lines = [f"| {' | '.join(line)} |" for line in (aligned[0], rule, *aligned[1:])]
    return lines + ([""] if warnings else []) + [f"- {warning}" for warning in warnings]


_HEADER = (
    "suite",
    "tier",
    "items",
    "base %",
    "margin",
    "passes unchanged %",
    "smallest margin",
    "items needed",
    "blocks a loss of",
    "shows a gain of",
)
_TEXT_COLUMNS = 2


def _cells(row: SuitePlan) -> tuple[str, ...]:
    return (
        row.suite,
        row.tier,
        f"{row.n_items:,}",
        f"{100 * row.base:.1f}",
        _points(row.margin),
        _NONE if row.power_if_unchanged is None else f"{100 * row.power_if_unchanged:.0f}",
        _points(row.smallest_margin),
        _NONE if row.items_needed is None else f"{row.items_needed:,}",
        _points(row.blocked_loss),
        _points(row.shown_gain),
    )


def _plan_suite(suite: PlannedSuite, assumptions: Assumptions) -> SuitePlan:
    n, alpha, wanted = suite.n_items, assumptions.alpha, assumptions.power
    margin, target = effective_margin(suite), suite.tier == "target"
    flip_rate = min(assumptions.flip_rate, 2 * min(suite.base, 1 - suite.base))
    decides = n >= assumptions.min_items
    passes = power.power_if_unchanged(n, flip_rate, margin, alpha) if decides else 0.0
    needed = None if target else power.items_needed(flip_rate, 0.0, margin, alpha, wanted)
    accepted = 0.0 if suite.tier == "safety" else margin  # a proven loss of any size blocks on a safety suite
    blocked = power.smallest_blocked_loss(n, flip_rate, accepted, alpha, wanted) if decides else None
    row = SuitePlan(
        suite=suite.suite,
        tier=suite.tier,
        n_items=n,
        base=suite.base,
        chance=suite.chance,
        margin=margin,
        flip_rate=flip_rate,
        power_if_unchanged=None if target else passes,
        smallest_margin=None if target or not decides else power.smallest_margin(n, flip_rate, alpha, wanted),
        blocked_loss=None if blocked is None or blocked > suite.base else blocked,
        shown_gain=power.smallest_shown_gain(n, flip_rate, suite.gain, alpha, wanted) if target and decides else None,
        items_needed=None if needed is None else max(needed, assumptions.min_items),
        warnings=(),
    )
    return row.model_copy(update={"warnings": tuple(_warnings(suite, assumptions, row))})


def effective_margin(suite: PlannedSuite) -> float:
    """The margin in accuracy; negative for the gain that a target must exceed.

    A relative margin is worth its share of what the base has above chance, nothing when that is nothing.
    """
    if suite.tier == "target":
        return -suite.gain
    if isinstance(suite.margin, Relative):
        return suite.margin.relative * max(suite.base - suite.chance, 0.0)
    return suite.margin


def _warnings(suite: PlannedSuite, assumptions: Assumptions, row: SuitePlan) -> Iterable[str]:
    if suite.n_items < assumptions.min_items:
        yield f"{suite.n_items} items are fewer than the {assumptions.min_items} of the policy: it stays undecided."
    if assumptions.flip_rate > row.flip_rate:
        yield (
            f"A flip rate of {_percent(assumptions.flip_rate)} cannot keep the base's {_percent(suite.base)}; "
            f"planned with {_percent(row.flip_rate)}, the most that can."
        )
    yield from (
        _target_warnings(suite, assumptions, row) if suite.tier == "target" else _loss_warnings(suite, assumptions, row)
    )


def _loss_warnings(suite: PlannedSuite, assumptions: Assumptions, row: SuitePlan) -> Iterable[str]:
    above_chance = max(suite.base - suite.chance, 0.0)
    if not _above_chance(suite, assumptions.alpha):
        yield (
            f"The base scores {_percent(suite.base)} and guessing {_percent(suite.chance)}: nothing that could be "
            f"forgotten is shown to be there; losing all of it would cost about {_in_points(above_chance)}."
        )
    if row.margin >= above_chance:
        yield (
            f"The base has {_in_points(above_chance)} above chance and the margin is {_in_points(row.margin)}: "
            "a model that lost all of it would still be within the margin, so the test can never fail."
        )
    elif row.n_items >= assumptions.min_items and (row.blocked_loss is None or row.blocked_loss > above_chance):
        yield (
            f"The base has {_in_points(above_chance)} above chance, and no loss as small as that is blocked with a "
            f"probability of {_percent(assumptions.power)}: losing all of it would often stay undecided."
        )
    passes = row.power_if_unchanged
    if passes is not None and passes < assumptions.power and row.n_items >= assumptions.min_items:
        yield _too_few(assumptions, row, passes)
    if suite.n_clusters is not None:
        yield from _cluster_warnings(suite.n_clusters, assumptions, row)
    if isinstance(suite.margin, Relative):
        yield (
            "A relative margin is judged by betting, which needs more items; these numbers are those of an absolute "
            f"margin of {_in_points(row.margin)}."
        )


def _cluster_warnings(n_clusters: int, assumptions: Assumptions, row: SuitePlan) -> Iterable[str]:
    """Clusters that are lost as a whole: (1 - margin)^n is the chance that n of them show no loss of the margin."""
    yield f"Its items fall into {n_clusters:,} clusters; these numbers take the items as independent and are too good."
    needed = math.ceil(math.log(assumptions.alpha) / math.log1p(-row.margin)) if 0 < row.margin < 1 else None
    if needed is not None and n_clusters < needed:
        yield (
            f"With fewer than {needed:,} clusters no outcome can show a loss below {_points(row.margin)} points, since "
            "whole clusters may be lost: the suite stays undecided."
        )


def _target_warnings(suite: PlannedSuite, assumptions: Assumptions, row: SuitePlan) -> Iterable[str]:
    room = 1 - suite.base
    if room <= suite.gain:
        yield (
            f"The base scores {_percent(suite.base)}: a gain of more than {_in_points(suite.gain)} is impossible, "
            "so no candidate can pass."
        )
    elif row.shown_gain is None or row.shown_gain > room:
        shown = "no gain" if row.shown_gain is None else f"gains from {_in_points(row.shown_gain)} on"
        yield (
            f"{suite.n_items:,} items show {shown} with a probability of {_percent(assumptions.power)}, but the base "
            f"leaves room for {_in_points(room)} only: use harder or more items."
        )


def _too_few(assumptions: Assumptions, row: SuitePlan, passes: float) -> str:
    needed = "a million items are not enough" if row.items_needed is None else f"{row.items_needed:,} items are needed"
    could = "" if row.smallest_margin is None else f", or a margin of {_in_points(row.smallest_margin)}"
    return (
        f"An unchanged model passes a margin of {_in_points(row.margin)} with a probability of "
        f"{_percent(passes)} only; for {_percent(assumptions.power)} {needed}{could}."
    )


def _above_chance(suite: PlannedSuite, alpha: float) -> bool:
    """Whether a binomial test at alpha shows that the base knows more than guessing does."""
    from scipy.stats import binom

    right = round(suite.base * suite.n_items)
    return bool(binom.sf(right - 1, suite.n_items, suite.chance) <= alpha)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _points(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share + 0.0:.4g}"


def _in_points(share: float) -> str:
    text = _points(share)
    return f"{text} point" if text == "1" else f"{text} points"
