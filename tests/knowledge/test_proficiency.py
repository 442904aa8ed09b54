import pytest

from metagdpo.errors import DataError
from metagdpo.knowledge.proficiency import measure
from metagdpo.records.knowledge import KnowledgeUnit


def unit(name, *questions):
    return KnowledgeUnit(name=name, aliases=(name,), question_ids=questions)


SCORES = {"m1": {"q1": 1.0, "q2": 1.0, "q3": 0.0}, "m2": {"q1": 1.0, "q2": 0.0, "q3": 0.5}}


def test_average_is_the_mean_over_questions_of_the_mean_over_models():
    (row,) = measure([unit("u", "q1", "q2", "q3")], SCORES).units
    assert row.average == pytest.approx(((1 + 1) / 2 + (1 + 0) / 2 + (0 + 0.5) / 2) / 3)


def test_strict_is_the_share_of_questions_that_every_model_answers_correctly():
    (row,) = measure([unit("u", "q1", "q2", "q3")], SCORES).units
    assert row.strict == 1 / 3


def test_strict_never_exceeds_average():
    profile = measure([unit("u", "q1"), unit("v", "q2", "q3"), unit("w", "q3")], SCORES)
    assert all(row.strict <= row.average for row in profile.units)


def test_each_model_has_its_own_mean():
    (row,) = measure([unit("u", "q2", "q3")], SCORES).units
    assert row.by_model == {"m1": (1 + 0) / 2, "m2": (0 + 0.5) / 2}
    assert row.n_questions == 2


def test_partial_credit_counts_in_the_average_and_not_in_strict():
    (row,) = measure([unit("u", "q")], {"m": {"q": 0.99}}).units
    assert (row.average, row.strict) == (0.99, 0.0)


def test_questions_without_any_unit_have_their_mastery_too():
    profile = measure([unit("u", "q1")], SCORES)
    assert {row.question_id: row.average for row in profile.questions} == {"q1": 1.0, "q2": 0.5, "q3": 0.25}


def test_the_order_of_units_and_questions_does_not_matter():
    turned = {model: dict(reversed(answers.items())) for model, answers in SCORES.items()}
    units = [unit("u", "q1", "q2"), unit("v", "q3")]
    assert measure(units[::-1], turned) == measure(units, SCORES)


def test_a_missing_answer_is_not_a_wrong_one():
    scores = {"m1": {"q1": 1.0, "q2": 1.0}, "m2": {"q1": 1.0}, "m3": {}}
    with pytest.raises(DataError, match=r"m2: 1 of 2 questions, the first is q2\n  m3: 2 of 2") as caught:
        measure([unit("u", "q1")], scores)
    assert "m1" not in str(caught.value)


def test_a_unit_question_that_nobody_answered_is_missing():
    with pytest.raises(DataError, match="m1: 1 of 4 questions, the first is q9"):
        measure([unit("u", "q9")], {"m1": SCORES["m1"]})


def test_no_model_is_an_error():
    with pytest.raises(DataError, match="no model was probed"):
        measure([unit("u", "q1")], {})
