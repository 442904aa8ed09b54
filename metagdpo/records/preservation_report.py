"""PreservationReport: what the base wrote before training, in counts; data/preservation.json."""

from typing import Literal

from metagdpo.records.sample import Prefix
from metagdpo.schema import Frozen

Dropped = Literal["user_unended", "user_ended_document", "unended", "repeats", "duplicates"]
"""`user_unended`: the user's first turn was cut at the limit, so that nothing of the assistant follows;
`user_ended_document`: the user's first turn ended with another token than the chat template's, likewise; the others are
filters that were asked for."""


class Provenance(Frozen):
    """Where texts come from."""

    model: str
    """Digest of the base model's weights."""
    prefix: Prefix
    prefix_ids: tuple[int, ...]
    prefix_text: str
    """The same, decoded: shows a default system message where the chat template writes one."""
    n_turns: int
    """Sampled pieces of a text at most; 1 for context-free samples."""
    temperature: float
    top_p: float
    max_new_tokens: int
    """Of a piece."""
    seed: int
    """The one from which every text's own derives."""


class PreservedPart(Frozen):
    """One part of one source: counts over all texts that were sampled, then over those that were kept."""

    source: Literal["context_free", "self_dialogue"]
    part: Literal["train", "held_out"]
    asked: int
    ended: int
    """Texts whose last piece the model ended itself."""
    cut: int
    """The others: they reached the length limit."""
    looping: int
    """Texts that repeat themselves (preservation/filters.py), left out or not."""
    duplicates: int
    """Texts with the tokens of an earlier one of the part, left out or not."""
    dropped: dict[Dropped, int]
    """Texts left out, by the first reason that holds."""
    kept: int
    kept_cut: int
    """Kept texts that reached the length limit."""
    tokens: int
    """Sampled tokens of the kept texts."""
    mean_tokens: float | None
    """Of a kept text; null where none was kept."""
    median_tokens: float | None
    distinct_share: float | None
    """Distinct 4-grams over all 4-grams of the kept texts; low where texts resemble each other."""
    unbiased: bool
    """Whether the mean log-ratio over the kept texts estimates KL(base || candidate) on text after this start."""
    why_biased: tuple[str, ...]
    """Empty where it is unbiased."""
    provenance: Provenance


class PreservationReport(Frozen):
    """All parts, and what a person should know about them."""

    n_questions: int
    """Selected questions, to which ratios refer."""
    parts: tuple[PreservedPart, ...]
    warnings: tuple[str, ...]
