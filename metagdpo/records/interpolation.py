"""Interpolation: which point between the base and the trained weights became the candidate, and how it was chosen."""

from metagdpo.records.verdict import Tier
from metagdpo.schema import Frozen


class ValidationSuite(Frozen):
    """What a suite chose with: items that the gate never sees."""

    suite: str
    tier: Tier
    n_items: int
    n_wanted: int
    """As params.yaml asks; more than `n_items` when the suite has not so many left."""
    documents: str
    """`documents_digest` of the items."""


class InterpolationPoint(Frozen):
    """One alpha, measured on the validation items."""

    alpha: float
    """0 is the base."""
    weights: str
    """Digest of what was measured: of the adapter, or of the weights where there is none."""
    accuracy: dict[str, float]
    """Of each suite."""
    target: float | None
    """Mean accuracy over the target suites; null without any."""
    retained: float | None
    """Mean accuracy over the required and safety suites; null without any."""
    gain: float
    """What the rule makes of both, as a change against the base; the largest is chosen."""


class Interpolation(Frozen):
    """interpolation.json."""

    chosen: float
    """Share of the way from the base (0) to the trained weights (1)."""
    rule: str
    """For people."""
    retention: float
    """Weight of the retained accuracy against that of the target."""
    suites: tuple[ValidationSuite, ...] = ()
    points: tuple[InterpolationPoint, ...] = ()
    """The base first, then every alpha that was tried; empty when there was nothing to choose."""
