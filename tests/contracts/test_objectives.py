"""What every objective promises; a new one in the union is tested here without an edit."""

import typing
import warnings

import pytest
import torch

from metagdpo.objectives import Objective
from metagdpo.objectives.scores import GroupScores

GROUPS = {
    "distinct": [0.1, 1.4, 0.6, 0.9, 0.3],
    "ties": [1.0, 0.5, 0.5, 0.0, 1.0],
    "at the mean": [1.0, 0.5, 0.0],
    "binary": [1.0, 0.0],
    "one right": [1.0, 0.0, 0.0, 0.0],
}


def _variants():
    """Each objective with each single choice that its settings offer."""
    for kind in typing.get_args(typing.get_args(Objective)[0]):
        yield kind()
        for name, field in kind.model_fields.items():
            if name != "kind" and typing.get_origin(field.annotation) is typing.Literal:
                for value in typing.get_args(field.annotation):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", UserWarning)
                        yield kind(**{name: value})


def _name(objective):
    changed = {k: v for k, v in objective.model_dump().items() if v != type(objective).model_fields[k].default}
    return "-".join([objective.kind, *(f"{k}={v}" for k, v in changed.items())])


VARIANTS = {_name(objective): objective for objective in _variants()}
every_objective = pytest.mark.parametrize("objective", VARIANTS.values(), ids=VARIANTS.keys())
every_group = pytest.mark.parametrize("rewards", GROUPS.values(), ids=GROUPS.keys())


def scored(rewards, seed=None):
    generator = torch.Generator().manual_seed(seed or 0)
    n = len(rewards)
    reference = -20 - 10 * torch.rand(n, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64) * (seed is not None)
    lengths = torch.randint(1, 9, (n,), generator=generator)
    leaf = (reference + noise).requires_grad_()
    return GroupScores(leaf, reference, torch.tensor(rewards, dtype=torch.float64), lengths)


def value_and_gradient(objective, scores):
    value = objective.loss(scores).value
    return value.detach(), torch.autograd.grad(value, scores.log_probs_G)[0]


@every_objective
@every_group
def test_loss_and_gradient_are_finite(objective, rewards):
    value, gradient = value_and_gradient(objective, scored(rewards, seed=3))
    assert value.shape == ()
    assert bool(value.isfinite())
    assert bool(gradient.isfinite().all())


@every_objective
def test_extreme_log_ratios_stay_finite(objective):
    scores = scored(GROUPS["distinct"])
    far = torch.tensor([-4e4, 3e4, -2e4, 4e4, 0.0], dtype=torch.float64)
    moved = GroupScores((scores.log_probs_G.detach() + far).requires_grad_(), scores.reference_G, scores.rewards_G,
                        scores.lengths_G)  # fmt: skip
    value, gradient = value_and_gradient(objective, moved)
    assert bool(value.isfinite())
    assert bool(gradient.isfinite().all())


@every_objective
@every_group
def test_the_order_of_the_responses_does_not_matter(objective, rewards):
    """Neither for the loss nor for any response's gradient, equal rewards included."""
    scores = scored(rewards, seed=5)
    value, gradient = value_and_gradient(objective, scores)
    for shift in range(1, len(rewards)):
        order = torch.arange(len(rewards)).roll(shift).flip(0)
        moved = GroupScores(
            scores.log_probs_G.detach()[order].requires_grad_(),
            scores.reference_G[order],
            scores.rewards_G[order],
            scores.lengths_G[order],
        )
        moved_value, moved_gradient = value_and_gradient(objective, moved)
        torch.testing.assert_close(moved_value, value, rtol=0, atol=1e-12)
        torch.testing.assert_close(moved_gradient, gradient[order], rtol=0, atol=1e-12)


@every_objective
@pytest.mark.parametrize("rewards", [[0.1] * 4, [0.0, 0.0], [1.0]])
def test_a_group_without_preference_contributes_zero(objective, rewards):
    scores = scored(rewards, seed=7)
    value, gradient = value_and_gradient(objective, scores)
    assert value.item() == 0.0
    assert torch.equal(gradient, torch.zeros(len(rewards), dtype=torch.float64))
    assert objective.loss(scores).n_pairs == 0


@every_objective
@every_group
def test_a_step_raises_the_best_and_never_the_worst(objective, rewards):
    """At the reference. The literal weights raise the worst too: that is their known defect."""
    scores = scored(rewards)
    _, gradient = value_and_gradient(objective, scores)
    best, worst = -gradient[scores.best_G].mean().item(), -gradient[scores.worst_G].mean().item()
    assert best > 0
    if getattr(objective, "weight", None) == "literal":
        assert worst > 0
    elif objective.kind == "sft":
        assert worst == 0
    else:
        assert worst < 0


@every_objective
@every_group
def test_gradients_match_finite_differences(objective, rewards):
    scores = scored(rewards, seed=11)

    def loss(log_probs_G):
        return objective.loss(GroupScores(log_probs_G, scores.reference_G, scores.rewards_G, scores.lengths_G)).value

    assert torch.autograd.gradcheck(loss, (scores.log_probs_G,))
