"""Scores of a group."""

import torch

from metagdpo.objectives.scores import GroupScores


def test_best_and_worst_are_masks_with_ties():
    scores = GroupScores(torch.zeros(3), torch.ones(3), torch.tensor([1.0, 0.0, 1.0]), torch.ones(3))
    assert scores.best_G.tolist() == [True, False, True]
    assert scores.worst_G.tolist() == [False, True, False]
    assert scores.log_ratios_G.tolist() == [-1.0, -1.0, -1.0]
    assert not scores.degenerate
