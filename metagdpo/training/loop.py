"""The training loop: one process, one screen, every step the same three acts (groups, anchor, update).

Left out here: several processes (issue: scale-out), early stopping, on-policy sampling.
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

from metagdpo.errors import ConfigError, DataError, ModelError
from metagdpo.models.port import derived_seed
from metagdpo.objectives.anchors import context_free_nll
from metagdpo.objectives.metrics import advantage_alignment, log_ratio_means, ordering_accuracy
from metagdpo.objectives.scores import GroupLoss, GroupScores
from metagdpo.progress import bar
from metagdpo.records.group import ResponseGroup
from metagdpo.records.reference import ReferenceLogProb
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.training_step import TrainingStep
from metagdpo.schema import append_jsonl, read_journal, write_jsonl
from metagdpo.training.accumulate import Scored, backward_through
from metagdpo.training.checkpoint import restore_checkpoint, save_checkpoint
from metagdpo.training.collate import TokenSequence, context_free_sequences, group_sequences, make_rows, pack
from metagdpo.training.logprobs import can_share_prompts, check_model
from metagdpo.training.model import make_policy
from metagdpo.training.reference import reference_of
from metagdpo.training.settings import SequenceParams, TrainParams

Log = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class TrainGroup:
    """A group ready to be trained on."""

    sequences: tuple[TokenSequence, ...]
    rewards_G: Tensor  # noqa: N815  (shape suffix)
    reference_G: Tensor  # noqa: N815  (shape suffix)


@dataclass(frozen=True)
class TrainResult:
    """What training made and counted."""

    model: Any
    """The policy; `training.model.save_candidate` writes it."""
    steps: int
    n_groups: int
    """Groups trained on."""
    n_skipped_groups: int
    """Degenerate groups."""
    n_truncated: int
    """Responses cut at max_length."""
    metrics: tuple[TrainingStep, ...]


def train(
    base: Any,
    tokenizer: Any,
    groups: Sequence[ResponseGroup],
    *,
    context_free: Sequence[ContextFreeSample],
    references: Mapping[str, ReferenceLogProb],
    params: TrainParams,
    sequences: SequenceParams,
    seed: int,
    work: Path,
    run_key: str,
    log: Log = lambda _step, _values: None,
) -> TrainResult:
    """Train a candidate from offline groups; killed and rerun, it goes on and ends with the same weights.

    Args:
        base: The loaded base; becomes the policy.
        tokenizer: The base's.
        groups: Degenerate ones are skipped and counted.
        context_free: Training part of the context-free samples; may be empty when their weight is 0.
        references: Reference log-probability of every response, by key.
        params: Section `train`.
        sequences: Section `reference`, with which the references were computed.
        seed: Decides LoRA's random half and the order of the data.
        work: Folder for checkpoints and metrics.jsonl of this training.
        run_key: Of parameters, data and base.
        log: Called with each step's number and values.

    Raises:
        DataError: No group has a preference, or context-free samples are wanted and there are none.
        EvidenceError: A reference log-probability is missing or belongs to another text.
        ModelError: The loss or the gradient is no longer finite.
        StoreError: A checkpoint cannot be written; the one before is intact.
    """
    data = _groups(tokenizer, groups, references, sequences)
    anchor = _anchor(context_free, params)
    check_model(base)
    shared = sequences.shared_prompt and can_share_prompts(base)
    accelerator = _accelerator()
    model = accelerator.prepare(make_policy(base, params, seed=derived_seed(seed, "lora")))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=params.learning_rate, weight_decay=params.weight_decay)

    n_steps = params.epochs * math.ceil(len(data) / params.groups_per_step)
    done = restore_checkpoint(work / "checkpoints", run_key, model, optimiser)
    history = _history(work / "metrics.jsonl", done)
    for step in bar(range(done, n_steps), total=n_steps - done, what="train", unit="step"):
        started = time.perf_counter()
        rate = learning_rate(step, n_steps, params)
        chosen = [data[i] for i in groups_of_step(len(data), step, params.groups_per_step, seed)]
        values, n_tokens = _group_gradients(model, chosen, params, shared=shared, backward=accelerator.backward)
        values["loss"] = values["objective"]
        if anchor:
            samples = [anchor[i] for i in samples_of_step(len(anchor), step, params.context_free_per_step, seed)]
            found = _anchor_gradients(model, samples, params, backward=accelerator.backward)
            lengths_S = torch.tensor([len(sample.response_ids) for sample in samples])
            values["cfs_nll"] = float(context_free_nll(found.log_probs_S.cpu(), lengths_S))
            values["loss"] += params.context_free_weight * values["cfs_nll"]
            n_tokens += found.n_tokens
        values["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(learning, params.max_grad_norm))
        _refuse_divergence(step, values)
        for parameters in optimiser.param_groups:
            parameters["lr"] = rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

        values["learning_rate"] = rate
        speed = {"tokens_per_second": n_tokens / (time.perf_counter() - started), "peak_memory_gb": peak_memory_gb()}
        history.append(TrainingStep(step=step, values=values, speed=speed))
        append_jsonl(work / "metrics.jsonl", history[-1:])
        log(step, values | speed)
        if (step + 1) % params.checkpoint_every == 0 or step + 1 == n_steps:
            save_checkpoint(work / "checkpoints", step + 1, run_key, model, optimiser)
    return TrainResult(
        model=accelerator.unwrap_model(model),
        steps=n_steps,
        n_groups=len(data),
        n_skipped_groups=sum(group.degenerate for group in groups),
        n_truncated=sum(sequence.truncated for group in data for sequence in group.sequences),
        metrics=tuple(history),
    )


def groups_of_step(n: int, step: int, per_step: int, seed: int) -> list[int]:
    """Which of n groups a step trains on: each once an epoch, in an order that only seed and epoch decide."""
    epoch, position = divmod(step, math.ceil(n / per_step))
    return _shuffled(n, seed, "groups", epoch)[position * per_step : (position + 1) * per_step]


def samples_of_step(n: int, step: int, per_step: int, seed: int) -> list[int]:
    """Which of n context-free samples a step uses: an endless walk through reshuffled passes, whole passes apart."""
    walk = range(step * per_step, (step + 1) * per_step)
    return [_shuffled(n, seed, "context_free", i // n)[i % n] for i in walk]


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


def _group_gradients(
    model: Any, groups: Sequence[TrainGroup], params: TrainParams, *, shared: bool, backward: Callable[[Tensor], None]
) -> tuple[dict[str, float], int]:
    """Add the gradient of the groups' mean loss; return the step's values and the tokens computed."""
    sizes = [[row.n_tokens for row in make_rows(group.sequences, shared_prompt=shared)] for group in groups]
    findings: list[dict[str, float]] = []
    n_tokens = 0
    for together in pack(sizes, params.token_budget):
        members = [groups[i] for i in together]
        losses: list[GroupLoss] = []

        def mean_loss(log_probs_S: Tensor, members: list[TrainGroup] = members, losses: Any = losses) -> Tensor:
            losses[:] = [params.objective.loss(scores) for scores in _scores(log_probs_S, members)]
            return torch.stack([found.value for found in losses]).sum() / len(groups)

        sequences = [sequence for group in members for sequence in group.sequences]
        found = backward_through(
            model, sequences, mean_loss, token_budget=params.token_budget, shared_prompt=shared, backward=backward
        )
        n_tokens += found.n_tokens
        slopes = found.gradient_S.split([len(group.sequences) for group in members])
        for scores, loss, slope_G in zip(_scores(found.log_probs_S, members), losses, slopes, strict=True):
            findings.append(_finding(scores, loss, slope_G * len(groups)))
    return {name: sum(each[name] for each in findings) / len(findings) for name in findings[0]}, n_tokens


def _anchor_gradients(
    model: Any, samples: Sequence[TokenSequence], params: TrainParams, *, backward: Callable[[Tensor], None]
) -> Scored:
    lengths_S = torch.tensor([len(sample.response_ids) for sample in samples], device=model.device)
    return backward_through(
        model,
        samples,
        lambda log_probs_S: params.context_free_weight * context_free_nll(log_probs_S, lengths_S),
        token_budget=params.token_budget,
        shared_prompt=False,
        backward=backward,
    )


def _finding(scores: GroupScores, loss: GroupLoss, slope_G: Tensor) -> dict[str, float]:
    return {
        "objective": float(loss.value.detach()),
        "ordering_accuracy": ordering_accuracy(scores),
        **log_ratio_means(scores),
        "advantage_alignment": advantage_alignment(slope_G, scores.rewards_G),
        "n_pairs": float(loss.n_pairs),
        "n_skipped_pairs": float(loss.n_skipped),
    }


def _scores(log_probs_S: Tensor, groups: Sequence[TrainGroup]) -> list[GroupScores]:
    parts = log_probs_S.split([len(group.sequences) for group in groups])
    return [
        GroupScores(
            log_probs_G=part_G,
            reference_G=group.reference_G.to(part_G.device),
            rewards_G=group.rewards_G.to(part_G.device),
            lengths_G=torch.tensor([len(s.response_ids) for s in group.sequences], device=part_G.device),
        )
        for part_G, group in zip(parts, groups, strict=True)
    ]


def _groups(
    tokenizer: Any,
    groups: Sequence[ResponseGroup],
    references: Mapping[str, ReferenceLogProb],
    settings: SequenceParams,
) -> list[TrainGroup]:
    kept = [group for group in groups if not group.degenerate]
    if not kept:
        message = (
            f"none of the {len(groups)} groups has two different rewards, so there is nothing to prefer. In section "
            "`respond`, raise n or the temperature of a teacher, or select questions that it answers only sometimes."
        )
        raise DataError(message)
    sequences = iter(group_sequences(tokenizer, kept, settings))
    ready = []
    for group in kept:
        members = tuple(next(sequences) for _ in group.responses)
        rewards_G = torch.tensor([response.reward for response in group.responses], dtype=torch.float64)
        ready.append(TrainGroup(members, rewards_G, reference_of(references, members)))
    return ready


def _anchor(context_free: Sequence[ContextFreeSample], params: TrainParams) -> list[TokenSequence]:
    if params.context_free_weight == 0:
        return []
    found = [sequence for sequence in context_free_sequences(context_free) if sequence.response_ids]
    if not found:
        message = (
            "train.context_free_weight is positive but there are no context-free samples. Run `dvc repro preserve`."
        )
        raise DataError(message)
    return found


def _accelerator() -> Any:
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="no")
    if accelerator.num_processes > 1:
        message = (
            f"training runs in one process, {accelerator.num_processes} were started. Run `dvc repro train` plainly."
        )
        raise ConfigError(message)
    return accelerator


def _history(path: Path, done: int) -> list[TrainingStep]:
    """The steps that the checkpoint covers; what was logged after it will be logged again."""
    kept = [found for found in read_journal(path, TrainingStep) if found.step < done]
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


def _shuffled(n: int, seed: int, what: str, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(derived_seed(seed, what, epoch))
    return [int(i) for i in torch.randperm(n, generator=generator)]
