"""TrainingStep: what one optimiser step measured; one line of metrics.jsonl."""

from pydantic import Field

from metagdpo.schema import Frozen


class TrainingStep(Frozen):
    """Values by name, of the model before the step's update; `drift` and `held_out_*` are of the model after it."""

    step: int
    """0 for the first."""
    values: dict[str, float]
    """What does not apply to a run is absent, never zero."""
    speed: dict[str, float] = Field(default_factory=dict)
    """What the clock and the machine say: the same training gives other numbers each time, so a candidate's files leave
    them out."""
