"""Section `preserve`: how much the base writes before it is trained, after what start, and what is left out of it."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from metagdpo.records.sample import Prefix
from metagdpo.schema import Frozen

Filter = Literal["repeats", "duplicates", "unended"]
"""`repeats`: texts that loop (preservation/filters.py says what that is); `duplicates`: all but the first of texts with
equal tokens; `unended`: texts that were cut at the length limit."""

LEAST_HELD_OUT = 2


class ContextFreeParams(Frozen):
    """Text that the base writes from its start alone (CFS)."""

    prefix: Prefix = "bos"
    """What stands before the first sampled token: `bos`, the model's own start symbol; `eot`, its document separator
    (for models without a start symbol); `chat_user_prefix`, its chat template up to where a user's words begin, with
    the default system message where the template has one; `custom`, `prefix_ids`."""
    prefix_ids: tuple[int, ...] = ()
    """Token ids, for `custom` alone."""
    ratio: float | None = Field(default=None, ge=0)
    """Training samples for each selected question (rounded; the paper found 0.5 to 1 best); 0 goes without. Either
    this or `n_train`."""
    n_train: int | None = Field(default=None, ge=0)
    """Training samples, whatever the number of questions."""
    n_held_out: int = Field(ge=LEAST_HELD_OUT)
    """Samples that training never sees, to measure drift on; one alone would give no interval."""
    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(default=1.0, gt=0)
    """Other values than 1 sharpen or flatten what is preserved, and drift is then no longer unbiased."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Values below 1 cut unlikely tokens off, and drift is then no longer unbiased."""
    filters: tuple[Filter, ...] = ()
    """What is left out of the training part: `repeats`, `duplicates`, `unended`. Always counted, and never left out of
    the held-out part, whose mean would then no longer be the KL divergence."""

    @field_validator("n_held_out", mode="before")
    @classmethod
    def _something_is_held_out(cls, n: object) -> object:
        if isinstance(n, int) and not isinstance(n, bool) and n < LEAST_HELD_OUT:
            message = (
                f"drift is measured on the held-out part, and an interval needs at least {LEAST_HELD_OUT} samples; 32 "
                "cost about half a minute"
            )
            raise ValueError(message)
        return n

    @model_validator(mode="after")
    def _prefix_is_clear(self) -> "ContextFreeParams":
        if (self.prefix == "custom") != bool(self.prefix_ids):
            message = "prefix_ids are given if and only if prefix is `custom`"
            raise ValueError(message)
        if (self.ratio is None) == (self.n_train is None):
            message = "give exactly one of ratio (samples for each selected question) and n_train (their number)"
            raise ValueError(message)
        return self

    def amount(self, n_questions: int) -> int:
        """Training samples beside so many selected questions."""
        return _amount(self.ratio, self.n_train, n_questions)


class SelfDialogueParams(Frozen):
    """Conversations in which the base plays both sides (SA-SFT)."""

    ratio: float | None = Field(default=None, ge=0)
    """Dialogues for each selected question, rounded; 0 goes without. Either this or `n`."""
    n: int | None = Field(default=None, ge=0)
    """Dialogues, whatever the number of questions."""
    n_turns: int = Field(default=2, ge=2, multiple_of=2)
    """Of both sides together, the user's first; 2 is one question and its answer."""
    max_new_tokens: int = Field(gt=0)
    """Of a turn. One that reaches it ends its dialogue."""
    temperature: float = Field(default=0.7, gt=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    filters: tuple[Filter, ...] = ()
    """Dialogues that are left out: `repeats`, `duplicates`, `unended`. Always counted."""

    @model_validator(mode="after")
    def _amount_is_clear(self) -> "SelfDialogueParams":
        if (self.ratio is None) == (self.n is None):
            message = "give exactly one of ratio (dialogues for each selected question) and n (their number)"
            raise ValueError(message)
        return self

    def amount(self, n_questions: int) -> int:
        """Dialogues beside so many selected questions."""
        return _amount(self.ratio, self.n, n_questions)


class PreserveParams(Frozen):
    """Section `preserve`: what the base writes before training, to protect it and to measure drift on."""

    batch_size: int = Field(default=64, gt=0)
    """Texts sampled side by side; changes speed and memory, not what is drawn."""
    context_free: ContextFreeParams
    self_dialogue: SelfDialogueParams | None = None
    """Null goes without."""


def _amount(ratio: float | None, n: int | None, n_questions: int) -> int:
    return n if n is not None else round((ratio or 0.0) * n_questions)
