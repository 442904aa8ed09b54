"""ContextFreeSample: what the base model writes from its start symbol alone (CFS, arXiv 2505.13811)."""

from typing import Literal

from metagdpo.schema import Frozen

Prefix = Literal["bos", "eot", "chat_user_prefix", "custom"]
"""What stands before the first sampled token: the model's start symbol, its document separator, its chat template up to
where a user's words begin, or given ids."""


class ContextFreeSample(Frozen):
    """One unconditional sample with full provenance."""

    index: int
    prefix: Prefix
    prefix_ids: tuple[int, ...]
    """The start symbol(s); never scored."""
    token_ids: tuple[int, ...]
    """The sampled tokens, the end token included when the sample ended."""
    text: str
    ended: bool
    """True when the model ended the text itself, False when it was cut at the length limit."""
    model: str
    """Digest of the base model's weights."""
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
