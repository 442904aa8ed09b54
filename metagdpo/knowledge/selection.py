"""Selection: a small set of questions that covers what the model must learn and reminds it of what it knows.

Home of: Algorithm 1 (MetaGDPO appendix, method note 1.1 step 5)

With C_k = pool questions that need unit k, S_k = those of them selected so far, r_k = the target ratio of unit k:

    gap(q) = number of units k of q with S_k / C_k < r_k

1. take every question with at least `complex_units` units;
2. take reminders: for each unit, questions that every probed model answers correctly;
3. repeatedly take the question with the largest gap; stop when no gap is positive.

The paper's own table of r_k is unknown: only that r_k falls with proficiency. Ours is linear,
r_k = (1 - p_k) * ratio_weak + p_k * ratio_mastered. Unknown too is how reminders and ratios meet: here reminders count
in S_k like any other selected question, and mastered questions taken as complex count as reminders.

Cost: gaps only fall as questions are taken, so a heap whose stale entries are corrected when they come up ("lazy
greedy", Minoux 1978) takes the same questions as the double loop, in O(n K log n) for n questions of at most K units.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from metagdpo.errors import DataError
from metagdpo.records.knowledge import KnowledgeUnit
from metagdpo.records.proficiency import ProficiencyProfile
from metagdpo.records.selection import DroppedQuestion, SelectedQuestion
from metagdpo.schema import Frozen

Reason = Literal["complex", "reminder", "gap"]
DropReason = Literal["no_units", "targets_met", "size_limit"]


class SelectionParams(Frozen):
    """Section `select_metakl`."""

    complex_units: int = Field(gt=0)
    """A question with at least so many units is taken in any case (r of Algorithm 1; 5 or 6 in the paper)."""
    ratio_weak: float = Field(ge=0, le=1)
    """Target share of a unit's questions at proficiency 0."""
    ratio_mastered: float = Field(ge=0, le=1)
    """Target share of a unit's questions at proficiency 1."""
    reminders_per_unit: int = Field(ge=0)
    """Already correct questions kept for each unit (20 in the paper)."""
    max_questions: int | None = Field(default=None, gt=0)
    """Stop here, whatever is still open; null does not stop. Complex questions and reminders come first."""
    proficiency: Literal["average", "strict"]
    """Which proficiency p_k is; the paper uses the average."""

    @model_validator(mode="after")
    def _weak_units_need_more(self) -> "SelectionParams":
        if self.ratio_mastered > self.ratio_weak:
            raise ValueError("ratio_mastered must not exceed ratio_weak: weak units need more questions")
        return self


class Selection(NamedTuple):
    """What became of the pool."""

    selected: list[SelectedQuestion]
    """In the order they were taken."""
    dropped: list[DroppedQuestion]
    """Sorted by id."""
    table: list[dict[str, Any]]
    """One row for each unit, see `unit_table`."""


class Pool(NamedTuple):
    """What Algorithm 1 decides on."""

    units_of: Mapping[str, tuple[str, ...]]
    """Question -> its units, sorted."""
    questions_of: Mapping[str, tuple[str, ...]]
    """Unit k -> its questions, sorted; C_k is their number."""
    mastery: Mapping[str, float]
    """Question -> mean accuracy over the probed models."""
    ratio: Mapping[str, float]
    """Unit k -> target ratio r_k."""


def select(units: Sequence[KnowledgeUnit], profile: ProficiencyProfile, params: SelectionParams) -> Selection:
    """Algorithm 1 on the questions of the profile; the result does not depend on the order of units or questions.

    Raises:
        DataError: Units and profile do not belong together, or nothing is selected.
    """
    pool = make_pool(units, profile, params)
    limit = len(pool.mastery) if params.max_questions is None else params.max_questions
    complex_ones = complex_questions(pool, params.complex_units)
    reminded = reminders(pool, complex_ones, params.reminders_per_unit)
    wanted: list[tuple[str, Reason]] = [(question, "complex") for question in complex_ones]
    wanted += [(question, "reminder") for question in reminded]
    order = wanted[:limit]
    order += [(question, "gap") for question in greedy(pool, [question for question, _ in order], limit - len(order))]
    if not order:
        message = (
            f"Algorithm 1 selects none of {len(pool.mastery)} questions: the target ratios are 0 and there are neither "
            "complex questions nor reminders. Raise `select_metakl.ratio_weak`, or look at data/proficiency.json."
        )
        raise DataError(message)
    selected = _with_reasons(pool, order)
    dropped = _dropped(pool, selected, cut_off={question for question, _ in wanted[limit:]})
    return Selection(selected, dropped, unit_table(pool, selected, profile, params))


def make_pool(units: Sequence[KnowledgeUnit], profile: ProficiencyProfile, params: SelectionParams) -> Pool:
    """Bring units, mastery and target ratios together.

    Raises:
        DataError: A unit has no proficiency, or one of its questions was not probed.
    """
    mastery = {question.question_id: question.average for question in profile.questions}
    proficiency = {unit.unit: getattr(unit, params.proficiency) for unit in profile.units}
    questions_of = {unit.name: tuple(sorted(unit.question_ids)) for unit in sorted(units, key=lambda unit: unit.name)}
    if set(questions_of) != set(proficiency) or any(q not in mastery for qs in questions_of.values() for q in qs):
        message = (
            "knowledge units and proficiency do not belong together: they name other units or questions. "
            "Run `dvc repro measure_proficiency`."
        )
        raise DataError(message)
    units_of: dict[str, tuple[str, ...]] = dict.fromkeys(mastery, ())
    for unit, questions in questions_of.items():
        for question in questions:
            units_of[question] += (unit,)
    ratio = {unit: target_ratio(p, params.ratio_weak, params.ratio_mastered) for unit, p in proficiency.items()}
    return Pool(units_of, questions_of, mastery, ratio)


