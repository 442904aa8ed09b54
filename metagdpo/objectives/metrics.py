"""What training tells about one group, on unweighted log-ratios so that objectives can be compared."""

from torch import Tensor

from metagdpo.objectives.advantages import advantages
from metagdpo.objectives.gdpo import pairs
from metagdpo.objectives.scores import GroupScores


def ordering_accuracy(scores: GroupScores) -> float:
    """Share of untied pairs whose log-ratios stand in the order of their rewards; equal log-ratios count half.

    0.5 at the reference and for a degenerate group.
    """
    winners_P, losers_P, _ = pairs(scores.rewards_G, "all")
    if len(winners_P) == 0:
        return 0.5
    gaps_P = (scores.log_ratios_G[winners_P] - scores.log_ratios_G[losers_P]).detach()
    return float(((gaps_P.sign() + 1) / 2).mean())


def log_ratio_means(scores: GroupScores) -> dict[str, float]:
    """Mean L of the best, the worst and all responses, nats; all falling together is likelihood displacement."""
    ratios_G = scores.log_ratios_G.detach()
    return {
        "log_ratio_best": float(ratios_G[scores.best_G].mean()),
        "log_ratio_worst": float(ratios_G[scores.worst_G].mean()),
        "log_ratio_group": float(ratios_G.mean()),
    }


def advantage_alignment(gradient_G: Tensor, rewards_G: Tensor) -> float:
    """Sum of A_i dL_i for a small step down the loss, in log-probability space; positive moves along the advantage.

    With literal weights 0 at every theta, unless a response sits exactly at the mean or there is an NLL term.

    Args:
        gradient_G: Derivative of the group's loss by each log-probability.
        rewards_G: Rewards [G].
    """
    return float(-(gradient_G * advantages(rewards_G)).sum())
