"""Reference log-probabilities, computed once with the base model and bound to everything they depend on."""

from metagdpo.schema import Frozen


class ReferenceIdentity(Frozen):
    """What the cached values are valid for; training refuses any other."""

    weights: str
    tokenizer: str
    chat_template: str
    groups: str
    """Digest of groups.jsonl."""
    context_free: str
    """Digest of the held-out context-free samples."""
    dtype: str


class ReferenceLogProb(Frozen):
    """Summed log-probability (nats) of one text under the base model."""

    key: str
    """`<question id>/<response index>` for responses, `context_free/<index>` for held-out samples."""
    log_prob: float
    n_tokens: int
