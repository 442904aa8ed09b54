"""DPO against its formula."""

import math

import pytest
import torch

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


def test_best_worst_averages_over_ties():
    found = Dpo().loss(scores([0.5, 3.0, -1.0], [1.0, 1.0, 0.0]))
    assert found.value.item() == pytest.approx((nll(0.15) + nll(0.4)) / 2, abs=1e-14)
    assert (found.n_pairs, found.n_skipped) == (2, 1)


def test_all_averages_over_every_ordered_pair():
    found = Dpo(pairs="all").loss(scores([0.5, 3.0, -1.0], [1.0, 0.5, 0.0]))
    assert found.value.item() == pytest.approx((nll(-0.25) + nll(0.15) + nll(0.4)) / 3, abs=1e-14)
