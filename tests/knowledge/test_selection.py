from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from metagdpo.errors import DataError
from metagdpo.knowledge.selection import (
    Pool,
    SelectionParams,
    complex_questions,
    greedy,
    make_pool,
    reminders,
    select,
    target_ratio,
)
from metagdpo.records.knowledge import KnowledgeUnit
from metagdpo.records.proficiency import ProficiencyProfile, QuestionMastery, UnitProficiency


def params(**changes):
    fields = {
        "complex_units": 9,
        "ratio_weak": 1.0,
        "ratio_mastered": 0.0,
        "reminders_per_unit": 0,
        "proficiency": "average",
    }
    return SelectionParams(**{**fields, **changes})


def world(questions, strict=0.0, proficiency=None):
    """Units and profile of `{question: (mastery, "abc")}`: each letter is a unit, its proficiency the mean mastery."""
    units, rows = [], []
    for unit in sorted({unit for _, needed in questions.values() for unit in needed}):
        mine = tuple(sorted(question for question, (_, needed) in questions.items() if unit in needed))
        average = sum(questions[question][0] for question in mine) / len(mine)
        units.append(KnowledgeUnit(name=unit, aliases=(unit,), question_ids=mine))
        rows.append(
            UnitProficiency(
                unit=unit,
                average=average if proficiency is None else proficiency[unit],
                strict=strict,
                n_questions=len(mine),
                by_model={},
            )
        )
    masteries = tuple(QuestionMastery(question_id=q, average=m, by_model={}) for q, (m, _) in questions.items())
    return units, ProficiencyProfile(units=tuple(rows), questions=masteries)


def chosen(questions, proficiency=None, **changes):
    selection = select(*world(questions, proficiency=proficiency), params(**changes))
    return [(row.question_id, row.reason) for row in selection.selected]


def literal_greedy(pool, taken, limit):
    """Algorithm 1, step 3, as it is written: every round looks at every question that is left."""
    order = list(taken)
    while len(order) - len(taken) < limit:
        gaps = {}
        for question, units in pool.units_of.items():
            if question not in order:
                gaps[question] = 0
                for unit in units:
                    s_k = sum(unit in pool.units_of[other] for other in order)
                    c_k = sum(unit in others for others in pool.units_of.values())
                    gaps[question] += s_k / c_k < pool.ratio[unit]
        best = max(gaps.values(), default=0)
        if best == 0:
            break
        order.append(min((pool.mastery[q], q) for q, gap in gaps.items() if gap == best)[1])
    return order[len(taken) :]


UNITS = "abcdef"
needed_units = st.lists(st.sampled_from(UNITS), unique=True, max_size=5)
worlds = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), needed_units), min_size=1, max_size=14)


def pool_of(rows, ratios):
    units_of = {f"q{place:02d}": tuple(sorted(needed)) for place, (_, needed) in enumerate(rows)}
    questions_of = {unit: tuple(q for q, needed in units_of.items() if unit in needed) for unit in UNITS}
    mastery = {f"q{place:02d}": value for place, (value, _) in enumerate(rows)}
    return Pool(units_of, questions_of, mastery, dict(zip(UNITS, ratios, strict=True)))


@settings(max_examples=300, deadline=None)
@given(
    rows=worlds,
    ratios=st.lists(st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 0.9, 1.0]), min_size=6, max_size=6),
    limit=st.integers(0, 14),
    taken=st.integers(0, 3),
)
def test_the_lazy_heap_takes_what_the_double_loop_takes(rows, ratios, limit, taken):
    pool = pool_of(rows, ratios)
    before = list(pool.units_of)[:taken]
    assert greedy(pool, before, limit) == literal_greedy(pool, before, limit)


@settings(max_examples=100, deadline=None)
@given(rows=worlds, order=st.randoms(use_true_random=False), limit=st.none() | st.integers(1, 14))
def test_the_order_of_the_pool_does_not_matter(rows, order, limit):
    questions = {f"q{place:02d}": row for place, row in enumerate(rows)}
    shuffled = dict(order.sample(sorted(questions.items()), len(questions)))
    choice = params(complex_units=4, reminders_per_unit=1, max_questions=limit, ratio_mastered=0.3)
    if any(needed for _, needed in rows):
        units, profile = world(shuffled)
        order.shuffle(units)
        assert select(units, profile, choice) == select(*world(questions), choice)


@settings(max_examples=100, deadline=None)
@given(rows=worlds, limit=st.none() | st.integers(1, 14))
def test_every_question_has_one_fate_and_no_target_stays_open_without_a_limit(rows, limit):
    questions = {f"q{place:02d}": row for place, row in enumerate(rows)}
    if not any(needed for _, needed in rows):
        return
    choice = params(complex_units=4, reminders_per_unit=1, max_questions=limit, ratio_mastered=0.3)
    selected, dropped, table = select(*world(questions), choice)
    fates = Counter([row.question_id for row in selected] + [row.question_id for row in dropped])
    assert fates == Counter(list(questions))
    assert len(selected) <= (limit or len(questions))
    assert {row.reason for row in dropped if not row.units} <= {"no_units"}
    if limit is None:
        assert all(row["target_met"] for row in table)
        assert all(row.reason != "size_limit" for row in dropped)


@pytest.mark.parametrize(
    ("proficiency", "ratio"), [(0.0, 0.8), (1.0, 0.2), (0.5, 0.5 * 0.8 + 0.5 * 0.2), (0.25, 0.75 * 0.8 + 0.25 * 0.2)]
)
def test_the_target_ratio_is_linear_and_exact_at_its_ends(proficiency, ratio):
    assert target_ratio(proficiency, 0.8, 0.2) == ratio


