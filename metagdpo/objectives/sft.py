"""Supervised fine-tuning on the best response of a group; needs no reference."""

from typing import Literal

from torch import Tensor

from metagdpo.objectives.scores import GroupLoss, GroupScores, no_preference
from metagdpo.schema import Frozen


def best_nll(scores: GroupScores) -> Tensor:
    """Mean over the best responses of their negative log-probability a token, nats."""
    per_token_G = -scores.log_probs_G / scores.lengths_G.clamp(min=1)
    return per_token_G[scores.best_G].mean()


class Sft(Frozen):
    """Imitate the best response, all of them equally where they tie."""

    kind: Literal["sft"] = "sft"

    def loss(self, scores: GroupScores) -> GroupLoss:
        """Mean-token NLL; zero for a degenerate group, so that every objective sees the same data."""
        if scores.degenerate:
            return no_preference(scores, 0)
        return GroupLoss(value=best_nll(scores), n_pairs=0, n_skipped=0)

    def coupling(self, rewards_G: Tensor) -> Tensor:
        """The diagonal of the best responses: the loss is linear in their log-probabilities, and blind to the others.

        Args:
            rewards_G: Rewards [G].

        Returns:
            bool [G, G].
        """
        best_G = (rewards_G == rewards_G.max()) & (rewards_G.max() != rewards_G.min())
        return best_G.diag()
