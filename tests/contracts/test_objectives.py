"""What every objective promises, for every combination of its choices; a new one in the union needs no edit here."""

import typing
import warnings
from itertools import product

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
    """Every combination of named choices; and the default with each term that is off by default, as `nll` is, on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for kind in typing.get_args(typing.get_args(Objective)[0]):
            fields = kind.model_fields
            choices = [name for name in fields if typing.get_origin(fields[name].annotation) is typing.Literal]
            for chosen in product(*(typing.get_args(fields[name].annotation) for name in choices)):
                yield kind(**dict(zip(choices, chosen, strict=True)))
            yield from (kind(**{name: 0.3}) for name in fields if fields[name].default == 0.0)


def _name(objective):
    changed = {k: v for k, v in objective.model_dump().items() if v != type(objective).model_fields[k].default}
    return "-".join([objective.kind, *(f"{k}={v}" for k, v in changed.items())])


VARIANTS = {_name(objective): objective for objective in _variants()}
every_objective = pytest.mark.parametrize("objective", VARIANTS.values(), ids=VARIANTS.keys())


def scored(rewards, seed=None):
    """A group at the reference, or at a random point; the log-probabilities are a leaf."""
    generator = torch.Generator().manual_seed(seed or 0)
    n = len(rewards)
    reference = -20 - 10 * torch.rand(n, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64) * (seed is not None)
    lengths = torch.randint(1, 9, (n,), generator=generator)
    leaf = (reference + noise).requires_grad_()
    return GroupScores(leaf, reference, torch.tensor(rewards, dtype=torch.float64), lengths)


def at(scores, log_probs_G):
    return GroupScores(log_probs_G, scores.reference_G, scores.rewards_G, scores.lengths_G)


def value_and_gradient(objective, scores):
    value = objective.loss(scores).value
    return value.detach(), torch.autograd.grad(value, scores.log_probs_G)[0]


def random_rewards(seed):
    """2 to 6 rewards: even seeds draw from three levels, so that some tie or sit at the mean; odd ones never."""
    generator = torch.Generator().manual_seed(seed)
    n = 2 + seed % 5
    if seed % 2:
        return torch.rand(n, generator=generator, dtype=torch.float64).tolist()
    return (torch.randint(0, 3, (n,), generator=generator) / 2).tolist()


@every_objective
def test_loss_and_gradient_are_finite(objective):
    for rewards in GROUPS.values():
        value, gradient = value_and_gradient(objective, scored(rewards, seed=3))
        assert value.shape == ()
        assert bool(value.isfinite())
        assert bool(gradient.isfinite().all())


@every_objective
def test_extreme_log_ratios_stay_finite(objective):
    scores = scored(GROUPS["distinct"])
    far = torch.tensor([-4e4, 3e4, -2e4, 4e4, 0.0], dtype=torch.float64)
    value, gradient = value_and_gradient(objective, at(scores, (scores.log_probs_G.detach() + far).requires_grad_()))
    assert bool(value.isfinite())
    assert bool(gradient.isfinite().all())


@every_objective
def test_the_order_of_the_responses_does_not_matter(objective):
    """Not for the loss, and each response keeps its gradient and its couplings, equal rewards included."""
    for rewards in GROUPS.values():
        scores = scored(rewards, seed=5)
        value, gradient = value_and_gradient(objective, scores)
        coupled = objective.coupling(scores.rewards_G)
        order = torch.arange(len(rewards)).roll(1).flip(0)
        moved = GroupScores(
            scores.log_probs_G.detach()[order].requires_grad_(),
            scores.reference_G[order],
            scores.rewards_G[order],
            scores.lengths_G[order],
        )
        moved_value, moved_gradient = value_and_gradient(objective, moved)
        torch.testing.assert_close(moved_value, value, rtol=0, atol=1e-12)
        torch.testing.assert_close(moved_gradient, gradient[order], rtol=0, atol=1e-12)
        assert torch.equal(objective.coupling(moved.rewards_G), coupled[order][:, order])


@every_objective
def test_a_group_without_preference_contributes_zero(objective):
    """Zero loss, a zero gradient that is finite, no pair, and nothing coupled."""
    for rewards in ([0.1] * 4, [0.0, 0.0], [1.0]):
        scores = scored(rewards, seed=7)
        value, gradient = value_and_gradient(objective, scores)
        assert value.item() == 0.0
        assert torch.equal(gradient, torch.zeros(len(rewards), dtype=torch.float64))
        assert objective.loss(scores).n_pairs == 0
        assert not bool(objective.coupling(scores.rewards_G).any())


@every_objective
def test_a_step_raises_the_best_and_never_the_worst(objective):
    """At the reference. The literal weights of centred advantages raise the worst too: that is their known defect."""
    for rewards in GROUPS.values():
        scores = scored(rewards)
        _, gradient = value_and_gradient(objective, scores)
        best, worst = -gradient[scores.best_G].mean().item(), -gradient[scores.worst_G].mean().item()
        assert best > 0
        if getattr(objective, "weight", None) == "literal":
            assert worst <= 0 if objective.advantage == "raw" else worst > 0
        elif objective.kind == "sft":
            assert worst == 0
        else:
            assert worst < 0


@every_objective
def test_gradients_match_finite_differences(objective):
    for rewards in GROUPS.values():
        scores = scored(rewards, seed=11)
        assert torch.autograd.gradcheck(lambda x, s=scores: objective.loss(at(s, x)).value, (scores.log_probs_G,))


@every_objective
def test_coupling_says_exactly_what_each_gradient_depends_on(objective):
    """At random points it is True just where the Hessian beside the diagonal, and the gradient, are not zero."""
    for seed in range(1, 6):
        scores = scored(random_rewards(seed), seed=seed + 100)
        _, gradient = value_and_gradient(objective, scores)
        hessian = torch.autograd.functional.hessian(
            lambda x, s=scores: objective.loss(at(s, x)).value, scores.log_probs_G.detach()
        )
        coupled = objective.coupling(scores.rewards_G)
        beside = ~torch.eye(len(gradient), dtype=torch.bool)
        assert coupled.dtype == torch.bool
        assert torch.equal(coupled, coupled.T)
        assert torch.equal(coupled & beside, (hessian != 0) & beside)
        assert not bool(hessian[~coupled].any())
        assert torch.equal(coupled.diag(), gradient != 0)
