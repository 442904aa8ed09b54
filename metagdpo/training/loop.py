"""The training loop: one screen, every step the same acts (groups, anchors, update), in one process or several.

Left out here: what a gradient is made of (accumulate.py, lockstep.py, anchoring.py) and on-policy sampling.
"""

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metagdpo.errors import ConfigError, EvidenceError, ModelError
from metagdpo.models.port import derived_seed
from metagdpo.objectives.anchors import L2Sp
from metagdpo.objectives.metrics import advantage_alignment, log_ratio_means, ordering_accuracy
from metagdpo.objectives.scores import GroupLoss, GroupScores
from metagdpo.progress import bar, note
from metagdpo.records.group import ResponseGroup
from metagdpo.records.reference import ReferenceLogProb
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.training_step import TrainingStep
from metagdpo.schema import append_jsonl, read_journal, write_jsonl
from metagdpo.training.accumulate import Scored, backward_through, score_all
from metagdpo.training.anchoring import Anchoring
from metagdpo.training.checkpoint import restore_checkpoint, restore_weights, save_checkpoint
from metagdpo.training.collate import (
    TokenSequence,
    context_free_sequences,
    group_sequences,
    make_families,
    pack,
    token_ratio,
)
from metagdpo.training.data import TrainGroup, hold_out, shuffled, train_groups
from metagdpo.training.lockstep import Job, backward_in_step
from metagdpo.training.logprobs import Scorer
from metagdpo.training.model import make_policy
from metagdpo.training.parallel import Workers
from metagdpo.training.precision import Masters
from metagdpo.training.reference import AGAIN, reference_of, score_batches
from metagdpo.training.settings import EarlyStop, SequenceParams, TrainParams

Log = Callable[[int, dict[str, float]], None]

