"""ReleaseScores: what one release reached on every item, small enough to be kept in git for good."""

from metagdpo.schema import Frozen


class SuiteScores(Frozen):
    """One suite: the scores in the order of its items."""

    suite: str
    task: str
    """Digest of the task configuration."""
    documents: str
    """Digest over the items: equal digest, same items in the same order."""
    scores: tuple[float, ...]
    clusters: tuple[str | None, ...] | None = None
    """Cluster of each item; null when items are independent."""


class ReleaseScores(Frozen):
    """registry/scores/<model>-v<version>.json; version 0 is the base before anything was trained."""

    model_name: str
    version: int
    verdict: str | None
    """Digest of the verdict that released it; null for the base."""
    trained: tuple[str, ...] = ()
    """Suites that it was trained for."""
    measured: str
    """Digest of harness, dtype and batch setting: only equal measurements stand in one matrix."""
    suites: tuple[SuiteScores, ...]
