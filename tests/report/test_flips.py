"""Flips are the items whose scores differ."""

import pytest

from metagdpo.errors import EvidenceError
from metagdpo.records.item_score import ItemScore
from metagdpo.report.flips import find_flips


def score(item, value, answer):
    return ItemScore(suite="s", item_id=item, doc="", prompt="", target="", score=value, answer=answer)


def test_lost_and_gained_items_carry_both_answers_and_kept_ones_are_left_out():
    base = [score("1", 1.0, "right"), score("2", 0.0, "wrong"), score("3", 1.0, "right")]
    candidate = [score("3", 1.0, "right"), score("2", 1.0, "now right"), score("1", 0.0, "now wrong")]
    flips = [(f.item_id, f.kind, f.base_answer, f.candidate_answer) for f in find_flips(base, candidate)]
    assert flips == [("1", "lost", "right", "now wrong"), ("2", "gained", "wrong", "now right")]


def test_an_item_without_counterpart_is_refused():
    with pytest.raises(EvidenceError, match="suite s, item 1"):
        find_flips([score("1", 1.0, "")], [])