START_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest |log-ratio| a token, nats, before the first update: reference and policy are then the same model."""
START_TOLERANCE_LOW = 0.05
"""The same in bfloat16, where the order of sums shows."""


@dataclass(frozen=True)
class TrainResult:
    """What training made and counted."""

    model: Any
    """The policy; `training.model.save_candidate` writes it."""
    steps: int
    """Steps that the weights come from."""
    n_groups: int
    """Groups trained on."""
    n_held_out: int
    """Groups measured only."""
    n_skipped_groups: int
    """Degenerate groups."""
    n_truncated: int
    """Responses cut at max_length."""
    metrics: tuple[TrainingStep, ...]
    main: bool = True
    """Whether this process writes what comes of it."""


def train(
    base: Any,
    tokenizer: Any,
    groups: Sequence[ResponseGroup],
    *,
    context_free: Sequence[ContextFreeSample],
    references: Mapping[str, ReferenceLogProb] | None,
    params: TrainParams,
    sequences: SequenceParams,
    seed: int,
    work: Path,
    run_key: str,
    held_out: Sequence[ContextFreeSample] = (),
    log: Log = lambda _step, _values: None,
) -> TrainResult:
    """Train a candidate from offline groups; killed and rerun, it goes on and ends with the same weights.

    Args:
        base: The loaded base; becomes the policy.
        tokenizer: The base's.
        groups: Degenerate ones are skipped and counted.
        context_free: Training part of the context-free samples; may be empty when no anchor wants them.
        references: Reference log-probability of every response, and of `held_out`, by key. None computes them first,
            with the same code and the same result.
        params: Section `train`.
        sequences: Section `reference`, with which the references were computed.
        seed: Decides LoRA's random half, the order of the data and what is held out.
        work: Folder for checkpoints and metrics.jsonl of this training.
        run_key: Of parameters, data and base.
        held_out: Held-out context-free samples, on which drift is measured.
        log: Called with each step's number and values, by the main process.

    Raises:
        ConfigError: What was asked for cannot be done in several processes.
        DataError: No group has a preference, or an anchor wants texts and there are none.
        EvidenceError: A reference log-probability is missing, belongs to another text or to another model.
        ModelError: The loss or the gradient is no longer finite.
        StoreError: A checkpoint cannot be written; the one before is intact.
    """
    workers = Workers()
    drift_on = list(context_free_sequences(held_out))
    scorer = Scorer(base.to(workers.device))
    if references is None:
        scored = [*group_sequences(tokenizer, groups, sequences), *drift_on]
        references = {each.key: each for found in score_batches(scorer, scored, sequences) for each in found}
    data, held = hold_out(train_groups(tokenizer, groups, references, sequences), params.held_out_share, seed)
    texts = {
        "context_free": list(context_free_sequences(context_free)),
        "groups": [sequence for group in data for sequence in group.sequences],
    }
    anchoring = Anchoring(params, texts, scorer, seed=seed)
    gauge = Gauge(held, drift_on, reference_of(references, drift_on), params)
    engine = Engine(make_policy(base, params, seed=derived_seed(seed, "lora")), params, workers)
    anchoring.remember_start(engine.masters.named)

    n_steps = params.epochs * math.ceil(len(data) / params.groups_per_step)
    folder = work / "checkpoints"
    done = restore_checkpoint(folder, run_key, engine.masters.named, engine.optimiser)
    workers.agree(f"{run_key} {done}")
    engine.masters.write_back()
    history = _history(work / "metrics.jsonl", done, write=workers.main)
    if workers.main and done < n_steps:
        note("train", engine.outlook(data))
    for step in bar(range(done, n_steps), total=n_steps - done, what="train", unit="step", show=workers.main):
        if _stopped(history, params.early_stop):
            break
        started = time.perf_counter()
        chosen = [data[i] for i in groups_of_step(len(data), step, params.groups_per_step, seed)]
        values, speed = engine.step(chosen, anchoring, step, learning_rate(step, n_steps, params))
        last = step + 1 == n_steps
        if params.measure_every and ((step + 1) % params.measure_every == 0 or last):
            values |= gauge.measure(engine.scorer, workers)
        speed["tokens_per_second"] = speed.pop("n_tokens") / (time.perf_counter() - started)
        history.append(TrainingStep(step=step, values=values, speed=speed | {"peak_memory_gb": peak_memory_gb()}))
        stop = _stopped(history, params.early_stop)
        if params.early_stop and best_step(history, params.early_stop) == step:
            save_checkpoint(
                work / "best", step + 1, run_key, engine.masters.named, engine.optimiser, keep=1, main=workers.main
            )
        if workers.main:
            append_jsonl(work / "metrics.jsonl", history[-1:])
            log(step, values | history[-1].speed)
        if (step + 1) % params.checkpoint_every == 0 or last or stop:
            save_checkpoint(folder, step + 1, run_key, engine.masters.named, engine.optimiser, main=workers.main)
    steps = len(history)
    if params.early_stop:
        workers.wait()
        steps = best_step(history, params.early_stop) + 1
        restore_weights(work / "best", run_key, steps, engine.masters.named)
        engine.masters.write_back()
    engine.masters.release()
    return TrainResult(
        model=engine.scorer.policy,
        steps=steps,
        n_groups=len(data),
        n_held_out=len(held),
        n_skipped_groups=sum(group.degenerate for group in groups),
        n_truncated=sum(sequence.truncated for group in data for sequence in group.sequences),
        metrics=tuple(history),
        main=workers.main,
    )


class Engine:
    """The policy, what learns of it, and one update.

    Args:
        policy: From `make_policy`.
        params: Section `train`.
        workers: The processes.

    Raises:
        ConfigError: L2-SP with weights split over processes.
    """

    def __init__(self, policy: Any, params: TrainParams, workers: Workers) -> None:
        self.params, self.workers = params, workers
        self.scorer = Scorer(policy)
        if workers.sharded:
            if any(isinstance(anchor, L2Sp) for anchor in params.anchors):
                raise ConfigError("the anchor l2_sp is not available with FSDP. Use DDP, or the anchor kl.")
            workers.shard(self.scorer)
        self.masters = Masters(policy)
        self.optimiser = torch.optim.AdamW(
            self.masters.learning, lr=params.learning_rate, weight_decay=params.weight_decay
        )

    def step(
        self, groups: Sequence[TrainGroup], anchoring: Anchoring, step: int, rate: float
    ) -> tuple[dict[str, float], dict[str, float]]:
        """One update from the mean loss of some groups.

        Returns:
            The step's values (of the model before the update), and the tokens that all processes computed.
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
        values["learning_rate"] = rate
        return values, {"n_tokens": tokens}

    def outlook(self, groups: Sequence[TrainGroup]) -> str:
        """One line on how the groups will be computed."""
        share = self.params.shared_prompt and self.scorer.packed
        alone = together = 0.0
        largest = 0
        for group in groups:
            families = make_families(group.sequences, shared_prompt=share)
            size = sum(family.n_tokens for family in families)
            alone, together = alone + size * token_ratio(group.sequences, families), together + size
            largest = max(largest, size)
        ratio = alone / max(1.0, together)
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
        sizes = [self._size(group) for group in groups]
        mine = self.workers.share(sizes)
        jobs, members = [], []
        for together in pack([sizes[i] for i in mine], self.params.token_budget):
            members.append([groups[mine[i]] for i in together])
            jobs.append(_job(members[-1], self.params, len(groups)))
        totals = dict.fromkeys(_FINDINGS, 0.0)
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
                for name, value in _finding(scores, loss, slope_G * len(groups)).items():
                    totals[name] += value / len(groups)
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

    def _size(self, group: TrainGroup) -> int:
        families = make_families(group.sequences, shared_prompt=self.params.shared_prompt and self.scorer.packed)
        if self.scorer.packed:
            return sum(family.n_tokens for family in families)
        return len(families) * max(family.n_tokens for family in families)


