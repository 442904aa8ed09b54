"""ResponseGroup: a question with its scored responses; what GDPO trains on."""

from metagdpo.schema import Frozen


class ScoredResponse(Frozen):
    """One response with its reward and advantage."""

    index: int
    teacher: str
    text: str
    finish_reason: str
    correct: float
    """Verifier score in 0..1 of the answer that the text ends with, in a box or not; 0 when it has none."""
    well_formed: bool
    """The answer ended and holds exactly one final answer in the asked form."""
    reward: float
    """Correctness weight * correct + format weight * well_formed."""
    advantage: float
    """A_i = (r_i - mean) / std over the group (population std); 0 in a degenerate group."""


class ResponseGroup(Frozen):
    """The offline group of one question, responses in the order of their index."""

    question_id: str
    prompt: str
    """The user message exactly as it was asked, answer instructions included."""
    responses: tuple[ScoredResponse, ...]
    degenerate: bool
    """All rewards are equal: no preference in it, so training skips and counts it."""
