"""GDPO: pairs of an offline group, each response weighted by its advantage.

D_ij = w_i L_i - w_j L_j with L = log(pi_theta / pi_ref); the loss is minus the mean link of the margins. The printed
link is sigma, not log sigma. The term beta log Z (1/A_i - 1/A_j) is dropped as in the paper; that is exact only where
w_i = w_j. Two other methods are called GDPO as well: this is the Group Direct Preference Optimization of MetaGDPO.

Home of: Eq. 12 (MetaGDPO, all pairs), Eq. 13 (MetaGDPO appendix D.3, adjacent pairs)
"""

import functools
import warnings
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import logsigmoid

from metagdpo.objectives.advantages import ZERO, AdvantageKind, WeightKind, advantages, pair_factors, weights
from metagdpo.objectives.scores import GroupLoss, GroupScores, no_preference
from metagdpo.objectives.sft import best_nll
from metagdpo.schema import Frozen

PairKind = Literal["adjacent", "all", "pos_neg", "best_worst"]


def pairs(rewards_G: Tensor, kind: PairKind) -> tuple[Tensor, Tensor, Tensor]:
    """Index pairs (winner, loser) and the share of each in the mean over links; shares add up to 1.

    Equal rewards have no order, so they form no pair, and nothing here depends on how equals were sorted: `adjacent`
    links neighbouring reward *levels*, and one link is the mean over all member pairs of its two levels. Without ties
    that is Eq. 13.

    Args:
        rewards_G: Rewards [G].
        kind: `adjacent` Eq. 13; `all` Eq. 12; `pos_neg` above against below the group's mean; `best_worst`.

    Returns:
        winners_P, losers_P (int64) and shares_P (dtype of the rewards); empty for a degenerate group.
    """
    better_GG = rewards_G[:, None] > rewards_G[None, :]
    levels, level_G = rewards_G.unique(return_inverse=True)  # ascending
    links_GG = torch.zeros_like(level_G[:, None] * level_G[None, :])  # one number per link
    if kind == "adjacent":
        better_GG = level_G[:, None] == level_G[None, :] + 1
        links_GG = level_G[None, :].expand_as(links_GG)
    elif kind == "best_worst":
        top = len(levels) - 1
        better_GG &= (level_G == top)[:, None] & (level_G == 0)[None, :]
    elif kind == "pos_neg":
        centred_G = advantages(rewards_G)
        better_GG &= (centred_G > ZERO)[:, None] & (centred_G < -ZERO)[None, :]
    winners_P, losers_P = better_GG.nonzero(as_tuple=True)
    _, link_P, members = links_GG[winners_P, losers_P].unique(return_inverse=True, return_counts=True)
    shares_P = 1.0 / (members[link_P] * max(len(members), 1)).to(rewards_G.dtype)
    return winners_P, losers_P, shares_P


def tied_pairs(rewards_G: Tensor) -> int:
    """How many unordered pairs have equal rewards."""
    _, members = rewards_G.unique(return_counts=True)
    return int((members * (members - 1) // 2).sum())


def pair_coupling(winners_P: Tensor, losers_P: Tensor, size: int) -> Tensor:
    """Which responses meet in a pair, symmetric; the diagonal marks those that are in any.

    Args:
        winners_P: Index of the better response of each pair.
        losers_P: Index of the worse one.
        size: Responses of the group.

    Returns:
        bool [G, G].
    """
    meet_GG = torch.zeros(size, size, dtype=torch.bool, device=winners_P.device)
    meet_GG[winners_P, losers_P] = True
    meet_GG |= meet_GG.T.clone()
    return meet_GG | meet_GG.any(-1).diag()


def linked(margins_P: Tensor, link: Literal["sigmoid", "logsigmoid"]) -> Tensor:
    """The link of each margin: sigma (paper; bounded, saturates) or log sigma (DPO; keeps pulling on wrong pairs)."""
    return margins_P.sigmoid() if link == "sigmoid" else logsigmoid(margins_P)


class Gdpo(Frozen):
    """GDPO with every choice that the paper leaves open, and its ablations."""

    kind: Literal["gdpo"] = "gdpo"
    pairs: Literal["adjacent", "all", "pos_neg"] = "adjacent"
    """`adjacent` Eq. 13 (the paper's), `all` Eq. 12, `pos_neg` above against below the mean (binary rewards)."""
    link: Literal["sigmoid", "logsigmoid"] = "sigmoid"
    weight: WeightKind = "abs"
    """`literal` is the printed beta / A_i: blind to the direction of the advantage, for reproduction only."""
    advantage: AdvantageKind = "standardised"
    beta: float = Field(default=0.1, gt=0)
    """Strength of the reference, per nat."""
    clamp: float = Field(default=0.5, gt=0)
    """Smallest |A| that `abs` divides by; below 0.5 near-mean responses dominate."""
    nll: float = Field(default=0.0, ge=0)
    """Coefficient of the mean-token NLL of the best responses; 0 as in the paper."""

    @model_validator(mode="after")
    def _warn_literal(self) -> "Gdpo":
        if self.weight == "literal":
            _warn_of_literal()
        return self

    def loss(self, scores: GroupScores) -> GroupLoss:
        """Minus the mean link over the pairs, plus the optional NLL; zero for a degenerate group."""
        n_tied = tied_pairs(scores.rewards_G)
        winners_P, losers_P, shares_P = pairs(scores.rewards_G, self.pairs)
        if len(winners_P) == 0:
            return no_preference(scores, n_tied)
        advantages_G = advantages(scores.rewards_G, self.advantage)
        weighted_G = weights(advantages_G, self.weight, clamp=self.clamp, beta=self.beta) * scores.log_ratios_G
        margins_P = weighted_G[winners_P] - weighted_G[losers_P]  # D_ij
        if self.weight == "margin":
            shares_P = shares_P * pair_factors(advantages_G, winners_P, losers_P, shares_P)
        value = -(shares_P * linked(margins_P, self.link)).sum()  # Eq. 12, Eq. 13
        if self.nll > 0:
            value = value + self.nll * best_nll(scores)
        return GroupLoss(value=value, n_pairs=len(winners_P), n_skipped=n_tied)

    def coupling(self, rewards_G: Tensor) -> Tensor:
        """The responses that meet in a pair; the NLL is linear, so it adds only the diagonal of the best.

        Args:
            rewards_G: Rewards [G].

        Returns:
            bool [G, G]; `adjacent` without ties is a chain, with 2 (G - 1) entries beside the diagonal.
        """
        winners_P, losers_P, _ = pairs(rewards_G, self.pairs)
        meet_GG = pair_coupling(winners_P, losers_P, len(rewards_G))
        if len(winners_P) == 0:
            return meet_GG
        weights_G = weights(advantages(rewards_G, self.advantage), self.weight, clamp=self.clamp, beta=self.beta)
        heard_G = weights_G != 0  # `literal` gives a response at the mean no weight: no margin depends on it
        coupled_GG = meet_GG & heard_G[:, None] & heard_G[None, :]
        return coupled_GG | (rewards_G == rewards_G.max()).diag() if self.nll > 0 else coupled_GG


@functools.cache
def _warn_of_literal() -> None:
    """Warn once a process: parameters are validated in several places, and a user needs to be told once."""
    message = (
        "weight `literal` (beta / A_i as printed) is blind to the direction of the advantage and raises the worst "
        "response as much as the best; use it only to reproduce the print."
    )
    warnings.warn(message, UserWarning, stacklevel=2)
