"""PairedScore: one item of a suite as both models answered it; what every comparison starts from."""

from metagdpo.schema import Frozen


class PairedScore(Frozen):
    """One item that was asked of both models."""

    item_id: str
    before: float
    """Score of the reference (base or champion), in 0..1; higher is better."""
    candidate: float
    cluster: str | None = None
    """Passage, subject or template that the item shares with others; None when items are independent."""