def test_every_complex_question_is_taken_first_the_hardest_before_the_others():
    questions = {"q1": (0.5, "abc"), "q2": (0.0, "abd"), "q3": (0.0, "a")}
    assert chosen(questions, complex_units=3, ratio_weak=0.0) == [("q2", "complex"), ("q1", "complex")]


def test_the_largest_gap_comes_first_and_then_what_remains_open():
    """After q2 (a, b) only c is open, so q3 adds one unit and q1 none."""
    questions = {"q1": (0.0, "a"), "q2": (0.0, "ab"), "q3": (0.0, "ac")}
    none_open_twice = {"a": 0.5, "b": 0.5, "c": 0.5}
    assert chosen(questions, none_open_twice, ratio_weak=0.6) == [("q2", "gap"), ("q3", "gap")]


def test_ties_go_to_the_harder_question_then_to_the_smaller_id():
    questions = {"q1": (0.5, "a"), "q2": (0.0, "a"), "q3": (0.0, "a")}
    assert [question for question, _ in chosen(questions)] == ["q2", "q3", "q1"]


def test_mastered_units_keep_fewer_questions_than_weak_ones():
    weak = {f"w{n}": (0.0, "w") for n in range(10)}
    strong = {f"s{n}": (1.0, "s") for n in range(10)}
    kept = Counter(q[0] for q, _ in chosen({**weak, **strong}, ratio_weak=0.8, ratio_mastered=0.2))
    assert kept == {"w": 8, "s": 2}


def test_reminders_are_correct_questions_up_to_the_number_per_unit():
    questions = {"q1": (1.0, "a"), "q2": (1.0, "a"), "q3": (0.5, "a"), "q4": (1.0, "b"), "q5": (1.0, "a")}
    taken = chosen(questions, reminders_per_unit=2, ratio_weak=0.0)
    assert taken == [("q1", "reminder"), ("q2", "reminder"), ("q4", "reminder")]


def test_a_reminder_of_two_units_reminds_of_both():
    questions = {"q1": (1.0, "ab"), "q2": (1.0, "b")}
    assert chosen(questions, reminders_per_unit=1, ratio_weak=0.0) == [("q1", "reminder")]


def test_a_mastered_complex_question_counts_as_a_reminder():
    pool = make_pool(*world({"q1": (1.0, "abc"), "q2": (1.0, "a")}), params())
    assert complex_questions(pool, 3) == ["q1"]
    assert reminders(pool, ["q1"], 1) == []


def test_the_limit_stops_the_selection_and_says_what_it_cut():
    questions = {"q1": (0.0, "abc"), "q2": (0.1, "abc"), "q3": (1.0, "a"), "q4": (0.0, "d"), "q5": (0.0, "")}
    selection = select(*world(questions), params(complex_units=3, reminders_per_unit=1, max_questions=2))
    assert [row.question_id for row in selection.selected] == ["q1", "q2"]
    fates = {row.question_id: row.reason for row in selection.dropped}
    assert fates == {"q3": "size_limit", "q4": "size_limit", "q5": "no_units"}


def test_a_question_whose_units_have_enough_is_dropped_for_that_reason():
    questions = {"q1": (0.0, "a"), "q2": (0.0, "a")}
    selection = select(*world(questions), params(ratio_weak=0.5))
    assert [(row.question_id, row.reason) for row in selection.dropped] == [("q2", "targets_met")]


def test_closed_names_the_units_that_were_still_open():
    questions = {"q1": (0.0, "ab"), "q2": (0.1, "abc")}
    selection = select(*world(questions, proficiency={"a": 0.5, "b": 0.5, "c": 0.0}), params(complex_units=2))
    assert [(row.question_id, row.closed) for row in selection.selected] == [("q1", ("a", "b")), ("q2", ("c",))]
    assert [row.order for row in selection.selected] == [0, 1]


def test_strict_proficiency_asks_for_more_of_a_unit_that_looks_mastered_on_average():
    units, profile = world({"q1": (0.75, "a"), "q2": (0.75, "a")}, strict=0.0)
    assert len(select(units, profile, params(proficiency="average")).selected) == 1
    assert len(select(units, profile, params(proficiency="strict")).selected) == 2


def test_the_table_counts_pool_kept_and_reminders_for_each_unit():
    questions = {"q1": (1.0, "a"), "q2": (0.0, "a"), "q3": (0.5, "a"), "q4": (1.0, "b")}
    table = select(*world(questions), params(ratio_weak=1.0, reminders_per_unit=1, max_questions=2)).table
    assert table[0] == {
        "unit": "a",
        "pool": 3,
        "kept": 1,
        "reminders": 1,
        "proficiency": 0.5,
        "target_ratio": 0.5,
        "kept_ratio": 1 / 3,
        "target_met": False,
    }
    assert (table[1]["unit"], table[1]["kept"], table[1]["target_met"]) == ("b", 1, True)


def test_nothing_selected_is_an_error_that_names_the_way_out():
    with pytest.raises(DataError, match=r"selects none of 1 questions.*Raise `select_metakl.ratio_weak`"):
        chosen({"q1": (0.0, "a")}, ratio_weak=0.0)


def test_units_and_profile_must_belong_together():
    units, _ = world({"q1": (0.0, "a")})
    _, profile = world({"q2": (0.0, "a")})
    with pytest.raises(DataError, match="do not belong together"):
        select(units, profile, params())


def test_a_mastered_unit_may_not_ask_for_more_than_a_weak_one():
    with pytest.raises(ValidationError, match="ratio_mastered must not exceed ratio_weak"):
        params(ratio_weak=0.1, ratio_mastered=0.2)
