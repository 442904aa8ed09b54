"""The training loop: one screen, every step the same acts (groups, anchors, update), in one process or several.

Left out here: one update (engine.py), what a gradient is made of (accumulate.py, lockstep.py, anchoring.py), what is
measured (gauge.py), and on-policy sampling.
"""

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metagdpo.models.port import derived_seed
from metagdpo.progress import bar, note
from metagdpo.records.group import ResponseGroup
from metagdpo.records.reference import ReferenceLogProb
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue
from metagdpo.records.training_cost import TrainingCost
from metagdpo.records.training_step import TrainingStep
from metagdpo.schema import append_jsonl, read_journal, write_jsonl
from metagdpo.training.anchoring import Anchoring, anchor_texts
from metagdpo.training.budget import steps_to_take, training_cost
from metagdpo.training.checkpoint import restore_checkpoint, restore_weights, save_checkpoint
from metagdpo.training.collate import context_free_sequences, group_sequences
from metagdpo.training.data import TrainGroup, hold_out, train_groups
from metagdpo.training.engine import Engine
from metagdpo.training.gauge import Gauge, best_step, stopped
from metagdpo.training.logprobs import Scorer
from metagdpo.training.model import make_policy
from metagdpo.training.parallel import Workers
from metagdpo.training.reference import reference_of, score_batches
from metagdpo.training.sample_weights import weight_groups, weight_values
from metagdpo.training.settings import SequenceParams, TrainParams
from metagdpo.training.step_plan import groups_of_step, step_tokens
from metagdpo.training.token_mask import mask_tokens

Log = Callable[[int, dict[str, float]], None]


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
    anchoring: Anchoring | None = None
    """Knows the base, which the model no longer is: for a training that goes on from here with the same anchors."""

    @property
    def cost(self) -> TrainingCost:
        """What the steps took, those from before a restart included."""
        return training_cost(self.metrics)


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
    self_dialogues: Sequence[SelfDialogue] = (),
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
        self_dialogues: Dialogues of the base with itself, for anchors that want them.
        log: Called with each step's number and values, by the main process.

    Raises:
        ConfigError: What was asked for cannot be done in several processes, or the budget is less than one step.
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
    whole = train_groups(tokenizer, groups, references, sequences)
    texts = anchor_texts(
        context_free=context_free,
        self_dialogues=self_dialogues,
        groups=[sequence for group in hold_out(whole, params.held_out_share, seed)[0] for sequence in group.sequences],
    )
    data, held = _to_learn(whole, scorer, params, sequences, seed, say=workers.main)
    anchoring = Anchoring(params, texts, scorer, seed=seed)
    gauge = Gauge(held, drift_on, reference_of(references, drift_on), params)
    engine = Engine(make_policy(base, params, seed=derived_seed(seed, "lora")), params, workers)
    n_steps = _n_steps(data, anchoring, engine, seed)
    anchoring.remember_start(engine.scorer, engine.masters.named, workers)
    folder = work / "checkpoints"
    done = restore_checkpoint(folder, run_key, engine.masters.named, engine.optimiser)
    workers.agree(f"{run_key} {done} {n_steps}")
    engine.masters.write_back()
    history = _history(work / "metrics.jsonl", done, write=workers.main)
    if workers.main and done < n_steps:
        note("train", engine.outlook(data))
    for step in bar(range(done, n_steps), total=n_steps - done, what="train", unit="step", show=workers.main):
        if stopped(history, params.early_stop):
            break
        started = time.perf_counter()
        chosen = [data[i] for i in groups_of_step(len(data), step, params.groups_per_step, seed)]
        values = engine.step(chosen, anchoring, step, learning_rate(step, n_steps, params))
        last = step + 1 == n_steps
        if params.measure_every and ((step + 1) % params.measure_every == 0 or last):
            values |= gauge.measure(engine.scorer, workers)
        history.append(TrainingStep(step=step, values=values, speed=_speed(values["tokens"], started)))
        stop = stopped(history, params.early_stop)
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
        anchoring=anchoring,
    )


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


def _to_learn(
    whole: Sequence[TrainGroup], base: Scorer, params: TrainParams, sequences: SequenceParams, seed: int, *, say: bool
) -> tuple[list[TrainGroup], list[TrainGroup]]:
    """Groups to train on, masked and weighted, and groups to measure, masked alike so that the two compare."""
    if params.token_mask is not None:
        whole, counts = mask_tokens(base, whole, params.token_mask, sequences)
        if say:
            note("train", str(counts))
    data, held = hold_out(whole, params.held_out_share, seed)
    if params.sample_weights is not None:
        data = weight_groups(data, params.sample_weights)
        mean, share = weight_values(data).values()
        if say:
            note("train", f"sample weights: {mean:.3f} on average, counting as {share:.1%} of {len(data)} equal groups")
    return data, held


def _n_steps(data: Sequence[TrainGroup], anchoring: Anchoring, engine: Engine, seed: int) -> int:
    """Decided before the first step, since the learning rate falls towards the last."""
    params, workers = engine.params, engine.workers

    def tokens_of_step(step: int) -> int:
        return step_tokens(
            [data[i] for i in groups_of_step(len(data), step, params.groups_per_step, seed)],
            [texts for _, texts in anchoring.texts_of_step(step)],
            params,
            packed=engine.scorer.packed,
            processes=workers.n,
            sharded=workers.sharded,
        )

    return steps_to_take(params, math.ceil(len(data) / params.groups_per_step), tokens_of_step)


def _speed(n_tokens: float, started: float) -> dict[str, float]:
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "tokens_per_second": n_tokens / seconds, "peak_memory_gb": peak_memory_gb()}


def _history(path: Path, done: int, *, write: bool) -> list[TrainingStep]:
    """The steps that the checkpoint covers; what was logged after it will be logged again."""
    kept = [found for found in read_journal(path, TrainingStep) if found.step < done]
    if write:
        write_jsonl(path, kept)
    return kept
