"""Flips: the items on which candidate and base differ, with both answers, for people to look at."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from metagdpo.records.item_score import ItemScore
from metagdpo.schema import Frozen


class Flip(Frozen):
    """One item that was lost or gained."""

    suite: str
    item_id: str
    kind: Literal["lost", "gained"]
    base_answer: str
    candidate_answer: str
    units: tuple[str, ...] = ()
    """Knowledge units that the item needs."""


def find_flips(
    base: Iterable[ItemScore],
    candidate: Iterable[ItemScore],
    units: Mapping[tuple[str, str], Sequence[str]] | None = None,
) -> list[Flip]:
    """Items whose scores differ, in the base's order; items that an early stop left out are passed over.

    Args:
        base: Scores of the base.
        candidate: Scores of the candidate, of the same items or of the first ones.
        units: Knowledge units by (suite, item).
    """
    answers = {(item.suite, item.item_id): item for item in candidate}
    flips = []
    for before in base:
        after = answers.get((before.suite, before.item_id))
        if after is not None and before.score != after.score:
            flips.append(
                Flip(
                    suite=before.suite,
                    item_id=before.item_id,
                    kind="lost" if before.score > after.score else "gained",
                    base_answer=before.answer,
                    candidate_answer=after.answer,
                    units=tuple((units or {}).get((before.suite, before.item_id), ())),
                )
            )
    return flips
