"""DPO (arXiv 2305.18290) on an offline group: best against worst, or every pair. The baseline without advantages."""

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from metagdpo.objectives.gdpo import pair_coupling, pairs, tied_pairs
from metagdpo.objectives.scores import GroupLoss, GroupScores, no_preference
from metagdpo.schema import Frozen


class Dpo(Frozen):
    """Direct preference optimisation."""

    kind: Literal["dpo"] = "dpo"
    pairs: Literal["best_worst", "all"] = "best_worst"
    """With ties, `best_worst` averages over all pairs of a best and a worst response."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the reference, per nat."""

    def loss(self, scores: GroupScores) -> GroupLoss:
        """Mean of -log sigma(beta (L_i - L_j)) over the pairs; zero for a degenerate group."""
        n_tied = tied_pairs(scores.rewards_G)
        winners_P, losers_P, shares_P = pairs(scores.rewards_G, self.pairs)
        if len(winners_P) == 0:
            return no_preference(scores, n_tied)
        margins_P = self.beta * (scores.log_ratios_G[winners_P] - scores.log_ratios_G[losers_P])
        value = -(shares_P * logsigmoid(margins_P)).sum()  # DPO, Eq. 7
        return GroupLoss(value=value, n_pairs=len(winners_P), n_skipped=n_tied)

    def coupling(self, rewards_G: Tensor) -> Tensor:
        """The responses that meet in a pair.

        Args:
            rewards_G: Rewards [G].

        Returns:
            bool [G, G]; with `best_worst` everything between best and worst is False.
        """
        winners_P, losers_P, _ = pairs(rewards_G, self.pairs)
        return pair_coupling(winners_P, losers_P, len(rewards_G))
