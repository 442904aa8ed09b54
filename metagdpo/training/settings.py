"""Sections `reference` and `train` of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from metagdpo.objectives import Objective
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.schema import Frozen


class SequenceParams(Frozen):
    """Section `reference`: how texts become token sequences, for the reference and for training alike."""

    max_length: int = Field(default=1024, gt=1)
    """Tokens of prompt and response together; a longer response is cut there, and counted."""
    token_budget: int = Field(default=4096, gt=0)
    """Tokens, padding included, of one forward pass."""
    shared_prompt: bool = True
    """Compute the prompt of a group once for its responses (exact); off, each response has its own row."""


class LoraParams(Frozen):
    """Low-rank adapters; no dropout, so that reference and policy differ by nothing but the weights."""

    r: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the linear layers that get an adapter; `all-linear` is all but the vocabulary projection."""


class TrainParams(Frozen):
    """Section `train`."""

    method: Literal["lora", "full"] = "lora"
    lora: LoraParams = LoraParams()
    """Used by method `lora`."""
    objective: Objective = Gdpo()
    context_free_weight: float = Field(default=0.0, ge=0)
    """lambda: coefficient of the context-free NLL (CFS) beside the objective."""
    context_free_per_step: int = Field(default=0, ge=0)
    """Context-free samples in every step."""
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up; cosine and linear end at 0."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of all steps in which the learning rate rises linearly."""
    epochs: int = Field(default=1, gt=0)
    groups_per_step: int = Field(default=8, gt=0)
    """Groups whose gradients are averaged for one update."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    token_budget: int = Field(default=2048, gt=0)
    """Tokens, padding included, whose activations are held at once; a larger group is computed in two exact passes."""
    checkpoint_every: int = Field(default=20, gt=0)
    """Steps between checkpoints."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower; the result is the same."""

    @model_validator(mode="after")
    def _context_free_is_whole(self) -> "TrainParams":
        if (self.context_free_weight > 0) != (self.context_free_per_step > 0):
            message = "context_free_weight and context_free_per_step are either both 0 or both positive"
            raise ValueError(message)
        return self
