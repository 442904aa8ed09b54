"""A verdict with one finding of every outcome, and its candidate."""

import pytest

from metagdpo.records.candidate import Candidate
from metagdpo.records.champion import Champion
from metagdpo.records.drift import Drift
from metagdpo.records.interpolation import Interpolation, InterpolationPoint, ValidationSuite
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.verdict import SuiteFinding, Verdict


def finding(name, outcome, difference, tier="required", skill=None):
    return SuiteFinding(
        suite=name,
        tier=tier,
        skill=skill or f"skill of {name}",
        n_items=400,
        n_planned=400,
        before=0.6,
        candidate=0.6 + difference,
        difference=difference,
        low=difference - 0.02,
        high=difference + 0.02,
        lost=20,
        gained=round(20 + 400 * difference) if difference > -0.05 else 0,
        margin=0.04,
        chance=0.25,
        method="exact",
        p_non_inferior=0.5,
        p_worse=0.5,
        outcome=outcome,
        power_if_unchanged=0.9,
        items_needed=1234 if outcome == "undecided" else None,
    )


@pytest.fixture
def verdict():
    model = ModelIdentity(
        reference="asset:tiny", weights="sha256:w", config="sha256:c", tokenizer="sha256:t", chat_template="sha256:x"
    )
    return Verdict(
        decision="BLOCK",
        reasons=("Lost more than the margin: skill of b.", "skill of b: lost.", "skill of a: retained."),
        findings=(
            finding("a", "non_inferior", 0.0),
            finding("b", "worse", -0.1),
            finding("c", "undecided", -0.03),
            finding("d", "non_inferior", 0.2, tier="watched"),
        ),
        drift=Drift(kl_per_token=0.02, low=0.01, high=0.03, n_samples=4, n_tokens=400),
        alpha=0.05,
        policy="sha256:p",
        candidate=model.model_copy(update={"adapter": "sha256:a"}),
        base=model,
        champion=Champion(),
        run_key="sha256:k",
        data={"groups.jsonl": "sha256:g"},
        evidence={"candidate/scores.jsonl": "sha256:s"},
    )


@pytest.fixture
def candidate(verdict):
    return Candidate(
        identity=verdict.candidate,
        base=verdict.base,
        method="lora",
        objective="gdpo",
        run_key="sha256:k",
        data={},
        params={},
        steps=10,
        n_groups=80,
        n_skipped_groups=7,
        files={},
    )


def point(alpha, target, retained):
    return InterpolationPoint(
        alpha=alpha, weights=f"sha256:{alpha}", accuracy={}, target=target, retained=retained, gain=0.0
    )


@pytest.fixture
def interpolation():
    counts = (("sums", "target", 50), ("rhymes", "required", 7))
    return Interpolation(
        chosen=0.6,
        rule="the largest of the tests",
        retention=0.5,
        suites=tuple(
            ValidationSuite(suite=name, tier=tier, n_items=n, n_wanted=50, documents="sha256:d")
            for name, tier, n in counts
        ),
        points=(point(0.0, 0.1, 0.8), point(0.3, 0.3, 0.79), point(0.6, 0.45, 0.75), point(1.0, 0.5, 0.5)),
    )
