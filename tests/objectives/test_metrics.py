"""What training tells about a group."""

import pytest
import torch

from metagdpo.objectives.advantages import advantages
from metagdpo.objectives.gdpo import Gdpo
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


def test_ordering_accuracy_is_one_half_where_nothing_is_preferred():
    assert ordering_accuracy(scores([3.0, 1.0], [0.5, 0.5])) == 0.5


def test_ordering_accuracy_does_not_see_weights():
    """L = A^3 stands in order, whatever a margin of L_i / A_i = A_i^2 would say."""
    rewards = [1.0, 0.8, 0.5, 0.3, 0.0]
    ordered = advantages(torch.tensor(rewards).double())
    assert ordering_accuracy(scores((ordered**3).tolist(), rewards)) == 1.0


def test_displacement_is_seen_in_the_means_and_not_in_the_order():
    """All log-ratios fall by 50 nats: the order stays perfect, the means tell."""
    found = scores([-49.0, -50.0, -51.0], [1.0, 0.5, 0.0])
    assert ordering_accuracy(found) == 1.0
    assert log_ratio_means(found) == {"log_ratio_best": -49.0, "log_ratio_worst": -51.0, "log_ratio_group": -50.0}


def test_log_ratio_means_average_over_ties():
    found = log_ratio_means(scores([3.0, 1.0, 2.0], [1.0, 0.0, 0.0]))
    assert found == {"log_ratio_best": 3.0, "log_ratio_worst": 1.5, "log_ratio_group": 2.0}


def test_alignment_is_minus_the_gradient_times_the_advantage():
    rewards, slope = torch.tensor([1.0, 0.0, 0.5]).double(), torch.tensor([-0.2, 0.1, 0.05]).double()
    expected = -sum(float(g * a) for g, a in zip(slope, advantages(rewards), strict=True))
    assert advantage_alignment(slope, rewards) == pytest.approx(expected, abs=1e-15)


def test_alignment_is_what_a_small_step_down_the_loss_adds_to_the_advantage_weighted_log_ratios():
    """sum A_i dL_i for dL = -step * gradient, a unit of step."""
    at = scores([0.3, -1.1, 0.7], [1.0, 0.6, 0.0])
    leaf = at.log_probs_G.requires_grad_()
    (slope,) = torch.autograd.grad(Gdpo().loss(at).value, leaf)
    step, A = 1e-3, advantages(at.rewards_G)
    moved = GroupScores(leaf.detach() - step * slope, at.reference_G, at.rewards_G, at.lengths_G)
    gained = float((A * (moved.log_ratios_G - at.log_ratios_G.detach())).sum()) / step
    assert advantage_alignment(slope, at.rewards_G) == pytest.approx(gained, rel=1e-9)


def test_nothing_aligns_with_a_group_that_prefers_nothing():
    assert advantage_alignment(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.5])) == 0.0
