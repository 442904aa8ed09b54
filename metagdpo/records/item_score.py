"""ItemScore: one model's result on one benchmark item, with the digests that pair it with another model's."""

from collections.abc import Iterable

from metagdpo.records.model_identity import ModelIdentity
from metagdpo.schema import Frozen, digest_json


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
    cluster: str | None = None
    """Passage, subject or template that the item shares with others; None when items are independent."""


class Generation(Frozen):
    """How written answers are generated."""

    max_new_tokens: int
    stop: tuple[str, ...]
    """Texts that end an answer, besides the model's own end token."""
    temperature: float
    """0 is greedy."""


class SuiteRun(Frozen):
    """How one suite was run; must be equal on both sides of a comparison."""

    suite: str
    task: str
    """Digest of the task configuration (prompt form, metric, how an answer is found)."""
    generation: Generation | None = None
    """None where options are chosen."""
    documents: str
    """`documents_digest` of all items in their fixed order, also when the evaluation stopped early."""
    n_items: int
    """Items of the suite."""
    n_scored: int
    """The first so many were scored: fewer than `n_items` when a sequential evaluation stopped early."""


def documents_digest(documents: Iterable[tuple[str, str, str, str | None]]) -> str:
    """Digest of (item id, digest of the document, digest of the target, cluster) of every item, in order."""
    return digest_json([list(document) for document in documents])


class EvaluationManifest(Frozen):
    """What scores.jsonl was measured on, with and how."""

    model: ModelIdentity
    suites: tuple[SuiteRun, ...]
    harness: str
    """`lm-eval <version>`."""
    dtype: str
    batch_size: int
    """Answers written together; a forward pass over choices holds 16 times as many tokens."""
    items_per_look: int
    """Items that were scored together: what stands beside an item in a batch moves its last digits."""
