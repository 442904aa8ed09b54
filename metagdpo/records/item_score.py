"""ItemScore: one model's result on one benchmark item, with the digests that pair it with another model's."""

from metagdpo.records.model_identity import ModelIdentity
from metagdpo.schema import Frozen


class ItemScore(Frozen):
    """One line of scores.jsonl."""

    suite: str
    item_id: str
    doc: str
    """Digest of the document."""
    prompt: str
    """Digest of the full text put to the model: a changed template changes it."""
    target: str
    """Digest of the gold answer and the options."""
    score: float
    """In 0..1, higher is better; 0 or 1 for binary metrics."""
    answer: str
    """What the model chose or wrote, for people who look at flips."""


class SuiteRun(Frozen):
    """How one suite was run; must be equal on both sides of a comparison."""

    suite: str
    task: str
    """Digest of the task configuration (prompt form, options, metric, generation settings)."""
    documents: str
    """Digest over the items that were used."""
    n_items: int


class EvaluationManifest(Frozen):
    """What scores.jsonl was measured on, with and how."""

    model: ModelIdentity
    suites: tuple[SuiteRun, ...]
    harness: str
    """`lm-eval <version>`."""
    dtype: str
    batch_size: int
