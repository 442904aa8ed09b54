"""On-policy baseline: GRPO through TRL (extra `grpo`) on our questions, prompts, decoding, rewards and checkpoints.

TRL's part is what makes it GRPO: advantages, loss, ratio clipping, KL, the gradient. Ours is what it sees and what is
kept, so that a step is a function of seed, step and weights, and a killed training goes on exactly. Left out: several
processes, vLLM, the anchors of section `train`.
"""

import contextlib
import importlib.util
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metagdpo.errors import ConfigError, ModelError
from metagdpo.models.port import derived_seed
from metagdpo.progress import bar
from metagdpo.records.group import ResponseGroup
from metagdpo.records.training_step import TrainingStep
from metagdpo.schema import append_jsonl, read_journal, write_jsonl
from metagdpo.training.checkpoint import restore_checkpoint, save_checkpoint
from metagdpo.training.loop import Log, learning_rate, peak_memory_gb
from metagdpo.training.on_policy_settings import Grpo
from metagdpo.training.parallel import Workers
from metagdpo.training.precision import Masters
from metagdpo.training.roll_out import Answers, Score, questions_of_step, summary
from metagdpo.training.settings import TrainParams

# TRL's name of a value -> ours. Its loss is not `loss`, which charts show: it is near 0 however well the policy does.
TRL_VALUES = {
    "loss": "policy_loss",
    "entropy": "entropy",
    "learning_rate": "learning_rate",
    "kl": "kl_on_answers",
    "frac_reward_zero_std": "groups_without_preference",
    "clip_ratio/region_mean": "clipped",
}


def check_possible() -> None:
    """Say at once what would stop on-policy training later.

    Raises:
        ConfigError: The extra `grpo` is not installed, or there are several processes or devices.
    """
    if importlib.util.find_spec("trl") is None:
        message = "train.on_policy needs TRL, which is not installed. Run `pip install '.[grpo]'`, then `dvc repro`."
        raise ConfigError(message)
    processes, devices = Workers().n, torch.cuda.device_count()
    if processes > 1 or devices > 1:
        message = (
            f"on-policy training runs in one process on one device; here are {processes} processes and {devices} "
            "devices. Run `CUDA_VISIBLE_DEVICES=0 dvc repro train` with METAGDPO_ACCELERATE unset."
        )
        raise ConfigError(message)


def train_on_policy(
    policy: Any,
    tokenizer: Any,
    questions: Sequence[ResponseGroup],
    settings: Grpo,
    *,
    params: TrainParams,
    score: Score,
    seed: int,
    work: Path,
    run_key: str,
    first_step: int = 0,
    log: Log = lambda _step, _values: None,
) -> list[TrainingStep]:
    """Train a policy in place on its own answers; killed and rerun, it goes on and ends with the same weights.

    Args:
        policy: What `make_policy` made or `train` returned; what requires a gradient learns.
        tokenizer: The base's.
        questions: Only id and prompt of a group are used, also of one without preference.
        settings: `train.on_policy`.
        params: Section `train`: schedule, warm-up, norm, weight decay, token budget, checkpoints.
        score: The rewards.
        seed: Decides which questions a step asks, and every draw.
        work: Folder of this training; checkpoints, metrics and answers of this part are in its `on_policy`.
        run_key: Of parameters, data and base.
        first_step: Steps that the policy has had before; those reported count on from there.
        log: Called with each step's number and values.

    Returns:
        One record for each step.

    Raises:
        ConfigError: TRL is not installed, or there are several processes or devices.
        DataError: There is no question, or one leaves no room for an answer.
        ModelError: The loss, the gradient or the policy is no longer finite.
        StoreError: A checkpoint or an answer cannot be written.
    """
    check_possible()
    folder = work / "on_policy"
    policy.to(Workers().device)
    answers = Answers(policy, tokenizer, questions, settings, score=score, seed=seed, folder=folder, run_key=run_key)
    course = Course(policy, answers, settings, params, folder=folder, run_key=run_key, first_step=first_step, log=log)
    if course.done < settings.steps:
        n, per_step = len(questions), settings.questions_per_step
        asked = [i for step in range(course.done, settings.steps) for i in questions_of_step(n, step, per_step, seed)]
        with _contained(policy), _quiet():
            _trainer(course, tokenizer, asked, _arguments(course, seed, folder)).train()
    return course.history


