"""DPO against its formula.

Bradley-Terry with the implied reward beta L (the partition function cancels within a question): P(w beats l) =
sigma(beta (L_w - L_l)). Its negative log-likelihood is the loss: -logsigmoid(beta * delta), as TRL's DPOTrainer has it.
"""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from metagdpo.objectives.dpo import Dpo
from metagdpo.objectives.scores import GroupScores


def scores(ratios, rewards):
    ratios = torch.tensor(ratios, dtype=torch.float64)
    return GroupScores(
        ratios - 9, torch.full_like(ratios, -9.0), torch.tensor(rewards).double(), torch.ones(len(rewards))
    )


def nll(x):
    return math.log1p(math.exp(-x))


def test_best_worst_is_the_dpo_loss_of_that_pair():
    """-log sigma(beta (L_w - L_l))."""
    found = Dpo(beta=0.2).loss(scores([0.5, 3.0, -1.0], [1.0, 0.5, 0.0]))
    assert found.value.item() == pytest.approx(nll(0.2 * 1.5), abs=1e-14)
    assert found.n_pairs == 1


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_a_pair_has_the_value_and_gradient_of_the_reference_implementation(beta):
    """Value -logsigmoid(beta delta); gradient -+ beta sigma(-beta delta): strong where the pair stands wrongly."""
    chosen, rejected = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for won, lost in zip(chosen.tolist(), rejected.tolist(), strict=True):
        found = scores([won, lost], [1.0, 0.0])
        leaf = found.log_probs_G.requires_grad_()
        value = Dpo(beta=beta).loss(found).value
        delta = torch.tensor(won - lost, dtype=torch.float64)
        pull = beta * torch.sigmoid(-beta * delta)
        torch.testing.assert_close(value, -logsigmoid(beta * delta), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.autograd.grad(value, leaf)[0], torch.stack([-pull, pull]))


def test_the_loss_at_the_reference_is_log_two():
    """-log sigma(0), the first value that a training from the reference must show."""
    assert Dpo().loss(scores([0.0, 0.0, 0.0], [1.0, 0.5, 0.0])).value.item() == pytest.approx(math.log(2), abs=1e-15)


def test_best_worst_averages_over_ties():
    found = Dpo().loss(scores([0.5, 3.0, -1.0], [1.0, 1.0, 0.0]))
    assert found.value.item() == pytest.approx((nll(0.15) + nll(0.4)) / 2, abs=1e-14)
    assert (found.n_pairs, found.n_skipped) == (2, 1)


def test_all_averages_over_every_ordered_pair():
    found = Dpo(pairs="all").loss(scores([0.5, 3.0, -1.0], [1.0, 0.5, 0.0]))
    assert found.value.item() == pytest.approx((nll(-0.25) + nll(0.15) + nll(0.4)) / 3, abs=1e-14)


def test_equal_rewards_are_skipped_and_counted():
    found = Dpo(pairs="all").loss(scores([0.5, 3.0, -1.0], [0.1, 0.1, 0.1]))
    assert (found.value.item(), found.n_pairs, found.n_skipped) == (0.0, 0, 3)


def test_best_worst_couples_the_best_with_the_worst():
    """What lies between has no part in the loss, so not even its diagonal is set."""
    rewards = torch.tensor([1.0, 0.5, 0.0, 1.0])
    expected = [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]]
    assert Dpo().coupling(rewards).int().tolist() == expected


def test_all_couples_everything_but_equals():
    rewards = torch.tensor([1.0, 0.5, 0.5])
    assert Dpo(pairs="all").coupling(rewards).int().tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 1]]
