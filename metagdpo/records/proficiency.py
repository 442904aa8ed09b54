"""ProficiencyProfile: how well the probed models master each knowledge unit and each question."""

from metagdpo.schema import Frozen


class UnitProficiency(Frozen):
    """Mastery of one knowledge unit, in 0..1, higher is better."""

    unit: str
    average: float
    """Mean over the unit's questions of the mean accuracy over the models."""
    strict: float
    """Share of the unit's questions that every model answers correctly."""
    n_questions: int
    by_model: dict[str, float]


class QuestionMastery(Frozen):
    """Accuracy on one question, in 0..1, per probed model and averaged over the models."""

    question_id: str
    average: float
    by_model: dict[str, float]


class ProficiencyProfile(Frozen):
    """All units and all questions; one JSON file."""

    units: tuple[UnitProficiency, ...]
    questions: tuple[QuestionMastery, ...]
