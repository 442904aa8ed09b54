"""Pairing: which score of the candidate belongs to which score of the reference; anything else is refused.

Two scores are of one item when suite, item id, cluster and the digests of document, prompt and target agree, and when
everything that the manifests say about the measurement agrees. There is no unpaired comparison: a changed template, a
missing item or another harness is an error that names the field.

The reference (base or champion) is scored completely. A candidate may have been stopped early: its scores are then
those of the first items in the suite's fixed random order, and of nothing else. A gap or another order would be a
choice of items, and the scores could have made it.
"""

import math
from collections.abc import Sequence
from typing import NoReturn

from metagdpo.errors import EvidenceError
from metagdpo.records.item_score import EvaluationManifest, ItemScore, SuiteRun, documents_digest
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.paired import PairedScore

NOISE = frozenset({"dtype", "batch_size", "items_per_look"})
"""What an A/A run may vary: the same computation, rounded differently."""

_WAY_OUT = (
    "Evaluate the models again with the same settings: "
    "`dvc repro -f evaluate_base evaluate_noise evaluate_champion evaluate_candidate`."
)


def pair(
    reference_scores: Sequence[ItemScore],
    reference_manifest: EvaluationManifest,
    candidate_scores: Sequence[ItemScore],
    candidate_manifest: EvaluationManifest,
    *,
    reference: ModelIdentity,
    candidate: ModelIdentity,
    differing: frozenset[str] = frozenset(),
) -> dict[str, list[PairedScore]]:
    """Scores of both models on every item that the candidate was asked, in the order of the items.

    Args:
        reference_scores: Scores of the base or of the champion, on all items.
        reference_manifest: How they were measured.
        candidate_scores: Scores of the candidate; of the first items of a suite where its evaluation stopped early.
        candidate_manifest: How they were measured.
        reference: Which model the reference scores must be of.
        candidate: Which model the candidate's scores must be of.
        differing: Settings out of `NOISE` that may differ, for the A/A run of one model with itself and nothing else.

    Returns:
        For each suite its pairs; each score in 0..1, higher is better.

    Raises:
        EvidenceError: The two must not be compared; names the field that differs.
        ValueError: `differing` names what no A/A run varies.
    """
    if differing - NOISE:
        raise ValueError(f"{sorted(differing - NOISE)} may never differ; an A/A run varies {sorted(NOISE)}")
    if differing:
        _same_model("candidate", reference, candidate, of="an A/A run is of one model: the reference")
    _same_model("reference", reference, reference_manifest.model)
    _same_model("candidate", candidate, candidate_manifest.model)
    _same_measurement(reference_manifest, candidate_manifest, differing)
    before, after = _by_suite("reference", reference_scores), _by_suite("candidate", candidate_scores)
    runs = {run.suite: run for run in candidate_manifest.suites}
    for name, scores in (("reference", before), ("candidate", after)):
        for suite in scores:
            if suite not in runs:
                _refuse(f"suite {suite}: has scores of the {name}, but is not in its manifest")
    return {
        run.suite: _pairs(run, before.get(run.suite, []), runs[run.suite], after.get(run.suite, []))
        for run in reference_manifest.suites
    }


def _pairs(
    reference: SuiteRun, before: Sequence[ItemScore], candidate: SuiteRun, after: Sequence[ItemScore]
) -> list[PairedScore]:
    where = f"suite {reference.suite}"
    if reference.n_scored != reference.n_items:
        _refuse(f"{where}: n_scored of the reference is {reference.n_scored}, and it needs all {reference.n_items}")
    if not 0 < candidate.n_scored <= candidate.n_items:
        _refuse(f"{where}: n_scored of the candidate is {candidate.n_scored}, not in 1..{candidate.n_items}")
    for name, run, scores in (("reference", reference, before), ("candidate", candidate, after)):
        if len(scores) != run.n_scored:
            _refuse(f"{where}: the {name} has scores of {len(scores)} items, its manifest says {run.n_scored}")
    for position, (one, other) in enumerate(zip(before, after, strict=False), start=1):
        if one.item_id != other.item_id:
            _refuse(
                f"{where}, position {position}: item_id differs: reference {one.item_id}, candidate {other.item_id}; "
                "the items must be the first ones in their fixed order"
            )
        for field in ("doc", "prompt", "target", "cluster"):
            _equal(f"{where}, item {one.item_id}: {field}", getattr(one, field), getattr(other, field))
    if documents_digest((s.item_id, s.doc, s.target, s.cluster) for s in before) != reference.documents:
        _refuse(f"{where}: documents of the manifest are not those of the scores, or not in their order")
    return [
        PairedScore(item_id=one.item_id, before=one.score, candidate=other.score, cluster=one.cluster)
        for one, other in zip(before, after, strict=False)
    ]


def _same_model(name: str, expected: ModelIdentity, found: ModelIdentity, *, of: str = "the record") -> None:
    for field in ("weights", "adapter", "config", "tokenizer", "chat_template"):
        wanted, got = getattr(expected, field), getattr(found, field)
        if wanted != got:
            _refuse(f"{name} model, {field}: {of} says {wanted}, the scores are of {got}")


def _same_measurement(reference: EvaluationManifest, candidate: EvaluationManifest, differing: frozenset[str]) -> None:
    for field in ("harness", "dtype", "batch_size", "items_per_look"):
        if field not in differing:
            _equal(field, getattr(reference, field), getattr(candidate, field))
    for field in ("tokenizer", "chat_template"):
        _equal(f"model.{field}", getattr(reference.model, field), getattr(candidate.model, field))
    names = [sorted(run.suite for run in manifest.suites) for manifest in (reference, candidate)]
    _equal("suites", *names)
    repeated = sorted({name for name in names[0] if names[0].count(name) > 1})
    if repeated:
        _refuse(f"suites: {', '.join(repeated)} stands more than once in the manifests")
    runs = {run.suite: run for run in candidate.suites}
    for run in reference.suites:
        for field in ("task", "generation", "documents", "n_items"):
            _equal(f"suite {run.suite}: {field}", getattr(run, field), getattr(runs[run.suite], field))


def _by_suite(name: str, scores: Sequence[ItemScore]) -> dict[str, list[ItemScore]]:
    suites: dict[str, list[ItemScore]] = {}
    seen = set()
    for score in scores:
        where = f"suite {score.suite}, item {score.item_id}"
        if (score.suite, score.item_id) in seen:
            _refuse(f"{where}: the {name} has more than one score")
        if not (math.isfinite(score.score) and 0 <= score.score <= 1):
            _refuse(f"{where}: score of the {name} is {score.score}, not in 0..1")
        seen.add((score.suite, score.item_id))
        suites.setdefault(score.suite, []).append(score)
    return suites


def _equal(field: str, reference: object, candidate: object) -> None:
    if reference != candidate:
        _refuse(f"{field} differs: reference {reference}, candidate {candidate}")


def _refuse(problem: str) -> NoReturn:
    raise EvidenceError(f"the scores must not be compared: {problem}. {_WAY_OUT}")
