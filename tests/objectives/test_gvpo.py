"""GVPO against its formula and its known optimum."""

import pytest
import torch

from metagdpo.objectives.gvpo import Gvpo
from metagdpo.objectives.scores import GroupScores

REWARDS = torch.tensor([1.0, 0.7, 0.1], dtype=torch.float64)


def test_it_is_the_variance_of_the_error():
    """1/2 sum ((beta L - mean) - (r - mean))^2 / (n - 1), written out."""
    ratios = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)
    error = [0.1 * float(x) - float(r) for x, r in zip(ratios, REWARDS, strict=True)]
    mean = sum(error) / 3
    expected = 0.5 * sum((e - mean) ** 2 for e in error) / 2
    found = Gvpo().loss(GroupScores(ratios, torch.zeros(3), REWARDS, torch.ones(3)))
    assert found.value.item() == pytest.approx(expected, abs=1e-14)


def test_its_optimum_is_the_reward_over_beta_up_to_a_constant():
    scores = GroupScores(REWARDS / 0.1 + 4.0, torch.zeros(3), REWARDS, torch.ones(3))
    assert Gvpo().loss(scores).value.item() == pytest.approx(0.0, abs=1e-20)
