"""FLOW's weights against their formula, and what they do to values and gradients of a step."""

import math
from dataclasses import replace

import pytest
import torch
from exact import exact_model, take_gradient
from hypothesis import given
from hypothesis import strategies as st

from metagdpo.errors import ConfigError
from metagdpo.objectives.dpo import Dpo
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.gvpo import Gvpo
from metagdpo.objectives.sft import Sft
from metagdpo.training.accumulate import backward_through, score_all
from metagdpo.training.collate import TokenSequence
from metagdpo.training.data import TrainGroup
from metagdpo.training.engine import _job
from metagdpo.training.lockstep import Job
from metagdpo.training.logprobs import Scorer
from metagdpo.training.sample_weights import effective_share, flow_weights, surprise, weight_groups, weight_values
from metagdpo.training.settings import Flow, TrainParams

SURPRISES = st.lists(st.floats(0.01, 20), min_size=1, max_size=12)


def a_group(references, lengths, rewards, masks=None):
    members = tuple(
        TokenSequence(f"q/{i}", (1, 2), tuple(range(5, 5 + n)), scored=None if masks is None else masks[i])
        for i, n in enumerate(lengths)
    )
    return TrainGroup(members, torch.tensor(rewards).double(), torch.tensor(references).double())


def test_surprise_is_nats_a_token_of_the_best_response():
    assert surprise(a_group([-6.0, -100.0], [3, 4], [1.0, 0.0])) == 6.0 / 3


def test_surprise_of_several_best_responses_is_their_mean():
    """(6/3 + 20/4) / 2: each counts the same, whatever its length."""
    assert surprise(a_group([-6.0, -20.0, -1.0], [3, 4, 2], [1.0, 1.0, 0.0])) == (6.0 / 3 + 20.0 / 4) / 2


def test_with_a_token_mask_it_is_over_what_is_learned():
    """Two of four tokens are scored, and the reference is over these."""
    mask = (True, False, True, False)
    assert surprise(a_group([-1.0, -9.0], [4, 4], [1.0, 0.0], [mask, None])) == 1.0 / 2


def test_the_median_group_weighs_one_over_e():
    assert flow_weights([1.0, 2.0, 40.0], "median") == [math.exp(-1 / 2), math.exp(-1), math.exp(-40 / 2)]


def test_an_even_number_has_its_median_midway():
    assert flow_weights([1.0, 3.0], "median") == [math.exp(-1.0 / 2), math.exp(-3.0 / 2)]


def test_a_given_tau_is_taken():
    assert flow_weights([1.0, 3.0], 0.5) == [math.exp(-2.0), math.exp(-6.0)]


@given(SURPRISES)
def test_what_surprises_more_weighs_less_and_never_more_than_one(surprises):
    weights = flow_weights(surprises, "median")
    assert sorted(weights, reverse=True) == [w for _, w in sorted(zip(surprises, weights, strict=True))]
    assert all(0 <= w <= 1 for w in weights)


@given(SURPRISES, st.floats(0.1, 10))
def test_with_the_median_the_unit_of_surprise_does_not_matter(surprises, unit):
    again = flow_weights([each * unit for each in surprises], "median")
    assert again == pytest.approx(flow_weights(surprises, "median"), rel=1e-9, abs=1e-12)


@given(SURPRISES)
def test_a_large_tau_counts_all_the_same(surprises):
    assert flow_weights(surprises, 1e9) == pytest.approx([1.0] * len(surprises), abs=1e-6)


def test_a_median_of_zero_is_no_scale():
    with pytest.raises(ConfigError, match=r"tau: median is 0.*Give tau in nats a token"):
        flow_weights([0.0, 0.0, 3.0], "median")


def test_a_tau_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"tau = 0.001 gives every group weight 0: the least surprising has 2 nats"):
        flow_weights([2.0, 3.0], 0.001)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=9))
def test_the_effective_share_lies_between_one_group_and_all(weights):
    assert 1 / len(weights) - 1e-9 <= effective_share(weights) <= 1 + 1e-9


def test_the_effective_share_of_k_equal_groups_among_n_is_k_over_n():
    assert effective_share([0.3, 0.3, 0.0, 0.0, 0.0]) == pytest.approx(2 / 5)
    assert effective_share([0.0, 0.0]) == 0.0


def test_groups_get_the_weight_of_their_surprise_and_nothing_else_changes():
    groups = [a_group([-2.0 * i, -100.0], [2, 4], [1.0, 0.0]) for i in (1, 2, 5)]
    found = weight_groups(groups, Flow())
    assert [group.weight for group in found] == [math.exp(-1 / 2), math.exp(-1), math.exp(-5 / 2)]
    assert [replace(group, weight=1.0).sequences for group in found] == [group.sequences for group in groups]


def test_what_is_reported_is_the_mean_and_the_effective_share():
    groups = [replace(a_group([-1.0, -1.0], [1, 1], [1.0, 0.0]), weight=w) for w in (0.5, 0.25)]
    expected = {"sample_weight": 0.75 / 2, "effective_share": 0.75**2 / (2 * (0.25 + 0.0625))}
    assert weight_values(groups) == pytest.approx(expected)


@pytest.mark.parametrize("objective", [Gdpo(), Dpo(), Gvpo(), Sft()], ids=lambda o: o.kind)
def test_the_gradient_is_the_weighted_sum_over_the_number_of_groups(tiny_model_dir, objective):
    """sum_i w_i grad L_i / n, for every objective, against each group by itself; not divided by sum_i w_i."""
    scorer = Scorer(exact_model(tiny_model_dir))
    groups = []
    for number, weight in enumerate((0.5, 0.125, 0.0)):
        members = tuple(TokenSequence(f"q{number}/{i}", (7, 8 + number), tuple(range(9, 12 + i))) for i in range(3))
        reference_G = score_all(scorer, members, token_budget=999) - torch.tensor([0.5, 0.0, 0.25])
        groups.append(TrainGroup(members, torch.tensor([2.0, 0.0, 1.0]).double(), reference_G, weight))
    params = TrainParams(learning_rate=1e-3, objective=objective)

    def gradient(job: Job):
        backward_through(scorer, job.sequences, job.loss, token_budget=999, coupling_SS=job.coupling_SS)
        return take_gradient(scorer.policy)

    alone = [gradient(_job([replace(group, weight=1.0)], params, 1)) for group in groups]
    together = gradient(_job(groups, params, len(groups)))
    torch.testing.assert_close(together, (0.5 * alone[0] + 0.125 * alone[1]) / 3, rtol=1e-9, atol=1e-12)
