"""One update: the gradient of some groups' mean loss and of the anchors, summed over processes, clipped and applied."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metagdpo.errors import ConfigError, EvidenceError, ModelError
from metagdpo.objectives.anchors import Ewc, L2Sp
from metagdpo.objectives.scores import GroupScores
from metagdpo.training.accumulate import Scored, backward_through
from metagdpo.training.anchoring import Anchoring
from metagdpo.training.collate import make_families
from metagdpo.training.data import TrainGroup
from metagdpo.training.gauge import GROUP_VALUES, group_values
from metagdpo.training.lockstep import Job, backward_in_step
from metagdpo.training.logprobs import Scorer
from metagdpo.training.parallel import Workers
from metagdpo.training.precision import Masters
from metagdpo.training.reference import AGAIN
from metagdpo.training.sample_weights import weight_values
from metagdpo.training.settings import TrainParams
from metagdpo.training.step_plan import coupled_sets, coupling_of, group_size

START_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest |log-ratio| a token, nats, before the first update: reference and policy are then the same model."""
START_TOLERANCE_LOW = 0.05
"""The same in bfloat16, where the order of sums shows."""


class Engine:
    """The policy, what learns of it, and one update.

    Args:
        policy: From `make_policy`.
        params: Section `train`.
        workers: The processes.

    Raises:
        ConfigError: L2-SP or EWC with weights split over processes.
    """

    def __init__(self, policy: Any, params: TrainParams, workers: Workers) -> None:
        self.params, self.workers = params, workers
        self.scorer = Scorer(policy)
        if workers.sharded:
            kinds = [anchor.kind for anchor in params.anchors if isinstance(anchor, Ewc | L2Sp)]
            if kinds:
                raise ConfigError(f"the anchor {kinds[0]} is not available with FSDP. Use DDP, or the anchor kl.")
            workers.shard(self.scorer)
        self.masters = Masters(policy)
        self.optimiser = torch.optim.AdamW(
            self.masters.learning, lr=params.learning_rate, weight_decay=params.weight_decay
        )

    def step(self, groups: Sequence[TrainGroup], anchoring: Anchoring, step: int, rate: float) -> dict[str, float]:
        """One update from the mean loss of some groups.

        Returns:
            The step's values (of the model before the update); `tokens` are those of all processes with gradient.
        """
        found, n_tokens = self._group_gradients(groups, first=step == 0)
        anchors, weighted, computed = anchoring.text_gradients(self.scorer, step, self.workers)
        totals = self.workers.sum({**found, **anchors, "_weighted": weighted, "_tokens": n_tokens + computed})
        self.workers.add_gradients(self.masters.learning)
        own, own_weighted = anchoring.weight_gradients(self.scorer.policy, self.masters.named)
        tokens, text_weighted = totals.pop("_tokens"), totals.pop("_weighted")
        values = {**totals, **own, "loss": totals["objective"] + text_weighted + own_weighted}
        norm: Any = torch.nn.utils.clip_grad_norm_(self.masters.learning, self.params.max_grad_norm)
        values["grad_norm"] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        _refuse_divergence(step, values)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.masters.write_back()
        if self.params.sample_weights is not None:
            values |= weight_values(groups)
        return values | {"learning_rate": rate, "token_ratio": self._token_ratio(groups), "tokens": tokens}

    def outlook(self, groups: Sequence[TrainGroup]) -> str:
        """One line on how the groups will be computed."""
        largest = max(group_size(group, self.params, packed=self.scorer.packed) for group in groups)
        ratio = self._token_ratio(groups)
        prompts = f"prompts are shared, {ratio:.2f} times fewer tokens" if ratio > 1 else "prompts are not shared"
        if not self.scorer.packed:
            prompts += " (the model's attention cannot be packed)"
        fits = "which fits" if largest <= self.params.token_budget else "computed in parts, within"
        return (
            f"{len(groups)} groups, the largest of {largest} tokens, {fits} the budget of {self.params.token_budget}; "
            f"{prompts}; {self.workers.n} process{'es' * (self.workers.n > 1)} on {self.workers.device.type}"
            f"{', weights split over them' * self.workers.sharded}"
        )

    def _group_gradients(self, groups: Sequence[TrainGroup], *, first: bool) -> tuple[dict[str, float], int]:
        """Add this process's share of the gradient of the groups' mean loss; return its part of the means."""
        packed, processes = self.scorer.packed, self.workers.n
        sets = coupled_sets(groups, self.params, packed=packed, processes=processes)[self.workers.rank]
        members = [[groups[i] for i in together] for together in sets]
        jobs = [_job(of, self.params, len(groups)) for of in members]
        totals = dict.fromkeys((*GROUP_VALUES, "streamed_groups", "two_pass_groups"), 0.0)
        n_tokens = 0
        for found, of in zip(self._backward(jobs), members, strict=True):
            n_tokens += found.n_tokens
            sizes_of = [len(group.sequences) for group in of]
            parts = zip(of, found.log_probs_S.split(sizes_of), found.gradient_S.split(sizes_of), strict=True)
            for group, log_probs_G, slope_G in parts:
                scores = group.scores(log_probs_G)
                if first:
                    _refuse_foreign_start(scores, group, self.scorer.policy.dtype)
                loss = self.params.objective.loss(scores)
                for name, value in group_values(scores, loss, slope_G * len(groups)).items():
                    totals[name] += (group.weight if name == "objective" else 1.0) * value / len(groups)
                totals["streamed_groups"] += found.way == "streamed"
                totals["two_pass_groups"] += found.way == "two_passes"
        return totals, n_tokens

    def _backward(self, jobs: Sequence[Job]) -> list[Scored]:
        settings: Any = {"token_budget": self.params.token_budget, "shared_prompt": self.params.shared_prompt}
        if self.workers.sharded:
            return backward_in_step(self.scorer, jobs, self.workers, **settings)
        return [
            backward_through(self.scorer, job.sequences, job.loss, coupling_SS=job.coupling_SS, **settings)
            for job in jobs
        ]

    def _token_ratio(self, groups: Sequence[TrainGroup]) -> float:
        """Tokens of every response with its own prompt over those that are computed; 1 where nothing is shared."""
        share = self.params.shared_prompt and self.scorer.packed
        alone, computed = (
            sum(family.n_tokens for group in groups for family in make_families(group.sequences, shared_prompt=shared))
            for shared in (False, share)
        )
        return alone / max(1, computed)


