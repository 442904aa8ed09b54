"""registry/scores: the scores of the base and of every release, from which the matrix R[t][i] is made.

A suite whose evaluation was stopped early is left out of its row: a missing cell, not a worse one.
"""

from collections.abc import Iterable
from pathlib import Path

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
    """Write a row; the base's stays as it is, unless its suites have other items or another measurement by now.

    Raises:
        StoreError: It cannot be written.
    """
    path = folder / f"{row.model_name}-v{row.version}.json"
    if row.version == BASE and path.exists():
        known = read_record(path, ReleaseScores)
        if all(_comparable(known, suite, row) for suite in known.suites):
            return path
    write_record(path, row)
    return path


def read_history(folder: Path, model_name: str) -> tuple[tuple[ReleaseScores, ...], tuple[str, ...]]:
    """All rows of a model, base first, as far as they compare with the newest; none when nothing was released.

    Returns:
        The rows, and a sentence for everything that was left out: a suite with other items, another task, or another
        measurement than in the newest row is a missing cell there.

    Raises:
        DataError: A file is not such a row.
    """
    rows = sorted(
        (read_record(path, ReleaseScores) for path in folder.glob(f"{model_name}-v*.json")), key=lambda row: row.version
    )
    kept, notes = [], []
    for row in rows:
        suites = tuple(suite for suite in row.suites if _comparable(row, suite, rows[-1]))
        missing = ", ".join(sorted({suite.suite for suite in row.suites} - {suite.suite for suite in suites}))
        if missing:
            why = f"other items, task or settings of the measurement than version {rows[-1].version}"
            notes.append(f"version {row.version} is left out on {missing}: {why}.")
        kept.append(row.model_copy(update={"suites": suites}))
    return tuple(kept), tuple(notes)


def _comparable(row: ReleaseScores, suite: SuiteScores, newest: ReleaseScores) -> bool:
    """Whether the newest row says nothing else about how this suite is measured."""
    same = {other.suite: (other.task, other.documents) for other in newest.suites}
    wanted = same.get(suite.suite, (suite.task, suite.documents))
    return row.measured == newest.measured and wanted == (suite.task, suite.documents)
