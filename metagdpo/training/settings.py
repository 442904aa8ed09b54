"""Sections `reference` and `train` of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from metagdpo.objectives import Anchor, Objective
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.schema import Frozen
from metagdpo.training.on_policy_settings import Grpo


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


class EarlyStop(Frozen):
    """Stop when held-out groups have not improved for a while, and keep the weights from when they were best."""

    monitor: Literal["log_ratio_best", "ordering_accuracy", "objective"] = "log_ratio_best"
    """What has to improve: the mean log-ratio of the best responses (up), the share of ordered pairs (up), or the
    objective (down). The objective of pairs does not see displacement (docs/objectives.md), the first one does."""
    patience: int = Field(default=3, gt=0)
    """Measurements in a row without improvement after which training ends."""


class Stm(Frozen):
    """STM (arXiv 2501.14315): tokens of the responses that the base finds unlikely are not learned.

    A response's log-probability is then the sum over the tokens that are left, under policy and reference alike.
    It costs one forward pass of the base over the groups, before the first step.
    """

    perplexity: float = Field(default=2.5, gt=1)
    """A token is left out when 1 / p_base(token | all before) exceeds it; the paper's threshold."""


class Flow(Frozen):
    """FLOW (arXiv 2502.02797): a group counts exp(-l / tau), l being how surprised the base is by its best responses.

    What the base finds hard moves it most, and is therefore weighted down. Costs nothing: the references hold l.
    """

    tau: float | Literal["median"] = "median"
    """Nats a token; `median` is that of all groups trained on, as in the paper."""

    @model_validator(mode="after")
    def _positive(self) -> "Flow":
        if not isinstance(self.tau, str) and self.tau <= 0:
            message = f"tau must be above 0, or `median` (got {self.tau})"
            raise ValueError(message)
        return self


class TrainParams(Frozen):
    """Section `train`."""

    method: Literal["lora", "full"] = "lora"
    lora: LoraParams = LoraParams()
    """Used by method `lora`."""
    objective: Objective = Gdpo()
    anchors: tuple[Anchor, ...] = ()
    """Terms that hold the model near its base, each with its own coefficient: `context_free`, `self_dialogue`, `kl`,
    `ewc`, `l2_sp`; they go with every objective, and with GRPO."""
    token_mask: Stm | None = None
    """Leave out tokens of the responses that the base finds unlikely; null learns all."""
    sample_weights: Flow | None = None
    """Weigh the groups by what the base makes of them; null counts all the same."""
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up; cosine and linear end at 0."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of all steps in which the learning rate rises linearly."""
    epochs: int = Field(default=1, gt=0)
    """Passes over the groups; not used with max_tokens."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Budget in place of epochs: as many steps as compute at most so many tokens with gradient, those of the anchors
    included, with as many passes over the groups as that takes. Methods under one budget are comparable."""
    groups_per_step: int = Field(default=8, gt=0)
    """Groups whose gradients are averaged for one update, however many passes and processes that takes."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    token_budget: int = Field(default=2048, gt=0)
    """Tokens, padding included, whose activations are held at once; a larger group is streamed, or computed in two
    passes, with the same result."""
    shared_prompt: bool = True
    """Compute the prompt of a group once for its responses where that saves tokens; the result is the same."""
    checkpoint_every: int = Field(default=20, gt=0)
    """Steps between checkpoints."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower; the result is the same."""
    measure_every: int = Field(default=0, ge=0)
    """Steps between measurements of drift and held-out groups, which are also made after the last; 0 for none."""
    held_out_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the groups that is not trained on but measured."""
    early_stop: EarlyStop | None = None
    on_policy: Grpo | None = None
    """GRPO on the policy's own answers, instead of the objective or after it; docs/on-policy.md."""

    @model_validator(mode="after")
    def _measured_where_needed(self) -> "TrainParams":
        if self.early_stop is not None and not (self.held_out_share > 0 and self.measure_every > 0):
            message = "early_stop needs held_out_share and measure_every above 0: it looks at held-out groups"
            raise ValueError(message)
        if self.held_out_share > 0 and self.measure_every == 0:
            message = "held_out_share needs measure_every above 0, else the groups held out are never looked at"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _nothing_idle_beside_on_policy(self) -> "TrainParams":
        idle = [
            name
            for name in ("early_stop", "max_tokens", "measure_every", "sample_weights", "token_mask")
            if getattr(self, name)
        ]
        if self.on_policy is not None and self.on_policy.start == "base" and idle:
            message = (
                f"{' and '.join(idle)} act on the objective's training, which on_policy.start: base leaves out; set "
                "measure_every: 0 and the others to null, or on_policy.start: offline"
            )
            raise ValueError(message)
        return self
