"""The advantage and its weights."""

import pytest
import torch

from metagdpo.objectives.advantages import advantages, group_advantages, pair_factors, weights

REWARDS = torch.tensor([1.0, 0.8, 0.5, 0.3, 0.0], dtype=torch.float64)


def test_standardised_is_the_formula():
    """A_i = (r_i - mean) / population std (Eq. 3)."""
    mean = sum(REWARDS) / 5
    std = (sum((r - mean) ** 2 for r in REWARDS) / 5) ** 0.5
    torch.testing.assert_close(advantages(REWARDS), torch.stack([(r - mean) / std for r in REWARDS]))


def test_centred_and_raw_leave_out_the_division_and_the_mean():
    torch.testing.assert_close(advantages(REWARDS, "centred"), REWARDS - REWARDS.mean())
    torch.testing.assert_close(advantages(REWARDS, "raw"), REWARDS)


@pytest.mark.parametrize("kind", ["standardised", "centred", "raw"])
def test_equal_rewards_have_zero_advantage(kind):
    """Also where the mean of equal numbers is not that number, as for 0.1."""
    assert torch.equal(advantages(torch.full((3,), 0.1), kind), torch.zeros(3))


def test_group_advantages_work_on_plain_numbers():
    assert group_advantages([1.0, 0.0]) == (1.0, -1.0)
    assert group_advantages([0.5, 0.5, 0.5]) == (0.0, 0.0, 0.0)
    assert group_advantages([1.0]) == (0.0,)


@pytest.mark.parametrize("kind", ["abs", "none", "shift", "margin"])
def test_weights_have_mean_beta(kind):
    """So that a learning rate means the same with and without weights."""
    assert weights(advantages(REWARDS), kind, beta=0.2).mean().item() == pytest.approx(0.2, abs=1e-15)


def test_abs_is_inverse_to_the_clamped_advantage():
    """w_i / w_j = max(|A_j|, c) / max(|A_i|, c)."""
    A, w = advantages(REWARDS), weights(advantages(REWARDS), "abs", clamp=0.5)
    torch.testing.assert_close(w * A.abs().clamp(min=0.5), (w * A.abs().clamp(min=0.5))[:1].expand(5))


def test_shift_weighs_the_worst_most_and_stays_positive():
    w = weights(advantages(REWARDS), "shift")
    assert bool((w > 0).all())
    assert int(w.argmax()) == int(REWARDS.argmin())


def test_literal_is_the_printed_signed_quotient():
    A = advantages(REWARDS[[0, 1, 4]])
    torch.testing.assert_close(weights(A, "literal", beta=0.1), 0.1 / A)


def test_literal_gives_no_weight_at_the_mean_where_it_is_undefined():
    A = advantages(torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))
    assert weights(A, "literal")[1].item() == 0.0


def test_pair_factors_have_mean_one_over_the_links():
    winners, losers = torch.tensor([0, 1]), torch.tensor([1, 2])
    shares = torch.tensor([0.5, 0.5], dtype=torch.float64)
    A = torch.tensor([2.0, 1.0, -3.0], dtype=torch.float64)
    torch.testing.assert_close(pair_factors(A, winners, losers, shares), torch.tensor([1.0, 4.0]).double() / 2.5)
