"""SelfDialogue: a conversation in which the base plays both sides (SA-SFT, arXiv 2602.20162)."""

from typing import Literal

from metagdpo.schema import Frozen


class SelfTurn(Frozen):
    """One turn, as token ids: what the model saw is what training scores."""

    role: Literal["user", "assistant"]
    template_ids: tuple[int, ...]
    """What the chat template writes between the last sampled token and this turn's first; never scored."""
    token_ids: tuple[int, ...]
    """The sampled tokens, the end-of-turn token included when the turn ended."""
    text: str
    ended: bool
    """True when the model ended the turn itself, False when it was cut at the length limit."""
    seed: int


class SelfDialogue(Frozen):
    """One dialogue with full provenance; turns alternate and the user's comes first."""

    index: int
    turns: tuple[SelfTurn, ...]
    model: str
    """Digest of the base model's weights."""
    temperature: float
    top_p: float
    max_new_tokens: int
    """Of a turn."""
