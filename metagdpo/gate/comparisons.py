"""Which suite is compared with whom: base, champion, and the ratchet that makes a learned skill a retained one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from metagdpo.errors import ConfigError
from metagdpo.gate.decide import Comparison, SuiteInfo
from metagdpo.gate.policy import Policy
from metagdpo.records.champion import Champion
from metagdpo.records.item_score import ItemScore
from metagdpo.records.paired import PairedScore
from metagdpo.records.verdict import Against

Pairs = Mapping[str, Sequence[PairedScore]]
"""Paired scores by suite."""


class Design(NamedTuple):
    """What is known of a suite before anything is scored."""

    n_items: int
    largest_cluster: int | None
    """Items of its largest cluster; None when items are independent."""


def designs(scores: Iterable[ItemScore]) -> dict[str, Design]:
    """The design of every suite, from a complete evaluation."""
    clusters: dict[str, Counter[str | None]] = {}
    for score in scores:
        clusters.setdefault(score.suite, Counter())[score.cluster] += 1
    return {suite: Design(found.total(), _largest(found)) for suite, found in clusters.items()}


def _largest(items_by_cluster: Counter[str | None]) -> int | None:
    """Items of the largest cluster, an item without one being its own."""
    sizes = [count for cluster, count in items_by_cluster.items() if cluster is not None]
    return max(sizes, default=None)


def with_ratchet(suites: Sequence[SuiteInfo], champion: Champion) -> tuple[SuiteInfo, ...]:
    """The suites with every skill that earlier releases were trained for among those that decide.

    A target stays a target (it is trained once more), a watched one becomes required.

    Raises:
        ConfigError: The suite of a skill that was released is not there any more; names each.
    """
    lost = sorted(set(champion.retained) - {suite.suite for suite in suites})
    if lost:
        message = (
            f"earlier releases were trained for {', '.join(lost)}, and registry/suites has no such suite any more: "
            "nobody could tell whether the skill is kept. Restore the file with git; to give a skill up in the open, "
            "`champion: false` in registry/policy.yaml switches the comparison with earlier releases off."
        )
        raise ConfigError(message)
    return tuple(
        suite.model_copy(update={"tier": "required"})
        if suite.suite in champion.retained and suite.tier == "watched"
        else suite
        for suite in suites
    )


def comparisons(  # noqa: PLR0917  (all six are what is compared)
    policy: Policy,
    suites: Sequence[SuiteInfo],
    champion: Champion,
    base: Pairs,
    champions: Pairs | None,
    planned: Mapping[str, Design],
) -> tuple[Comparison, ...]:
    """Every suite against the base and, when there is one and the policy wants it, against the champion.

    Args:
        policy: Says whether the champion counts.
        suites: All suites.
        champion: The release to compare with; says which skills are retained.
        base: Scores paired with the base's.
        champions: Scores paired with the champion's; None when there is none.
        planned: Design of each suite.
    """
    ratcheted = with_ratchet(suites, champion) if policy.champion else tuple(suites)
    references: list[tuple[Against, Pairs]] = [("base", base)]
    if policy.champion and champions is not None:
        references.append(("champion", champions))
    return tuple(
        Comparison(suite, against, pairs[suite.suite], *planned[suite.suite])
        for against, pairs in references
        for suite in ratcheted
    )