def _job(groups: Sequence[TrainGroup], params: TrainParams, n_groups: int) -> Job:
    """The groups' part of the step's mean loss, each by its weight, and what it couples: nothing across groups."""
    sizes = [len(group.sequences) for group in groups]

    def loss(log_probs_S: Tensor) -> Tensor:
        parts = zip(groups, log_probs_S.split(sizes), strict=True)
        losses = [group.weight * params.objective.loss(group.scores(part)).value for group, part in parts]
        return torch.stack(losses).sum() / n_groups

    return Job([sequence for group in groups for sequence in group.sequences], loss, coupling_of(groups, params))


def _refuse_divergence(step: int, values: Mapping[str, float]) -> None:
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        message = (
            f"training diverged at step {step}: {', '.join(wrong)} not finite. Lower train.learning_rate or "
            "train.max_grad_norm; the last checkpoint is from before."
        )
        raise ModelError(message)


def _refuse_foreign_start(scores: GroupScores, group: TrainGroup, dtype: torch.dtype) -> None:
    """Before the first update reference and policy are one model; if not, the references are another's."""
    apart_G = scores.log_ratios_G.abs() / scores.lengths_G.clamp(min=1)
    worst = int(apart_G.argmax())
    if float(apart_G[worst]) > START_TOLERANCE.get(dtype, START_TOLERANCE_LOW):
        message = (
            f"before the first step the policy gives {group.sequences[worst].key} another log-probability than its "
            f"reference says ({float(scores.log_probs_G[worst]):.4f} and {float(scores.reference_G[worst]):.4f} nats), "
            f"though both are the base: the references belong to another model or precision. {AGAIN}"
        )
        raise EvidenceError(message)
