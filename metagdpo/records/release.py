"""LedgerEntry: one line of registry/ledger.jsonl, chained to the line before it."""

from typing import Literal

from metagdpo.records.verdict import Decision
from metagdpo.schema import Frozen


class LedgerEntry(Frozen):
    """One release decision; refusals are recorded too."""

    sequence: int
    """0 for the first entry; order is counted, never timed."""
    previous: str
    """Digest of the entry before; of the empty text for the first."""
    decision: Decision
    action: Literal["registered", "refused"]
    model_name: str
    version: int | None
    """Version in the MLflow Model Registry; null for a refusal."""
    candidate: str
    """Digest over the candidate's manifest."""
    base: str
    """Digest of the base's weights."""
    verdict: str
    """Digest of the verdict."""
    trained: tuple[str, ...] = ()
    """Suites of tier `target`: what the release was trained for, retained skills of every later one."""
    run_key: str
    git_commit: str
    dvc_lock: str
    """Digest of the train entry in dvc.lock."""
    recorded_at: str
    """UTC, ISO 8601; informative."""
