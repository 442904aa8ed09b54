"""On-policy baseline: GRPO through TRL (extra `grpo`) on our questions, prompts, decoding, rewards and checkpoints.

TRL's part is what makes it GRPO: advantages, loss, ratio clipping, KL, the gradient. Ours is what it sees, the anchors
beside it and what is kept (on_policy_course.py), so that a step is a function of seed, step and weights, and a killed
training goes on exactly. Left out: several processes, vLLM.
"""

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metagdpo.errors import ConfigError
from metagdpo.models.port import derived_seed
from metagdpo.records.group import ResponseGroup
from metagdpo.records.training_step import TrainingStep
from metagdpo.training.anchoring import Anchoring
from metagdpo.training.loop import Log
from metagdpo.training.on_policy_course import Course
from metagdpo.training.on_policy_settings import Grpo
from metagdpo.training.parallel import Workers
from metagdpo.training.roll_out import Answers, Score, questions_of_step
from metagdpo.training.settings import TrainParams


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
    anchoring: Anchoring | None = None,
    first_step: int = 0,
    log: Log = lambda _step, _values: None,
) -> list[TrainingStep]:
    """Train a policy in place on its own answers; killed and rerun, it goes on and ends with the same weights.

    Args:
        policy: What `make_policy` made or `train` returned; what requires a gradient learns.
        tokenizer: The base's.
        questions: Only id and prompt of a group are used, also of one without preference.
        settings: `train.on_policy`.
        params: Section `train`: anchors, schedule, warm-up, norm, weight decay, token budget, checkpoints.
        score: The rewards.
        seed: Decides which questions a step asks, and every draw.
        work: Folder of this training; checkpoints, metrics and answers of this part are in its `on_policy`.
        run_key: Of parameters, data and base.
        anchoring: The anchors of `params`, made from the base before `make_policy` changed it, in a restarted process
            too: what they hold to is never taken from a trained policy. With `start: offline` those that `train`
            returned. May be None where there are no anchors.
        first_step: Steps that the policy has had before; those reported count on from there.
        log: Called with each step's number and values.

    Returns:
        One record for each step.

    Raises:
        ConfigError: TRL is not installed, or there are several processes or devices.
        DataError: There is no question, or one leaves no room for an answer.
        ModelError: The loss, the gradient or the policy is no longer finite.
        StoreError: A checkpoint or an answer cannot be written.
        ValueError: There are anchors and no `anchoring`.
    """
    check_possible()
    if params.anchors and anchoring is None:
        raise ValueError("train.anchors act on on-policy training too: hand in `anchoring`, made from the base.")
    folder = work / "on_policy"
    policy.to(Workers().device)
    answers = Answers(policy, tokenizer, questions, settings, score=score, seed=seed, folder=folder, run_key=run_key)
    course = Course(
        policy,
        answers,
        settings,
        params,
        anchoring=anchoring if params.anchors else None,
        folder=folder,
        run_key=run_key,
        first_step=first_step,
        log=log,
    )
    if course.done < settings.steps:
        n, per_step = len(questions), settings.questions_per_step
        asked = [i for step in range(course.done, settings.steps) for i in questions_of_step(n, step, per_step, seed)]
        with _contained(policy), _quiet():
            _trainer(course, tokenizer, asked, _arguments(course, seed, folder)).train()
    return course.history


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
