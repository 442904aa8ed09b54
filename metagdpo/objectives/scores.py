"""What an objective sees of a group, and what it gives back.

Shape legend of this package: G responses of one group, P pairs of responses, S scored texts.
Log-probabilities are sums over a response's tokens, in nats; no length normalisation (as in DPO).
"""

# ruff: noqa: N802, N815  (shape suffixes are upper case, see the legend)
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class GroupScores:
    """One group in numbers; every tensor has shape [G], in the order of the responses."""

    log_probs_G: Tensor
    """log pi_theta(y_i | q), nats; carries the gradient."""
    reference_G: Tensor
    """log pi_ref(y_i | q), nats; constant. Objectives without a reference ignore it."""
    rewards_G: Tensor
    """Higher is better."""
    lengths_G: Tensor
    """Scored tokens of each response."""

    @property
    def log_ratios_G(self) -> Tensor:
        """L_i = log(pi_theta / pi_ref)(y_i), nats."""
        return self.log_probs_G - self.reference_G

    @property
    def degenerate(self) -> bool:
        """All rewards are equal: the group prefers nothing."""
        return bool(self.rewards_G.max() == self.rewards_G.min())

    @property
    def best_G(self) -> Tensor:
        """Mask of the responses with the highest reward; several when they tie."""
        return self.rewards_G == self.rewards_G.max()

    @property
    def worst_G(self) -> Tensor:
        """Mask of the responses with the lowest reward; several when they tie."""
        return self.rewards_G == self.rewards_G.min()


@dataclass(frozen=True)
class GroupLoss:
    """The loss of one group."""

    value: Tensor
    """Scalar, lower is better; differentiable in `log_probs_G`."""
    n_pairs: int
    """Pairs of responses that were compared."""
    n_skipped: int
    """Pairs left out because their rewards are equal."""


def no_preference(scores: GroupScores, n_skipped: int) -> GroupLoss:
    """The loss of a degenerate group: zero, with a zero gradient."""
    return GroupLoss(value=(scores.log_probs_G * 0.0).sum(), n_pairs=0, n_skipped=n_skipped)
