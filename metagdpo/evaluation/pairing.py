"""Pairing: which score of the candidate belongs to which score of the base; anything else is refused.

Two scores are of one item when suite, item id and the digests of document, prompt and target agree. There is no
unpaired comparison: a changed template, a missing item or another harness is an error that names the field.
"""

import math
from collections.abc import Sequence
from typing import NoReturn

from metagdpo.errors import EvidenceError
from metagdpo.records.candidate import Candidate
from metagdpo.records.item_score import EvaluationManifest, ItemScore
from metagdpo.records.model_identity import ModelIdentity

_WAY_OUT = "Evaluate both models again with the same settings: `dvc repro -f evaluate_base evaluate_candidate`."


def pair(
    base_scores: Sequence[ItemScore],
    base_manifest: EvaluationManifest,
    candidate_scores: Sequence[ItemScore],
    candidate_manifest: EvaluationManifest,
    *,
    candidate: Candidate,
) -> dict[str, list[tuple[float, float]]]:
    """Scores of both models on every item, in the base's order.

    Args:
        base_scores: Scores of the base.
        base_manifest: How they were measured.
        candidate_scores: Scores of the candidate.
        candidate_manifest: How they were measured.
        candidate: The candidate; names its own and its base's digests.

    Returns:
        For each suite the pairs (base, candidate), each in 0..1, higher is better.

    Raises:
        EvidenceError: The two must not be compared; names the field that differs.
    """
    _same_model("base", candidate.base, base_manifest.model)
    _same_model("candidate", candidate.identity, candidate_manifest.model)
    _same_measurement(base_manifest, candidate_manifest)
    base, other = _indexed("base", base_scores), _indexed("candidate", candidate_scores)
    for run in base_manifest.suites:
        for name, scores in (("base", base), ("candidate", other)):
            found = sum(suite == run.suite for suite, _ in scores)
            if found != run.n_items:
                _refuse(f"suite {run.suite}: the {name} has scores of {found} items, its manifest says {run.n_items}")
    pairs: dict[str, list[tuple[float, float]]] = {run.suite: [] for run in base_manifest.suites}
    for (suite, item), score in base.items():
        if suite not in pairs:
            _refuse(f"suite {suite}: has scores of the base, but is not in its manifest")
        twin = other.get((suite, item))
        if twin is None:
            _refuse(f"suite {suite}, item {item}: has a score of the base and none of the candidate")
        for field in ("doc", "prompt", "target"):
            _equal(f"suite {suite}, item {item}: {field}", getattr(score, field), getattr(twin, field))
        pairs[suite].append((score.score, twin.score))
    return pairs


def _same_model(name: str, expected: ModelIdentity, found: ModelIdentity) -> None:
    for field in ("weights", "adapter", "config", "tokenizer", "chat_template"):
        wanted, got = getattr(expected, field), getattr(found, field)
        if wanted != got:
            _refuse(f"{name} model, {field}: the candidate's record says {wanted}, the scores are of {got}")


def _same_measurement(base: EvaluationManifest, candidate: EvaluationManifest) -> None:
    for field in ("harness", "dtype", "batch_size"):
        _equal(field, getattr(base, field), getattr(candidate, field))
    for field in ("tokenizer", "chat_template"):
        _equal(f"model.{field}", getattr(base.model, field), getattr(candidate.model, field))
    runs = {run.suite: run for run in candidate.suites}
    _equal("suites", sorted(run.suite for run in base.suites), sorted(run.suite for run in candidate.suites))
    for run in base.suites:
        for field in ("task", "documents", "n_items"):
            _equal(f"suite {run.suite}: {field}", getattr(run, field), getattr(runs[run.suite], field))


def _indexed(name: str, scores: Sequence[ItemScore]) -> dict[tuple[str, str], ItemScore]:
    index: dict[tuple[str, str], ItemScore] = {}
    for score in scores:
        key = (score.suite, score.item_id)
        if key in index:
            _refuse(f"suite {score.suite}, item {score.item_id}: the {name} has more than one score")
        if not (math.isfinite(score.score) and 0 <= score.score <= 1):
            _refuse(f"suite {score.suite}, item {score.item_id}: score of the {name} is {score.score}, not in 0..1")
        index[key] = score
    return index


def _equal(field: str, base: object, candidate: object) -> None:
    if base != candidate:
        _refuse(f"{field} differs: base {base}, candidate {candidate}")


def _refuse(problem: str) -> NoReturn:
    raise EvidenceError(f"the scores must not be compared: {problem}. {_WAY_OUT}")
