"""FLOW (arXiv 2502.02797): groups whose best responses surprise the base count less.

What the base finds hard has the largest gradients and moves it furthest from what it knew. The weights are fixed before
the first step and come from the references alone. They multiply the group's loss, whatever the objective, and a step
still divides by its number of groups, as the paper does: the weights lower the loss and do not just share it out anew.

Home of: FLOW weight w = exp(-l / tau), tau = median of l
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Literal

from metagdpo.errors import ConfigError
from metagdpo.objectives.sft import best_nll
from metagdpo.training.data import TrainGroup
from metagdpo.training.settings import Flow


def surprise(group: TrainGroup) -> float:
    """l: mean over a group's best responses of their negative log-probability a token under the base, nats.

    Over the tokens that are scored: with a token mask, those that are learned.
    """
    return float(best_nll(group.scores(group.reference_G)))


def flow_weights(surprises: Sequence[float], tau: float | Literal["median"]) -> list[float]:
    """The weight w = exp(-l / tau) of each l.

    Args:
        surprises: l of each group, nats a token, 0 or more; at least one.
        tau: Nats a token, or the median of l (of an even number, midway between the two in the middle).

    Raises:
        ConfigError: The median is 0, which is no scale, or every weight is 0.
    """
    scale = median(surprises) if isinstance(tau, str) else tau
    if scale <= 0:
        message = (
            "train.sample_weights.tau: median is 0: the base is certain of the best responses of half of the groups, "
            "or train.token_mask leaves nothing of them. Give tau in nats a token, raise the mask's perplexity, or set "
            "train.sample_weights: null."
        )
        raise ConfigError(message)
    weights = [math.exp(-each / scale) for each in surprises]
    if not any(weights):
        message = (
            f"train.sample_weights.tau = {scale:g} gives every group weight 0: the least surprising has "
            f"{min(surprises):.3g} nats a token. Raise tau, or take `median`."
        )
        raise ConfigError(message)
    return weights


def effective_share(weights: Sequence[float]) -> float:
    """(sum w)^2 / (n sum w^2): as what share of n equal groups they count; 1 where all are equal, 0 where all are 0."""
    squares = sum(each**2 for each in weights)
    return sum(weights) ** 2 / (len(weights) * squares) if squares > 0 else 0.0


def weight_groups(groups: Sequence[TrainGroup], flow: Flow) -> list[TrainGroup]:
    """The groups with their weights.

    Args:
        groups: All that are trained on; at least one.
        flow: `train.sample_weights`.

    Raises:
        ConfigError: As `flow_weights`.
    """
    weights = flow_weights([surprise(group) for group in groups], flow.tau)
    return [replace(group, weight=weight) for group, weight in zip(groups, weights, strict=True)]


def weight_values(groups: Sequence[TrainGroup]) -> dict[str, float]:
    """What is reported of some groups' weights."""
    weights = [group.weight for group in groups]
    return {"sample_weight": sum(weights) / len(weights), "effective_share": effective_share(weights)}
