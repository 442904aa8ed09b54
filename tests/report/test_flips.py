"""Flips are the items whose scores differ."""

from metagdpo.records.item_score import ItemScore
from metagdpo.report.flips import find_flips


def score(item, value, answer):
    return ItemScore(suite="s", item_id=item, doc="", prompt="", target="", score=value, answer=answer)


def test_lost_and_gained_items_carry_both_answers_and_kept_ones_are_left_out():
    base = [score("1", 1.0, "right"), score("2", 0.0, "wrong"), score("3", 1.0, "right")]
    candidate = [score("3", 1.0, "right"), score("2", 1.0, "now right"), score("1", 0.0, "now wrong")]
    flips = [(f.item_id, f.kind, f.base_answer, f.candidate_answer) for f in find_flips(base, candidate)]
    assert flips == [("1", "lost", "right", "now wrong"), ("2", "gained", "wrong", "now right")]


def test_items_that_an_early_stop_left_out_are_passed_over():
    assert find_flips([score("1", 1.0, ""), score("2", 1.0, "")], [score("1", 1.0, "")]) == []


def test_a_flip_names_the_knowledge_units_of_its_item():
    found = find_flips([score("1", 1.0, "")], [score("1", 0.0, "")], {("s", "1"): ("carrying", "s")})
    assert found[0].units == ("carrying", "s")
