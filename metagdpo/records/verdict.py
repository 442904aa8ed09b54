"""Verdict: what the gate decided, and every number that it decided on."""

from typing import Literal

from metagdpo.records.drift import Drift
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.schema import Frozen

Decision = Literal["PROMOTE", "BLOCK", "INCONCLUSIVE"]


class SuiteFinding(Frozen):
    """One suite: difference = candidate - base, in accuracy (0..1); higher is better."""

    suite: str
    tier: Literal["required", "watched"]
    skill: str
    """What the suite stands for, in words."""
    n_items: int
    base: float
    candidate: float
    difference: float
    low: float
    """Lower end of the two-sided (1 - 2 alpha) score interval: the one-sided (1 - alpha) bound."""
    high: float
    lost: int
    """Items the base answered correctly and the candidate did not."""
    gained: int
    margin: float
    """Largest loss that is accepted."""
    chance: float
    outcome: Literal["non_inferior", "worse", "undecided"]
    power_if_unchanged: float
    """Probability that a candidate of equal accuracy passes, at the flip rate that was observed."""
    items_needed: int | None
    """About how many items would decide an undecided suite, at the observed difference and flip rate."""


class Verdict(Frozen):
    """verdict.json. The champion it was measured against is named by digest."""

    decision: Decision
    reasons: tuple[str, ...]
    """Sentences for people, the deciding ones first."""
    findings: tuple[SuiteFinding, ...]
    drift: Drift | None
    alpha: float
    policy: str
    """Digest of registry/policy.yaml."""
    candidate: ModelIdentity
    base: ModelIdentity
    run_key: str
    """Of the training run."""
    data: dict[str, str]
    """Digest of every data file behind the candidate."""
    evidence: dict[str, str]
    """Digest of the score files that were compared."""
