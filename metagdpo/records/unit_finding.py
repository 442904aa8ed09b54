"""UnitFinding: what became of one knowledge unit between the base and the candidate."""

from typing import Literal

from metagdpo.schema import Frozen

UnitOutcome = Literal["lost", "gained", "kept", "undecided"]
"""lost, gained: proven, corrected for all units. kept: proven to have lost less than is accepted. undecided: none of
these."""


class UnitFinding(Frozen):
    """One knowledge unit over all suites; scores in 0..1, higher is better."""

    unit: str
    suites: tuple[str, ...]
    """Where its items come from, sorted."""
    n_items: int
    n_independent: int
    """Votes: items without a cluster, and clusters; items of one cluster have one vote together."""
    before: float
    """Mean score of the base on the unit's items."""
    candidate: float
    lost: int
    """Items on which the candidate scores lower than the base."""
    gained: int
    p_lost: float
    """One-sided p-value of H0 "no more votes are lost than gained"; not corrected."""
    p_gained: float
    """One-sided p-value of H0 "no more votes are gained than lost"; not corrected."""
    p_kept: float | None
    """p-value of H0 "the accepted loss was reached or exceeded"; not corrected. Null when it was not tested."""
    least_p: float
    """The smallest `p_lost` that so many votes can give."""
    adjusted: float | None
    """Two-sided p-value corrected for all units that were tested; lost or gained when it is at most the policy's
    `unit_fdr`. Null when the unit has too few votes ever to be named, and so was not tested."""
    within_margin: bool
    """The loss, if there is one, is proven smaller than the accepted one, corrected for all units tested."""
    outcome: UnitOutcome
