"""ProbeAnswer: what a model answered to a pool question before any training."""

from metagdpo.schema import Frozen


class ProbeAnswer(Frozen):
    """The raw, unscored answer; scoring is `measure_proficiency`."""

    question_id: str
    model: str
    """Name of the probed model as in params.yaml."""
    text: str
    finish_reason: str
    """`stop` when the model ended its answer, `length` when it was cut."""
