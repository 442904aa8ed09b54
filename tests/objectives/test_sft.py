"""SFT on the best response."""

import torch

from metagdpo.objectives.scores import GroupScores
from metagdpo.objectives.sft import Sft


def test_it_is_the_mean_token_nll_of_the_best_response():
    scores = GroupScores(torch.tensor([-6.0, -8.0]), torch.zeros(2), torch.tensor([0.0, 1.0]), torch.tensor([3, 4]))
    assert Sft().loss(scores).value.item() == 8.0 / 4


def test_tied_best_responses_count_equally_whatever_their_length():
    scores = GroupScores(
        torch.tensor([-6.0, -8.0, -1.0]), torch.zeros(3), torch.tensor([1.0, 1.0, 0.0]), torch.tensor([3, 2, 1])
    )
    assert Sft().loss(scores).value.item() == (6 / 3 + 8 / 2) / 2


def test_an_empty_response_is_no_division_by_zero():
    scores = GroupScores(torch.tensor([0.0, -8.0]), torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0, 2]))
    assert Sft().loss(scores).value.item() == 0.0
