"""GVPO against its formula and its known optimum.

With e_i = beta L_i - r_i, centred within the group, the loss is 1/2 sum e_i^2 / (n - 1). It is a parabola in L: its
gradient is beta e_i / (n - 1) (centring is a projection, so it acts once), and its Hessian, beta^2 / (n - 1) times
(I - 1 1^T / n), is positive except along (1, ..., 1). So its only minima are L = r / beta + constant: the log-ratios of
the KL-constrained reward maximiser pi ~ pi_ref exp(r / beta), where the constant is -log Z.
"""

import pytest
import torch

from metagdpo.objectives.gvpo import Gvpo
from metagdpo.objectives.scores import GroupScores

REWARDS = torch.tensor([1.0, 0.7, 0.1], dtype=torch.float64)
RATIOS = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)


def loss(ratios, beta=0.1):
    return Gvpo(beta=beta).loss(GroupScores(ratios, torch.zeros(3), REWARDS, torch.ones(3))).value


def test_it_is_the_variance_of_the_error():
    """1/2 sum ((beta L - mean) - (r - mean))^2 / (n - 1), written out."""
    error = [0.1 * float(x) - float(r) for x, r in zip(RATIOS, REWARDS, strict=True)]
    mean = sum(error) / 3
    expected = 0.5 * sum((e - mean) ** 2 for e in error) / 2
    assert loss(RATIOS).item() == pytest.approx(expected, abs=1e-14)


def test_its_gradient_is_the_centred_error():
    """beta e_i / (n - 1); it adds up to 0, so a step moves log-probability within the group."""
    leaf = RATIOS.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf), leaf)
    error = 0.1 * RATIOS - REWARDS
    torch.testing.assert_close(found, 0.1 * (error - error.mean()) / 2, rtol=0, atol=1e-15)


def test_its_optimum_is_the_reward_over_beta_up_to_a_constant():
    assert loss(REWARDS / 0.1 + 4.0).item() == pytest.approx(0.0, abs=1e-20)


def test_the_optimum_is_the_only_one():
    """The Hessian is beta^2 / (n - 1) (I - 1 1^T / n): eigenvalues 0, for the constant, and beta^2 / (n - 1) twice."""
    hessian = torch.autograd.functional.hessian(loss, RATIOS)
    expected = 0.1**2 / 2 * torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.eigvalsh(hessian), expected, rtol=0, atol=1e-15)


def test_one_newton_step_from_anywhere_reaches_it():
    """L - H^+ g = r / beta + constant."""
    leaf = RATIOS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf), leaf)
    reached = RATIOS - torch.linalg.pinv(torch.autograd.functional.hessian(loss, RATIOS), hermitian=True) @ slope
    offset = reached - REWARDS / 0.1
    torch.testing.assert_close(offset, offset.mean().expand(3), rtol=0, atol=1e-10)


def test_everything_is_coupled_through_the_mean():
    assert Gvpo().coupling(torch.tensor([1.0, 0.5, 0.5])).int().tolist() == [[1] * 3] * 3
