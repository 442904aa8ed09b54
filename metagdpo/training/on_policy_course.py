"""An on-policy training step by step: what TRL is given for each, what happens beside it, and what is kept.

Left out: TRL itself (on_policy.py), which calls these in turn: roll_out, then before_update and after_update for each
update, then end_step.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metagdpo.errors import ModelError
from metagdpo.models.port import derived_seed
from metagdpo.progress import bar
from metagdpo.records.training_step import TrainingStep
from metagdpo.schema import append_jsonl, read_journal, write_jsonl
from metagdpo.training.anchoring import Anchoring
from metagdpo.training.checkpoint import restore_checkpoint, save_checkpoint
from metagdpo.training.loop import Log, learning_rate, peak_memory_gb
from metagdpo.training.on_policy_anchors import StepAnchors
from metagdpo.training.on_policy_settings import Grpo
from metagdpo.training.precision import Masters
from metagdpo.training.roll_out import Answers, summary
from metagdpo.training.settings import TrainParams

# TRL's name of a value -> ours. Its loss is not `loss`, which charts show as the objective: it is near 0 however well
# the policy does. Nor is there a sum of it and the anchors, which would show these alone; they are `anchor_loss`.
TRL_VALUES = {
    "loss": "policy_loss",
    "entropy": "entropy",
    "learning_rate": "learning_rate",
    "kl": "kl_on_answers",
    "frac_reward_zero_std": "groups_without_preference",
    "clip_ratio/region_mean": "clipped",
}


class Course:
    """Steps of an on-policy training: what TRL is given for each, and what is kept of it.

    Args:
        policy: Learns.
        answers: The policy's, as it stands.
        settings: `train.on_policy`.
        params: Section `train`.
        anchoring: Its anchors; None if there are none.
        folder: For checkpoints and metrics.
        run_key: Of the training.
        first_step: Added to the numbers of the steps.
        log: Called with each step's number and values.
    """

    def __init__(
        self,
        policy: Any,
        answers: Answers,
        settings: Grpo,
        params: TrainParams,
        *,
        anchoring: Anchoring | None,
        folder: Path,
        run_key: str,
        first_step: int,
        log: Log,
    ) -> None:
        self.policy, self.answers, self.settings, self.params = policy, answers, settings, params
        self._folder, self._run_key, self._first_step, self._log = folder, run_key, first_step, log
        self._masters = Masters(policy)
        self.optimiser = torch.optim.AdamW(
            self._masters.learning, lr=settings.learning_rate, weight_decay=params.weight_decay
        )
        self._anchors: StepAnchors | None = None
        if anchoring is not None:
            at_base = settings.start == "base"
            self._anchors = StepAnchors(anchoring, policy, self._masters.named, at_base=at_base)
        self.done = restore_checkpoint(folder / "checkpoints", run_key, self._masters.named, self.optimiser)
        """Steps, when this process began."""
        self._masters.write_back()
        known = read_journal(folder / "metrics.jsonl", TrainingStep)
        self.history = [found for found in known if found.step < first_step + self.done]
        write_jsonl(folder / "metrics.jsonl", self.history)
        left = range(self.done, settings.steps)
        self._steps = bar(left, total=len(left), what="grpo", unit="step", show=len(left) > 0)
        self._step, self._started, self._norm = next(self._steps, settings.steps), 0.0, math.nan
        self._update = self._n_prompt_tokens = 0

    def roll_out(self, positions: list[str], _trainer: Any) -> dict[str, Any]:
        """A step's answers, for TRL's rows: the position of each question stands there G times."""
        self._started, self._update = time.perf_counter(), 0
        asked = [int(position) for position in positions]
        self._n_prompt_tokens = sum(len(self.answers.prompts[position]) for position in asked)
        members = self.answers.ask(self._step, asked[:: self.settings.responses_per_question])
        # TRL splits a step into micro-batches with the global generator.
        torch.manual_seed(derived_seed("grpo", "split", self._step))
        return {
            "prompt_ids": [list(self.answers.prompts[position]) for position in asked],
            "completion_ids": [list(member.token_ids) for member in members],
            "logprobs": None,
            "reward": [member.reward for member in members],
        }

    def before_update(self) -> None:
        """Add the anchors to TRL's gradient, then clip what the optimiser sees.

        Each update of a step has them anew, with texts of its own.
        """
        if self._anchors is not None:
            before = self._first_step + self._step * self.settings.updates_per_step
            self._anchors.add_gradients(before + self._update)
        self._norm = float(torch.nn.utils.clip_grad_norm_(self._masters.learning, self.params.max_grad_norm))

    def after_update(self) -> None:
        """Let the policy have it."""
        self._masters.write_back()
        self.optimiser.zero_grad(set_to_none=True)
        self._update += 1

    def end_step(self, found: Mapping[str, float]) -> None:
        """Check, log and keep."""
        step, number = self._step, self._first_step + self._step
        members = self.answers.of_step(step)
        values = {ours: float(found[name]) for name, ours in TRL_VALUES.items() if name in found}
        if self.settings.updates_per_step == 1:
            values.pop("clipped", None)  # cannot happen
        held, n_held = self._anchors.of_step() if self._anchors is not None else ({}, 0)
        n_sampled = float(sum(len(member.token_ids) for member in members))
        # TRL computes each response after a prompt of its own, in each update.
        n_computed = self.settings.updates_per_step * (self._n_prompt_tokens + n_sampled) + n_held
        values |= {"grad_norm": self._norm, "tokens": n_computed, "sampled_tokens": n_sampled} | held | summary(members)
        _refuse_divergence(number, values, self.policy, self.answers.prompts[0])
        seconds = time.perf_counter() - self._started
        speed = {
            "seconds": seconds,
            "tokens_per_second": n_sampled / seconds,
            "peak_memory_gb": peak_memory_gb(),
        }
        self.history.append(TrainingStep(step=number, values=values, speed=speed))
        append_jsonl(self._folder / "metrics.jsonl", self.history[-1:])
        self._log(number, values | speed)
        if (step + 1) % self.params.checkpoint_every == 0 or step + 1 == self.settings.steps:
            save_checkpoint(self._folder / "checkpoints", step + 1, self._run_key, self._masters.named, self.optimiser)
        self._step = next(self._steps, self.settings.steps)

    def rates(self) -> Any:
        """The schedule of section `train` over all updates, from the one that comes next."""
        updates, unit = self.settings.updates_per_step, self.params.model_copy(update={"learning_rate": 1.0})
        return torch.optim.lr_scheduler.LambdaLR(
            self.optimiser,
            lambda update: learning_rate(self.done * updates + update, self.settings.steps * updates, unit),
        )


def _refuse_divergence(step: int, values: Mapping[str, float], policy: Any, prompt: Sequence[int]) -> None:
    """The updated policy is tried too: from logits that are not finite, no next token could be drawn."""
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    with torch.no_grad():
        if not policy(input_ids=torch.tensor([prompt], device=policy.device)).logits.isfinite().all():
            wrong.append("the updated policy's logits")
    if wrong:
        message = (
            f"training diverged at step {step}: {', '.join(wrong)} not finite. Lower train.on_policy.learning_rate or "
            "train.max_grad_norm; the last checkpoint is from before."
        )
        raise ModelError(message)
