"""One pass, two passes, shared rows or not: the same gradient."""

import random

import pytest
import torch

from metagdpo.models.load import load_model
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.scores import GroupScores
from metagdpo.training.accumulate import backward_through
from metagdpo.training.collate import TokenSequence


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return load_model(tiny_model_dir, "float32").double()


@pytest.fixture(scope="module")
def group():
    draw = random.Random(4)
    prompt = tuple(draw.randrange(250) for _ in range(9))
    return [TokenSequence(str(i), prompt, tuple(draw.randrange(250) for _ in range(3 + i))) for i in range(6)]


def loss(log_probs_S):
    reference = torch.linspace(-30, -60, 6, dtype=torch.float64)
    rewards = torch.tensor([0.0, 1.5, 1.0, 0.5, 1.0, 0.2], dtype=torch.float64)
    return Gdpo(pairs="all").loss(GroupScores(log_probs_S, reference, rewards, torch.ones(6))).value


def run(model, group, **settings):
    model.zero_grad(set_to_none=True)
    scored = backward_through(model, group, loss, **settings)
    return scored, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(("budget", "shared"), [(1000, True), (20, False), (24, True), (1, True)])
def test_a_small_budget_changes_nothing(model, group, budget, shared):
    """Single pass with plain rows against two passes and shared rows, up to transformers' float32 norm."""
    expected, expected_gradient = run(model, group, token_budget=10_000, shared_prompt=False)
    found, gradient = run(model, group, token_budget=budget, shared_prompt=shared)
    torch.testing.assert_close(found.log_probs_S, expected.log_probs_S, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.gradient_S, expected.gradient_S, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6 * float(expected_gradient.abs().max()))


def test_the_gradient_is_that_of_the_loss_on_the_scores(model, group):
    scored, _ = run(model, group, token_budget=10_000, shared_prompt=True)
    leaf = scored.log_probs_S.clone().requires_grad_()
    torch.testing.assert_close(scored.gradient_S, torch.autograd.grad(loss(leaf), leaf)[0])
