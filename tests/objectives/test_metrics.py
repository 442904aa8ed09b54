"""What training tells about a group."""

import pytest
import torch

from metagdpo.objectives.advantages import advantages
from metagdpo.objectives.metrics import advantage_alignment, log_ratio_means, ordering_accuracy
from metagdpo.objectives.scores import GroupScores


def scores(ratios, rewards):
    ratios = torch.tensor(ratios, dtype=torch.float64)
    return GroupScores(ratios, torch.zeros_like(ratios), torch.tensor(rewards).double(), torch.ones(len(rewards)))


def test_ordering_accuracy_counts_untied_pairs():
    """Pairs (0,1) right, (0,2) right, (1,2) tied in reward, so left out."""
    assert ordering_accuracy(scores([3.0, 1.0, 2.0], [1.0, 0.0, 0.0])) == 1.0
    assert ordering_accuracy(scores([1.5, 1.0, 2.0], [1.0, 0.0, 0.0])) == 0.5


def test_ordering_accuracy_is_one_half_at_the_reference():
    assert ordering_accuracy(scores([0.0, 0.0, 0.0], [1.0, 0.5, 0.0])) == 0.5


def test_log_ratio_means_average_over_ties():
    found = log_ratio_means(scores([3.0, 1.0, 2.0], [1.0, 0.0, 0.0]))
    assert found == {"log_ratio_best": 3.0, "log_ratio_worst": 1.5, "log_ratio_group": 2.0}


def test_alignment_is_minus_the_gradient_times_the_advantage():
    rewards, slope = torch.tensor([1.0, 0.0, 0.5]).double(), torch.tensor([-0.2, 0.1, 0.05]).double()
    expected = -sum(float(g * a) for g, a in zip(slope, advantages(rewards), strict=True))
    assert advantage_alignment(slope, rewards) == pytest.approx(expected, abs=1e-15)
