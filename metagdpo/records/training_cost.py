"""TrainingCost: what a training took; beside the candidate, whose own files leave out what a clock says."""

from metagdpo.schema import Frozen


class TrainingCost(Frozen):
    """Summed over all steps, those before a restart included."""

    n_steps: int
    n_tokens: int
    """Tokens computed with gradient, the anchors' included; padding left out, a shared prompt counted once."""
    n_sampled_tokens: int = 0
    """Tokens that an on-policy training's own policy wrote."""
    seconds: float
    """Wall time of the steps."""
    peak_memory_gb: float
    """Most memory held in any step, 10^9 bytes: of the GPU where there is one, else of the process."""
