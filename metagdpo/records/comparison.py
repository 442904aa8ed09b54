"""Comparison: methods side by side over seeds, on the same data and token budget."""

from typing import Literal

from metagdpo.records.drift import Drift
from metagdpo.records.training_cost import TrainingCost
from metagdpo.records.verdict import Decision, SuiteFinding, Tier
from metagdpo.schema import Frozen

Measure = Literal["target", "retained", "overall"]
"""target: mean over the suites of tier target. retained: over those of tier required and safety. overall: over all of
these. Every suite counts the same, however many items it has; a suite's value is its items' mean difference candidate -
base, in accuracy; higher is better."""
MEASURES: tuple[Measure, ...] = ("target", "retained", "overall")
Status = Literal["shown", "contradicted", "not decided", "not checked"]


class RunResult(Frozen):
    """One method with one seed, trained, evaluated and gated against the base."""

    method: str
    """Name in comparison.yaml."""
    label: str
    """Name for people."""
    seed: int
    decision: Decision
    reasons: tuple[str, ...]
    findings: tuple[SuiteFinding, ...]
    """One for each suite; difference = candidate - base."""
    drift: Drift
    cost: TrainingCost
    alpha: float
    """Share of the way from the base to the trained weights (Wise-FT); 1 without interpolation."""
    run_key: str


class Estimate(Frozen):
    """A mean over items and seeds, with an interval for other items and other seeds alike."""

    value: float
    """Plain mean over the seeds."""
    low: float
    high: float
    n_seeds: int
    """With one seed the interval is over items only: it says nothing about another training."""
    n_units: int
    """Independent items, or clusters of items that hang together."""
    p_value: float
    """Of "the truth is 0", two-sided."""


class Spread(Frozen):
    """A cost over the seeds: no interval, for it depends on the machine and on what else that was doing."""

    mean: float
    least: float
    most: float


class SuiteChange(Frozen):
    """One suite under one method."""

    suite: str
    tier: Tier
    skill: str
    before: float
    """Mean score of the base on the items compared, in 0..1."""
    change: Estimate


class MethodResult(Frozen):
    """One row of the comparison."""

    method: str
    label: str
    seeds: tuple[int, ...]
    """Those that finished."""
    missing: tuple[int, ...]
    """Those that were planned and have no result."""
    target: Estimate | None
    """None without a finished seed, or without a suite of tier target."""
    retained: Estimate | None
    overall: Estimate | None
    suites: tuple[SuiteChange, ...]
    """In the order of the runs' findings; watched ones too, which count in no mean."""
    drift: Estimate | None
    """Nats a token."""
    seconds: Spread | None
    peak_memory_gb: Spread | None
    tokens: Spread | None
    """Computed with gradient; what an on-policy training wrote is added."""
    alphas: tuple[float, ...]
    """Of each seed (Wise-FT); all 1 without interpolation."""
    decisions: tuple[Decision, ...]
    """Of each seed."""

    @property
    def worst(self) -> SuiteChange | None:
        """The suite with the lowest change among those that count as retained."""
        kept = [row for row in self.suites if row.tier in {"required", "safety"}]
        return min(kept, key=lambda row: row.change.value, default=None)


class RunPoint(Frozen):
    """One run in the pictures."""

    method: str
    seed: int
    target: float | None
    retained: float | None
    drift: float
    decision: Decision


class MissingRun(Frozen):
    """A run that was planned and has no result."""

    method: str
    seed: int
    why: str


class MethodDifference(Frozen):
    """Two methods on the same items and seeds: first - second. Seeds that only one of them has are left out."""

    measure: Measure
    first: str
    second: str
    difference: Estimate
    p_holm: float
    """Adjusted by Holm's method for all pairs of methods in this measure."""
    better: str | None
    """The method that is shown to be better at the comparison's level, after the adjustment."""


class OrderClaim(Frozen):
    """One sentence of the paper, held against the runs."""

    claim: str
    paper: str
    """What the paper reports."""
    status: Status
    evidence: str
    """The numbers that decide it."""


class DriftLink(Frozen):
    """How drift and retained change go together over runs; negative: more drift, more forgetting."""

    kind: Literal["pearson", "spearman", "within"]
    """within: Pearson's r of what is left when each method's means are taken off both."""
    n_runs: int
    n_methods: int
    value: float | None
    """None where there are too few runs or methods, or no variation; `note` says which."""
    low: float | None
    high: float | None
    note: str


class Comparison(Frozen):
    """comparison.json: all that the table, the pictures and the page show."""

    level: float
    """Of the intervals."""
    methods: tuple[MethodResult, ...]
    """In the declared order."""
    runs: tuple[RunPoint, ...]
    missing: tuple[MissingRun, ...]
    differences: tuple[MethodDifference, ...]
    claims: tuple[OrderClaim, ...]
    links: tuple[DriftLink, ...]
    accepted_loss: float | None
    """Mean of the margins of the retained suites, in accuracy."""
    notes: tuple[str, ...]
    """What a reader must know about the data: items left out, seeds that lack."""
