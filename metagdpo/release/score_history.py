"""registry/scores: the scores of the base and of every release, from which the matrix R[t][i] is made.

A suite whose evaluation was stopped early is left out of its row: a missing cell, not a worse one.
"""

from collections.abc import Iterable
from pathlib import Path

from metagdpo.errors import EvidenceError
from metagdpo.records.item_score import EvaluationManifest, ItemScore
from metagdpo.records.release_scores import ReleaseScores, SuiteScores
from metagdpo.schema import digest_json, read_record, write_record

BASE = 0


def scores_of(
    scores: Iterable[ItemScore],
    manifest: EvaluationManifest,
    *,
    model_name: str,
    version: int,
    verdict: str | None,
    trained: tuple[str, ...],
) -> ReleaseScores:
    """The lasting part of an evaluation."""
    by_suite: dict[str, list[ItemScore]] = {}
    for score in scores:
        by_suite.setdefault(score.suite, []).append(score)
    rows = []
    for run in manifest.suites:
        found = by_suite.get(run.suite, [])
        if len(found) < run.n_items:
            continue
        clustered = any(score.cluster is not None for score in found)
        rows.append(
            SuiteScores(
                suite=run.suite,
                task=run.task,
                documents=run.documents,
                scores=tuple(score.score for score in found),
                clusters=tuple(score.cluster for score in found) if clustered else None,
            )
        )
    measured = digest_json([manifest.harness, manifest.dtype, manifest.batch_size])
    return ReleaseScores(
        model_name=model_name,
        version=version,
        verdict=verdict,
        trained=trained,
        measured=measured,
        suites=tuple(rows),
    )


def keep(folder: Path, row: ReleaseScores) -> Path:
    """Write a row; the base's is written once, since the matrix starts where everything started.

    Raises:
        StoreError: It cannot be written.
    """
    path = folder / f"{row.model_name}-v{row.version}.json"
    if not (row.version == BASE and path.exists()):
        write_record(path, row)
    return path


def read_history(folder: Path, model_name: str) -> tuple[ReleaseScores, ...]:
    """All rows of a model, base first; none when nothing was released.

    Raises:
        DataError: A file is not such a row.
        EvidenceError: Rows were measured differently, or a suite has other items in another row; names both rows.
    """
    rows = sorted(
        (read_record(path, ReleaseScores) for path in folder.glob(f"{model_name}-v*.json")), key=lambda row: row.version
    )
    first: dict[str, tuple[int, SuiteScores]] = {}
    for row in rows:
        if row.measured != rows[0].measured:
            message = (
                f"version {row.version} of {model_name} was measured with another harness, dtype or batch setting than "
                f"version {rows[0].version}: their scores must not stand in one matrix. Evaluate both again."
            )
            raise EvidenceError(message)
        for suite in row.suites:
            version, known = first.setdefault(suite.suite, (row.version, suite))
            if (known.task, known.documents) != (suite.task, suite.documents):
                message = (
                    f"suite {suite.suite} had other items or another task in version {row.version} than in version "
                    f"{version}: the two must not be compared. Give the changed suite a new name."
                )
                raise EvidenceError(message)
    return tuple(rows)
