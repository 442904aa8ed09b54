"""What a training may compute and what it did: steps that fit a budget of tokens, and the cost of steps taken."""

from collections.abc import Callable, Sequence

from metagdpo.errors import ConfigError
from metagdpo.records.training_cost import TrainingCost
from metagdpo.records.training_step import TrainingStep
from metagdpo.training.settings import TrainParams


def steps_to_take(params: TrainParams, per_epoch: int, tokens_of_step: Callable[[int], int]) -> int:
    """Steps of a training: those of its epochs, or with `max_tokens` the most that fit the budget.

    Args:
        params: Section `train`.
        per_epoch: Steps of one pass over the groups.
        tokens_of_step: Tokens that a step computes with gradient, by its number.

    Raises:
        ConfigError: The budget is less than one step, or no step would use any of it.
    """
    if params.max_tokens is None:
        return params.epochs * per_epoch
    used, step = tokens_of_step(0), 0
    if used > params.max_tokens:
        message = (
            f"train.max_tokens = {params.max_tokens} does not suffice for one step, which computes {used} tokens with "
            "gradient. Raise it, or lower train.groups_per_step or the anchors' per_step."
        )
        raise ConfigError(message)
    while used <= params.max_tokens:
        step += 1
        used += tokens_of_step(step)
        if used == 0 and step == per_epoch:
            raise ConfigError(f"train.max_tokens = {params.max_tokens} is no bound: nothing is computed with gradient.")
    return step


def training_cost(history: Sequence[TrainingStep]) -> TrainingCost:
    """What some steps cost together: of one training, its on-policy steps after its others.

    Reads `tokens` and `sampled_tokens` of each step's values, `seconds` and `peak_memory_gb` of its speed; what a step
    lacks counts 0. Steps are journaled as they are made, so those from before a restart are among them; `train` returns
    them as `TrainResult.metrics`, and on-policy steps are appended to these. What goes before the first step (the KL's
    hidden states, EWC's Fisher diagonal) is not in it, nor are steps that were made again after a crash.

    Args:
        history: Steps; none give zeros.
    """
    return TrainingCost(
        n_steps=len(history),
        n_tokens=int(sum(step.values.get("tokens", 0.0) for step in history)),
        n_sampled_tokens=int(sum(step.values.get("sampled_tokens", 0.0) for step in history)),
        seconds=sum(step.speed.get("seconds", 0.0) for step in history),
        peak_memory_gb=max((step.speed.get("peak_memory_gb", 0.0) for step in history), default=0.0),
    )
