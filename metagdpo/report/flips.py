"""Flips: the items on which candidate and base differ, with both answers, for people to look at."""

from collections.abc import Iterable
from typing import Literal

from metagdpo.errors import EvidenceError
from metagdpo.records.item_score import ItemScore
from metagdpo.schema import Frozen


class Flip(Frozen):
    """One item that was lost or gained."""

    suite: str
    item_id: str
    kind: Literal["lost", "gained"]
    base_answer: str
    candidate_answer: str


def find_flips(base: Iterable[ItemScore], candidate: Iterable[ItemScore]) -> list[Flip]:
    """Items whose scores differ, in the base's order.

    Raises:
        EvidenceError: An item of the base has no counterpart.
    """
    answers = {(item.suite, item.item_id): item for item in candidate}
    flips = []
    for before in base:
        after = answers.get((before.suite, before.item_id))
        if after is None:
            raise EvidenceError(f"suite {before.suite}, item {before.item_id}: the candidate has no score for it.")
        if before.score != after.score:
            flips.append(
                Flip(
                    suite=before.suite,
                    item_id=before.item_id,
                    kind="lost" if before.score > after.score else "gained",
                    base_answer=before.answer,
                    candidate_answer=after.answer,
                )
            )
    return flips
