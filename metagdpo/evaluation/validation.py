"""Validation: items for choosing between candidates, none of which the gate sees, and the choice of alpha by them.

What a choice was made on looks better than it is: the best of several noisy measurements is too high on average. The
gate therefore decides on other items. Items that may have been trained on choose nothing either.

Home of: the choice of alpha (Wise-FT).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field, field_validator

from metagdpo.answers import ask
from metagdpo.errors import ConfigError
from metagdpo.evaluation.items import Item, spare_items
from metagdpo.evaluation.suite import Suite
from metagdpo.records.group import ResponseGroup
from metagdpo.records.interpolation import InterpolationPoint
from metagdpo.records.verdict import Tier
from metagdpo.schema import Frozen

RETAINED: frozenset[Tier] = frozenset({"required", "safety"})
TARGET: frozenset[Tier] = frozenset({"target"})
TIE = 1e-9
"""Gains closer than this are equal: means of the same hits in another order differ in their last digits."""


class InterpolateParams(Frozen):
    """Section `interpolate`."""

    alphas: tuple[float, ...] = Field(min_length=1)
    """Shares of the way from the base to the trained weights that are tried, ascending, each above 0 and at most 1. One
    alone is taken as it is, and nothing is measured; `[1.0]` keeps the trained weights."""
    n_items: int = Field(gt=0)
    """Items of each suite to choose on, longer by the rest of a cluster; none of them is one that the gate sees."""
    retention: float = Field(ge=0, le=1)
    """What the mean change on required and safety suites counts; that on target suites counts the rest to 1."""

    @field_validator("alphas")
    @classmethod
    def _shares_in_order(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < alpha <= 1 for alpha in alphas):
            raise ValueError("each alpha lies above 0 (the base) and at most at 1 (the trained weights)")
        if list(alphas) != sorted(set(alphas)):
            raise ValueError("alphas stand in ascending order, each once")
        return alphas

    @property
    def chooses(self) -> bool:
        """Whether there is anything to measure."""
        return len(self.alphas) > 1


def choosing_suites(suites: Iterable[Suite], retention: float) -> list[Suite]:
    """The suites that have a say: all but the watched ones.

    Raises:
        ConfigError: One side of the trade-off has weight, but no suite.
    """
    chosen = [suite for suite in suites if suite.tier in RETAINED | TARGET]
    tiers = {suite.tier for suite in chosen}
    for weight, needed, names in ((1 - retention, TARGET, "target"), (retention, RETAINED, "required or safety")):
        if weight > 0 and not tiers & needed:
            message = f"interpolate.retention {retention:g} weighs up target and retention, but no suite has the tier "
            raise ConfigError(f"{message}{names}. Add one to registry/suites, or set interpolate.alphas: [1.0].")
    return chosen


def validation_items(
    suite: Suite, own: Iterable[Item], assets: Path, n_items: int, groups: Iterable[ResponseGroup] = ()
) -> list[Item]:
    """Items like a suite's own that are none of them, were not trained on, and share no cluster with either.

    Args:
        suite: The suite.
        own: Its items, as data/suites holds them.
        assets: Folder that holds a directory for each asset.
        n_items: How many are wanted; the last cluster is taken whole.
        groups: What is trained on.

    Returns:
        Fewer than `n_items` when the suite has not so many left.

    Raises:
        ConfigError: None is left, or the suite cannot be read (as for `collect`).
        DataError: As for `collect`.
    """
    own = tuple(own)
    documents = {item.doc for item in own}
    clusters = {item.cluster for item in own if item.cluster is not None}
    trained = {text for group in groups for text in (group.question_id, _flat(group.prompt))}
    found: list[Item] = []
    for cluster in spare_items(suite, assets):
        if len(found) >= n_items:
            break
        if cluster[0].cluster not in clusters and not any(_names(item) & trained for item in cluster):
            found += [item for item in cluster if item.doc not in documents]
    if not found:
        message = (
            f"suite {suite.name} has no items left to choose alpha on: all of {suite.reference} are its own items or "
            f"were trained on. Lower n_items in registry/suites/{suite.name}.yaml, make the suite `tier: watched`, or "
            "set one value in interpolate.alphas, which needs no choice."
        )
        raise ConfigError(message)
    return found


def measured_point(
    alpha: float,
    weights: str,
    accuracy: Mapping[str, float],
    *,
    base: Mapping[str, float],
    tiers: Mapping[str, Tier],
    retention: float,
) -> InterpolationPoint:
    """A point of the curve: gain = (1 - retention) * mean target change + retention * mean change of retained suites.

    Args:
        alpha: Share of the way; 0 is the base.
        weights: Digest of what was measured.
        accuracy: Of each suite, on its validation items.
        base: The base's, on the same items.
        tiers: Of each suite.
        retention: Weight of the retained suites, in 0..1.
    """
    target, retained = _mean(accuracy, tiers, TARGET), _mean(accuracy, tiers, RETAINED)
    before = _mean(base, tiers, TARGET), _mean(base, tiers, RETAINED)
    return InterpolationPoint(
        alpha=alpha,
        weights=weights,
        accuracy=dict(accuracy),
        target=target,
        retained=retained,
        gain=(1 - retention) * _change(before[0], target) + retention * _change(before[1], retained),
    )


def choose_alpha(points: Sequence[InterpolationPoint]) -> float:
    """The alpha of the largest gain; of equal ones the smallest, which moved the model least. The base is no choice.

    Gains that differ by less than chance allows are not taken for equal: that would cost gain on the target wherever
    items are few, and the gate tests retention anyway, on items of its own.

    Raises:
        ValueError: There is no point besides the base.
    """
    tried = [point for point in points if point.alpha > 0]
    best = max(point.gain for point in tried)
    return min(point.alpha for point in tried if point.gain >= best - TIE)


def _mean(accuracy: Mapping[str, float], tiers: Mapping[str, Tier], wanted: frozenset[Tier]) -> float | None:
    """Mean over the suites of these tiers, each counting the same."""
    values = [value for suite, value in accuracy.items() if tiers[suite] in wanted]
    return sum(values) / len(values) if values else None


def _change(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else after - before


def _names(item: Item) -> set[str]:
    """All under which a training group would show the item's question."""
    asked = [item.prompt] if item.question is None else [item.question.prompt, ask(item.question), item.prompt]
    return {item.id, *(_flat(text) for text in asked)}


def _flat(text: str) -> str:
    return " ".join(text.split())