class Course:
    """Steps of an on-policy training: what TRL is given for each, and what is kept of it.

    Args:
        policy: Learns.
        answers: The policy's, as it stands.
        settings: `train.on_policy`.
        params: Section `train`.
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
        self.done = restore_checkpoint(folder / "checkpoints", run_key, self._masters.named, self.optimiser)
        """Steps, when this process began."""
        self._masters.write_back()
        known = read_journal(folder / "metrics.jsonl", TrainingStep)
        self.history = [found for found in known if found.step < first_step + self.done]
        write_jsonl(folder / "metrics.jsonl", self.history)
        left = range(self.done, settings.steps)
        self._steps = bar(left, total=len(left), what="grpo", unit="step", show=len(left) > 0)
        self._step, self._started, self._norm = next(self._steps, settings.steps), 0.0, math.nan

    def roll_out(self, positions: list[str], _trainer: Any) -> dict[str, Any]:
        """A step's answers, for TRL's rows: the position of each question stands there G times."""
        self._started = time.perf_counter()
        asked = [int(position) for position in positions]
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
        """Clip what the optimiser sees."""
        self._norm = float(torch.nn.utils.clip_grad_norm_(self._masters.learning, self.params.max_grad_norm))

    def after_update(self) -> None:
        """Let the policy have it."""
        self._masters.write_back()
        self.optimiser.zero_grad(set_to_none=True)

    def end_step(self, found: Mapping[str, float]) -> None:
        """Check, log and keep."""
        step, number = self._step, self._first_step + self._step
        members = self.answers.of_step(step)
        values = {ours: float(found[name]) for name, ours in TRL_VALUES.items() if name in found}
        if self.settings.updates_per_step == 1:
            values.pop("clipped", None)  # cannot happen
        values |= {"grad_norm": self._norm} | summary(members)
        _refuse_divergence(number, values, self.policy, self.answers.prompts[0])
        n_tokens = sum(len(member.token_ids) for member in members)
        speed = {
            "tokens_per_second": n_tokens / (time.perf_counter() - self._started),
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


def micro_batch(n_responses: int, longest: int, token_budget: int) -> int:
    """Responses whose activations are held at once: the most that divide a step evenly and fit the budget.

    Args:
        n_responses: In a step.
        longest: Tokens of the longest prompt and a response that was cut.
        token_budget: Tokens, padding included; a single response may exceed it.
    """
    fits = max(1, token_budget // longest)
    return max(size for size in range(1, n_responses + 1) if n_responses % size == 0 and size <= fits)


def _arguments(course: Course, seed: int, folder: Path) -> Any:
    """TRL's settings; everything it would do besides GRPO is off."""
    from trl import GRPOConfig

    settings = course.settings
    n_responses = settings.questions_per_step * settings.responses_per_question
    longest = max(len(prompt) for prompt in course.answers.prompts) + settings.max_new_tokens
    size = micro_batch(n_responses, longest, course.params.token_budget)
    return GRPOConfig(
        output_dir=str(folder / "trl"),  # stays empty
        seed=derived_seed(seed, "grpo") % 2**32,
        max_steps=(settings.steps - course.done) * settings.updates_per_step,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=n_responses // size,
        num_generations=settings.responses_per_question,
        num_iterations=settings.updates_per_step,
        shuffle_dataset=False,  # the questions have their order
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        beta=settings.beta,
        epsilon=settings.epsilon,
        loss_type=settings.loss,
        scale_rewards=settings.scale_rewards,
        max_grad_norm=0.0,  # clipped by the course
        logging_steps=settings.updates_per_step,
        logging_nan_inf_filter=False,  # it puts an average in the place of a loss that is not finite
        # On unless refused. The policy has its own dtype, and recomputes activations if section `train` says so.
        bf16=False,
        gradient_checkpointing=False,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        save_strategy="no",  # theirs hold pickles
        report_to="none",
        disable_tqdm=True,
    )


def _trainer(course: Course, tokenizer: Any, asked: Sequence[int], arguments: Any) -> Any:
    """TRL's trainer with our answers, rewards, optimiser and schedule."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOTrainer

    class Events(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            course.before_update()

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            course.after_update()

        def on_log(self, *_: Any, logs: Mapping[str, float], **__: Any) -> None:
            if "loss" in logs:  # the summary at the end has none
                course.end_step(logs)

    def handed_over(reward: list[float], **_: Any) -> list[float]:
        """TRL asks a function; the reward came with the answer."""
        return reward

    trainer = GRPOTrainer(
        model=course.policy,
        reward_funcs=handed_over,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [str(position) for position in asked]}),
        processing_class=tokenizer,
        callbacks=[Events()],
        optimizers=(course.optimiser, course.rates()),
        rollout_func=course.roll_out,
    )
    trainer.remove_callback(PrinterCallback)
    if "ref" in getattr(course.policy, "peft_config", {}):
        # TRL's reference is a copy of the adapter as it came. Without the copy it turns the adapter off: the base.
        course.policy.delete_adapter("ref")
    return trainer


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence about what is known: names that transformers changes while TRL and peft do not, and an experimental door.

    `rollout_func` may change; our tests go through it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)
        yield


@contextlib.contextmanager
def _contained(policy: Any) -> Iterator[None]:
    """Undo afterwards what TRL does to process and policy, and let it report to nobody."""
    from huggingface_hub import constants

    base = policy.get_base_model() if hasattr(policy, "peft_config") else policy
    pads = base.config.pad_token_id, base.generation_config.pad_token_id
    telemetry, constants.HF_HUB_DISABLE_TELEMETRY = constants.HF_HUB_DISABLE_TELEMETRY, True
    try:
        with torch.random.fork_rng():
            yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry
        base.config.pad_token_id, base.generation_config.pad_token_id = pads
        vars(base).pop("forward", None)  # TRL's own, which gives log-probabilities on demand


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