def target_ratio(proficiency: float, ratio_weak: float, ratio_mastered: float) -> float:
    """r_k = (1 - p_k) * ratio_weak + p_k * ratio_mastered, exact at both ends."""
    return (1 - proficiency) * ratio_weak + proficiency * ratio_mastered


def complex_questions(pool: Pool, at_least: int) -> list[str]:
    """Questions with at least so many units, the hardest first."""
    found = [question for question, units in pool.units_of.items() if len(units) >= at_least]
    return sorted(found, key=lambda question: (pool.mastery[question], question))


def reminders(pool: Pool, taken: Collection[str], per_unit: int) -> list[str]:
    """Questions that every model answers correctly, up to `per_unit` for each unit; those already taken count.

    Units in alphabetical order, questions by id.
    """
    chosen = dict.fromkeys(taken)  # a set that keeps its order
    for questions in pool.questions_of.values():
        mastered = [question for question in questions if pool.mastery[question] == 1.0]
        lacking = per_unit - sum(question in chosen for question in mastered)
        chosen.update(dict.fromkeys([question for question in mastered if question not in chosen][: max(0, lacking)]))
    return list(chosen)[len(taken) :]


def greedy(pool: Pool, taken: Collection[str], limit: int) -> list[str]:
    """Questions in the order of the largest remaining gap, until no gap is positive or `limit` is reached.

    Ties go to the question with the lower mastery (the harder one), then to the smaller id.
    """
    counts = _counts(pool, taken)
    already = set(taken)
    heap = [
        (-len(units), pool.mastery[question], question)
        for question in pool.units_of
        if question not in already and (units := open_units(pool, counts, question))
    ]
    heapq.heapify(heap)
    order: list[str] = []
    while heap and len(order) < limit:
        believed, mastery, question = heap[0]
        gap = len(open_units(pool, counts, question))
        if gap == -believed:  # every other entry is no better, and its gap can only have fallen since
            heapq.heappop(heap)
            order.append(question)
            counts.update(pool.units_of[question])
        elif gap:
            heapq.heapreplace(heap, (-gap, mastery, question))
        else:
            heapq.heappop(heap)
    return order


def open_units(pool: Pool, counts: Mapping[str, int], question: str) -> tuple[str, ...]:
    """The question's units with S_k / C_k < r_k; their number is its gap.

    Args:
        pool: Units, questions and target ratios.
        counts: S_k, the questions of each unit that are selected so far.
        question: Id of the question.
    """
    return tuple(
        unit for unit in pool.units_of[question] if counts[unit] / len(pool.questions_of[unit]) < pool.ratio[unit]
    )


def unit_table(
    pool: Pool, selected: Sequence[SelectedQuestion], profile: ProficiencyProfile, params: SelectionParams
) -> list[dict[str, Any]]:
    """One row for each unit, sorted by name, plain values.

    Keys: `unit`; `pool` (C_k) and `kept` (S_k) questions; `reminders`, the kept ones that every model answers
    correctly; `proficiency` (p_k), `target_ratio` (r_k) and `kept_ratio`; `target_met`.
    """
    proficiency = {unit.unit: getattr(unit, params.proficiency) for unit in profile.units}
    kept = {row.question_id for row in selected}
    table = []
    for unit, questions in pool.questions_of.items():
        mine = [question for question in questions if question in kept]
        kept_ratio = len(mine) / len(questions)
        table.append(
            {
                "unit": unit,
                "pool": len(questions),
                "kept": len(mine),
                "reminders": sum(pool.mastery[question] == 1.0 for question in mine),
                "proficiency": proficiency[unit],
                "target_ratio": pool.ratio[unit],
                "kept_ratio": kept_ratio,
                "target_met": kept_ratio >= pool.ratio[unit],
            }
        )
    return table


def _with_reasons(pool: Pool, order: Sequence[tuple[str, Reason]]) -> list[SelectedQuestion]:
    counts: Counter[str] = Counter()
    selected = []
    for place, (question, reason) in enumerate(order):
        selected.append(
            SelectedQuestion(
                question_id=question,
                reason=reason,
                units=pool.units_of[question],
                closed=open_units(pool, counts, question),
                order=place,
            )
        )
        counts.update(pool.units_of[question])
    return selected


def _dropped(pool: Pool, selected: Sequence[SelectedQuestion], cut_off: Collection[str]) -> list[DroppedQuestion]:
    """The rest of the pool; `size_limit` for what would still have been taken without the limit."""
    kept = {row.question_id for row in selected}
    counts = _counts(pool, kept)
    dropped = []
    for question in sorted(set(pool.units_of) - kept):
        units = pool.units_of[question]
        still_wanted = question in cut_off or open_units(pool, counts, question)
        reason: DropReason = "size_limit" if still_wanted else "targets_met" if units else "no_units"
        dropped.append(DroppedQuestion(question_id=question, reason=reason, units=units))
    return dropped


def _counts(pool: Pool, taken: Collection[str]) -> Counter[str]:
    return Counter(unit for question in taken for unit in pool.units_of[question])
