"""The advantage, and the one policy for its signs, zeros and ties.

The printed GDPO weight beta / A_i is signed, and that makes the loss blind to the advantage: with g_i = w_i h_i (h_i =
link derivatives of the pairs that i wins minus those that it loses, so sum h_i = 0), sum g_i A_i = beta sum h_i = 0 at
every theta, as long as no response sits exactly at the mean, where the formula is undefined. It also raises the worst
response about as much as the best, and explodes near A_i = 0. Hence the default `abs` with a clamp; `literal` stays
selectable to reproduce the print. The proofs run in tests/objectives/test_gdpo.py.

Home of: Eq. 3 (MetaGDPO, arXiv 2511.12113: the group-relative advantage)
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

AdvantageKind = Literal["standardised", "centred", "raw"]
WeightKind = Literal["literal", "abs", "none", "shift", "margin"]

ZERO = 1e-6
"""An advantage this near to 0 is rounding: its sign would depend on the order of a sum."""


def advantages(rewards_G: Tensor, kind: AdvantageKind = "standardised") -> Tensor:
    """A_i of each response; zeros where all rewards are equal.

    Args:
        rewards_G: Rewards [G], higher is better.
        kind: `standardised` (r - mean) / population std, Eq. 3; `centred` r - mean (Dr. GRPO); `raw` r itself.
    """
    if bool(rewards_G.max() == rewards_G.min()):
        return torch.zeros_like(rewards_G)
    if kind == "raw":
        return rewards_G
    centred_G = rewards_G - rewards_G.mean()
    if kind == "centred":
        return centred_G
    return centred_G / rewards_G.std(correction=0)  # Eq. 3


def group_advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """Eq. 3 on plain numbers, in float64.

    Example:
        >>> group_advantages([1.0, 0.0])
        (1.0, -1.0)
    """
    return tuple(advantages(torch.tensor(rewards, dtype=torch.float64)).tolist())


def weights(advantages_G: Tensor, kind: WeightKind = "abs", *, clamp: float = 0.5, beta: float = 0.1) -> Tensor:
    """w_i, the factor in front of L_i in a margin.

    `abs` and `shift` are scaled to a mean of beta, so that a learning rate means the same with every kind. `literal` is
    beta / A_i as printed, guarded only against division by zero: a response at the mean, where the formula is
    undefined, gets 0.

    Args:
        advantages_G: Advantages [G].
        kind: `literal` beta / A; `abs` beta / max(|A|, clamp); `none` beta (the paper's ablation GDPO-A);
            `shift` beta / (A - min A + 1); `margin` beta (the weight sits on the pair, see `pair_factors`).
        clamp: Smallest |A| that `abs` divides by.
        beta: Strength of the reference, per nat.
    """
    if kind == "literal":
        at_mean_G = advantages_G.abs() <= ZERO
        return torch.where(at_mean_G, 0.0, beta / torch.where(at_mean_G, 1.0, advantages_G))
    if kind == "abs":
        inverse_G = 1.0 / advantages_G.abs().clamp(min=clamp)
    elif kind == "shift":
        inverse_G = 1.0 / (advantages_G - advantages_G.min() + 1.0)
    else:
        inverse_G = torch.ones_like(advantages_G)
    return beta * inverse_G / inverse_G.mean()


def pair_factors(advantages_G: Tensor, winners_P: Tensor, losers_P: Tensor, shares_P: Tensor) -> Tensor:
    """A_i - A_j of each pair, scaled to a mean of 1 over the links.

    With all pairs the gradient at the reference is then exactly parallel to A.

    Args:
        advantages_G: Advantages [G].
        winners_P: Index of the better response of each pair.
        losers_P: Index of the worse one.
        shares_P: Share of each pair in the mean over links; they add up to 1.
    """
    gaps_P = advantages_G[winners_P] - advantages_G[losers_P]
    return gaps_P / (shares_P * gaps_P).sum()
