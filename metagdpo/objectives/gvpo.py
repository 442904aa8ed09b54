"""GVPO (arXiv 2504.19599): regress centred log-ratios on centred rewards; it has a unique finite optimum."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from metagdpo.objectives.advantages import advantages
from metagdpo.objectives.scores import GroupLoss, GroupScores, no_preference
from metagdpo.schema import Frozen


class Gvpo(Frozen):
    """Group variance policy optimisation."""

    kind: Literal["gvpo"] = "gvpo"
    beta: float = Field(default=0.1, gt=0)
    """Strength of the reference, per nat; the optimum is L = r / beta + constant."""

    def loss(self, scores: GroupScores) -> GroupLoss:
        """1/2 sum [(beta L_i - mean) - (r_i - mean)]^2 / (G - 1); zero for a degenerate group."""
        if scores.degenerate:
            return no_preference(scores, 0)
        implied_G = self.beta * scores.log_ratios_G
        error_G = implied_G - implied_G.mean() - advantages(scores.rewards_G, "centred")
        value = 0.5 * (error_G**2).sum() / (len(error_G) - 1)
        return GroupLoss(value=value, n_pairs=0, n_skipped=0)

    def coupling(self, rewards_G: Tensor) -> Tensor:
        """Every response with every other, through the group's mean; nothing for a degenerate group.

        Args:
            rewards_G: Rewards [G].

        Returns:
            bool [G, G].
        """
        return (rewards_G.max() != rewards_G.min()).expand(len(rewards_G), len(rewards_G)).clone()