class Gauge:
    """Measures what is not trained on: drift on the base's own text, and held-out groups.

    Args:
        groups: Held-out groups.
        samples: Held-out context-free samples.
        reference_S: Their log-probabilities under the base, nats.
        params: Section `train`.
    """

    def __init__(
        self, groups: Sequence[TrainGroup], samples: Sequence[TokenSequence], reference_S: Tensor, params: TrainParams
    ) -> None:
        self.groups, self.samples, self.reference_S, self.params = groups, samples, reference_S, params

    def measure(self, scorer: Scorer, workers: Workers) -> dict[str, float]:
        """Values of the model as it is now: `drift`, nats a token, and `held_out_*`; only what there is data for."""
        values: dict[str, float] = {}
        if self.samples:
            mine = self._mine([each.n_computed for each in self.samples], workers)
            log_probs_S = self._score(scorer, [self.samples[i] for i in mine])
            moved = float((self.reference_S[mine] - log_probs_S).sum())
            n_tokens = sum(each.n_scored for each in self.samples)
            values["drift"] = self._sum({"drift": moved / n_tokens}, workers)["drift"]  # as in evaluation/drift.py
        if self.groups:
            totals = {f"held_out_{name}": 0.0 for name in _MEASURED}
            for i in self._mine([len(group.sequences) for group in self.groups], workers):
                group = self.groups[i]
                scores = group.scores(self._score(scorer, group.sequences))
                loss = self.params.objective.loss(scores)
                found = {**_finding(scores, loss, torch.zeros_like(scores.rewards_G))}
                for name in _MEASURED:
                    totals[f"held_out_{name}"] += found[name] / len(self.groups)
            values |= self._sum(totals, workers)
        return values

    def _score(self, scorer: Scorer, sequences: Sequence[TokenSequence]) -> Tensor:
        return score_all(
            scorer, sequences, token_budget=self.params.token_budget, shared_prompt=self.params.shared_prompt
        )

    def _mine(self, costs: Sequence[int], workers: Workers) -> list[int]:
        # With weights split over processes all of them must make the same passes: each then measures everything.
        return list(range(len(costs))) if workers.sharded else workers.share(costs)

    def _sum(self, values: dict[str, float], workers: Workers) -> dict[str, float]:
        # Their mean, so that all decide the same about an early stop.
        shares = workers.n if workers.sharded else 1
        return {name: value / shares for name, value in workers.sum(values).items()}


def groups_of_step(n: int, step: int, per_step: int, seed: int) -> list[int]:
    """Which of n groups a step trains on: each once an epoch, in an order that only seed and epoch decide."""
    epoch, position = divmod(step, math.ceil(n / per_step))
    return shuffled(n, seed, "groups", epoch)[position * per_step : (position + 1) * per_step]


def learning_rate(step: int, n_steps: int, params: TrainParams) -> float:
    """Learning rate of a step: a linear rise, then the schedule's fall from its peak."""
    warmup = round(params.warmup_ratio * n_steps)
    if step < warmup:
        return params.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    fall = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    return params.learning_rate * fall[params.schedule]


def peak_memory_gb() -> float:
    """Most memory held so far: of the GPU where there is one, else of the process, 10^9 bytes."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


_MEASURED = ("objective", "ordering_accuracy", "log_ratio_best", "log_ratio_worst", "log_ratio_group")
_FINDINGS = (
    *_MEASURED, "advantage_alignment", "n_pairs", "n_skipped_pairs", "streamed_groups", "two_pass_groups",
)  # fmt: skip


def best_step(history: Sequence[TrainingStep], early_stop: EarlyStop) -> int:
    """Step after which the held-out groups were best; the earliest of equals."""
    name = f"held_out_{early_stop.monitor}"
    sign = -1.0 if early_stop.monitor == "objective" else 1.0
    measured = [found for found in history if name in found.values]
    return max(measured, key=lambda found: (sign * found.values[name], -found.step)).step if measured else -1


def _stopped(history: Sequence[TrainingStep], early_stop: EarlyStop | None) -> bool:
    if early_stop is None:
        return False
    best = best_step(history, early_stop)
    name = f"held_out_{early_stop.monitor}"
    return sum(name in found.values and found.step > best for found in history) >= early_stop.patience


def _job(groups: Sequence[TrainGroup], params: TrainParams, n_groups: int) -> Job:
    """The groups' part of the step's mean loss, and what it couples: nothing across groups."""
    sizes = [len(group.sequences) for group in groups]

    def loss(log_probs_S: Tensor) -> Tensor:
        parts = zip(groups, log_probs_S.split(sizes), strict=True)
        return torch.stack([params.objective.loss(group.scores(part)).value for group, part in parts]).sum() / n_groups

    coupling_SS = torch.block_diag(*(params.objective.coupling(group.rewards_G) for group in groups)).bool()
    return Job([sequence for group in groups for sequence in group.sequences], loss, coupling_SS)


def _finding(scores: GroupScores, loss: GroupLoss, slope_G: Tensor) -> dict[str, float]:
    return {
        "objective": float(loss.value.detach()),
        "ordering_accuracy": ordering_accuracy(scores),
        **log_ratio_means(scores),
        "advantage_alignment": advantage_alignment(slope_G, scores.rewards_G),
        "n_pairs": float(loss.n_pairs),
        "n_skipped_pairs": float(loss.n_skipped),
    }


def _history(path: Path, done: int, *, write: bool) -> list[TrainingStep]:
    """The steps that the checkpoint covers; what was logged after it will be logged again."""
    kept = [found for found in read_journal(path, TrainingStep) if found.step < done]
    if write:
        write_jsonl(path, kept)
    return kept


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
