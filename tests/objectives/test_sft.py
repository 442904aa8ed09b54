"""SFT on the best response: -log p / n, so d loss / d log p = -1 / n there and 0 elsewhere."""

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


def test_its_gradient_is_minus_one_over_the_tokens_of_the_best():
    """Tied best responses share it: -1 / (2 n_i) each. The reference has no part in it."""
    for rewards, expected in (([0.0, 1.0, 0.5], [0.0, -1 / 4, 0.0]), ([1.0, 1.0, 0.0], [-1 / 6, -1 / 8, 0.0])):
        leaf = torch.tensor([-6.0, -8.0, -1.0], dtype=torch.float64, requires_grad=True)
        scores = GroupScores(leaf, torch.randn(3), torch.tensor(rewards), torch.tensor([3, 4, 9]))
        (found,) = torch.autograd.grad(Sft().loss(scores).value, leaf)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)


def test_only_the_best_matter_and_nothing_is_coupled():
    assert Sft().coupling(torch.tensor([1.0, 0.5, 1.0])).int().tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
