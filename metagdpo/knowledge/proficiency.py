"""Proficiency: how well the probed models master each knowledge unit before any training.

Home of: average and strict proficiency (MetaGDPO App. B.2, method note 1.1 step 4)

For a unit k with questions Q_k, models m = 1..M and accuracy a_m(q) in 0..1:

    average_k = mean over q in Q_k of (1/M) sum_m a_m(q)
    strict_k  = share of q in Q_k with a_m(q) = 1 for every m

The paper selects by the average; it found the strict one, which is never larger, further from each single model.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from metagdpo.errors import DataError
from metagdpo.records.knowledge import KnowledgeUnit
from metagdpo.records.proficiency import ProficiencyProfile, QuestionMastery, UnitProficiency

Scores = Mapping[str, Mapping[str, float]]
"""Model name -> question id -> accuracy in 0..1."""


def measure(units: Sequence[KnowledgeUnit], scores: Scores) -> ProficiencyProfile:
    """Proficiency of every unit (sorted by name) and mastery of every probed question (sorted by id).

    Args:
        units: Knowledge units; each has at least one question.
        scores: Every model's accuracy on every question; questions without any unit belong in it too.

    Raises:
        DataError: No model was probed, or a model has no answer to some questions: a missing answer is not a wrong one.
    """
    questions = sorted({question for answered in scores.values() for question in answered})
    needed = {question for unit in units for question in unit.question_ids}.union(questions)
    _require_answers(needed, scores)
    return ProficiencyProfile(
        units=tuple(_unit(unit, scores) for unit in sorted(units, key=lambda unit: unit.name)),
        questions=tuple(
            QuestionMastery(
                question_id=question,
                average=mean(answered[question] for answered in scores.values()),
                by_model={model: answered[question] for model, answered in scores.items()},
            )
            for question in questions
        ),
    )


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; exactly summed, so that it does not depend on the order."""
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _unit(unit: KnowledgeUnit, scores: Scores) -> UnitProficiency:
    per_model = {model: [answered[q] for q in unit.question_ids] for model, answered in scores.items()}
    per_question = list(zip(*per_model.values(), strict=True))
    return UnitProficiency(
        unit=unit.name,
        average=mean(mean(accuracies) for accuracies in per_question),
        strict=mean(float(all(accuracy == 1.0 for accuracy in accuracies)) for accuracies in per_question),
        n_questions=len(unit.question_ids),
        by_model={model: mean(accuracies) for model, accuracies in per_model.items()},
    )


def _require_answers(needed: Collection[str], scores: Scores) -> None:
    if not scores:
        raise DataError("no model was probed, so proficiency is unknown. Run `dvc repro probe`.")
    gaps = {model: sorted(set(needed) - set(answered)) for model, answered in scores.items()}
    lines = [
        f"  {model}: {len(missing)} of {len(needed)} questions, the first is {missing[0]}"
        for model, missing in gaps.items()
        if missing
    ]
    if lines:
        message = "\n".join(["probe answers are missing:", *lines, "Run `dvc repro probe`; it asks only for these."])
        raise DataError(message)
