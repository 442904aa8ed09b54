"""GDPO against written-out loops and closed forms (methods.md 4.3), all in float64.

Notation: L_i log-ratio, A_i advantage, w_i weight, D_ij = w_i L_i - w_j L_j, sigma(0) = 1/2, sigma'(0) = 1/4.
"""

import math
import warnings
from itertools import pairwise

import pytest
import torch

from metagdpo.objectives.advantages import advantages, weights
from metagdpo.objectives.gdpo import Gdpo, pairs, tied_pairs
from metagdpo.objectives.scores import GroupScores

REWARDS = [1.0, 0.8, 0.5, 0.3, 0.0]  # no ties; no advantage is 0
RATIOS = [0.3, -1.1, 0.7, 2.0, -0.4]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def gdpo(**settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Gdpo(**settings)


def scores_at(ratios, rewards=REWARDS):
    """Scores with log-ratios `ratios`; the log-probabilities are a leaf."""
    ratios, rewards = tensor(ratios), tensor(rewards)
    reference = torch.linspace(-30.0, -50.0, len(rewards), dtype=torch.float64)
    leaf = (reference + ratios).requires_grad_()
    return GroupScores(leaf, reference, rewards, torch.full((len(rewards),), 7))


def gradient(objective, scores):
    return torch.autograd.grad(objective.loss(scores).value, scores.log_probs_G)[0]


def sigma(x):
    return 1 / (1 + math.exp(-x))


LINKS = {"sigmoid": sigma, "logsigmoid": lambda x: -math.log1p(math.exp(-x))}


@pytest.mark.parametrize("link", ["sigmoid", "logsigmoid"])
@pytest.mark.parametrize("weight", ["literal", "abs", "none", "shift"])
def test_adjacent_is_equation_13(weight, link):
    """-1/(G-1) sum over i of link(D_{i,i+1}), responses sorted by advantage."""
    w = weights(advantages(tensor(REWARDS)), weight).tolist()
    margins = [w[i] * RATIOS[i] - w[j] * RATIOS[j] for i, j in pairwise(range(5))]
    expected = -sum(LINKS[link](d) for d in margins) / 4
    assert gdpo(weight=weight, link=link).loss(scores_at(RATIOS)).value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("link", ["sigmoid", "logsigmoid"])
@pytest.mark.parametrize("weight", ["literal", "abs", "none", "shift"])
def test_all_is_equation_12(weight, link):
    """-2/(G(G-1)) sum over i < j of link(D_ij)."""
    w = weights(advantages(tensor(REWARDS)), weight).tolist()
    margins = [w[i] * RATIOS[i] - w[j] * RATIOS[j] for i in range(5) for j in range(i + 1, 5)]
    expected = -2 / (5 * 4) * sum(LINKS[link](d) for d in margins)
    found = gdpo(weight=weight, link=link, pairs="all").loss(scores_at(RATIOS))
    assert found.value.item() == pytest.approx(expected, abs=1e-12)
    assert found.n_pairs == 10


def test_margin_weights_each_pair_by_its_advantage_gap():
    """Sum (A_i - A_j) link / sum (A_i - A_j)."""
    A = advantages(tensor(REWARDS)).tolist()
    chosen = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    gaps = [A[i] - A[j] for i, j in chosen]
    expected = -sum(g * sigma(0.1 * (RATIOS[i] - RATIOS[j])) for g, (i, j) in zip(gaps, chosen, strict=True)) / sum(
        gaps
    )
    found = gdpo(weight="margin", pairs="all").loss(scores_at(RATIOS)).value.item()
    assert found == pytest.approx(expected, abs=1e-12)


def test_margin_gradient_at_the_reference_is_parallel_to_the_advantage():
    """g_i = beta/4 sum_j (A_i - A_j) / sum of gaps = c G A_i, since the advantages add up to 0."""
    g = -gradient(gdpo(weight="margin", pairs="all"), scores_at([0.0] * 5))
    A = advantages(tensor(REWARDS))
    torch.testing.assert_close(g / g[0], A / A[0])


@pytest.mark.parametrize("weight", ["literal", "abs", "none", "shift", "margin"])
def test_the_loss_at_the_reference_is_minus_one_half_or_log_two(weight):
    """All margins are 0: -sigma(0) = -1/2 and -log sigma(0) = +ln 2, whatever the weights."""
    at_reference = scores_at([0.0] * 5)
    assert gdpo(weight=weight).loss(at_reference).value.item() == pytest.approx(-0.5, abs=1e-15)
    found = gdpo(weight=weight, link="logsigmoid").loss(at_reference).value.item()
    assert found == pytest.approx(math.log(2), abs=1e-15)


@pytest.mark.parametrize("weight", ["literal", "abs", "none", "shift"])
def test_chain_gradient_at_the_reference_touches_only_the_ends(weight):
    """Interior terms cancel: dL/dlog p_1 = -w_1 / (4 (G-1)), dL/dlog p_G = +w_G / (4 (G-1)), 0 between."""
    w = weights(advantages(tensor(REWARDS)), weight)
    expected = torch.zeros(5, dtype=torch.float64)
    expected[0], expected[4] = -w[0] / 16, w[4] / 16
    torch.testing.assert_close(gradient(gdpo(weight=weight), scores_at([0.0] * 5)), expected)


@pytest.mark.parametrize("weight", ["abs", "none"])
def test_two_responses_make_it_dpo_with_the_chosen_link(weight):
    """(i) With G = 2 the weights are equal, so D = beta (L_1 - L_2)."""
    found = gdpo(weight=weight, link="logsigmoid").loss(scores_at([0.6, -0.9], [1.0, 0.0])).value.item()
    assert found == pytest.approx(math.log1p(math.exp(-0.1 * (0.6 + 0.9))), abs=1e-14)


@pytest.mark.parametrize("pair_kind", ["adjacent", "all"])
def test_literal_cannot_see_a_move_along_the_advantage(pair_kind):
    """(ii) The loss depends on L_i / A_i - L_j / A_j alone, so L -> L + c A leaves it unchanged."""
    objective = gdpo(weight="literal", pairs=pair_kind)
    moved = (tensor(RATIOS) + 3.0 * advantages(tensor(REWARDS))).tolist()
    before, after = objective.loss(scores_at(RATIOS)).value.item(), objective.loss(scores_at(moved)).value.item()
    assert after == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("link", ["sigmoid", "logsigmoid"])
@pytest.mark.parametrize("pair_kind", ["adjacent", "all"])
def test_literal_gradient_is_orthogonal_to_the_advantage_everywhere(pair_kind, link):
    """g_i = (beta / A_i) h_i with sum h_i = 0, so <g, A> = beta sum h_i = 0 at every theta; `none` moves along A."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        rewards = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        ratios = (3 * torch.randn(6, generator=generator, dtype=torch.float64)).tolist()
        A = advantages(tensor(rewards))
        literal = -gradient(gdpo(weight="literal", pairs=pair_kind, link=link), scores_at(ratios, rewards))
        plain = -gradient(gdpo(weight="none", pairs=pair_kind, link=link), scores_at(ratios, rewards))
        assert float(literal @ A) == pytest.approx(0.0, abs=1e-12)
        assert float(plain @ A) > 0


def test_literal_on_one_right_and_one_wrong_answer_raises_both():
    """A = (+1, -1), so D = beta (L_1 + L_2): the step is +beta/4 on both, with no preference."""
    step = -gradient(gdpo(weight="literal"), scores_at([0.0, 0.0], [1.0, 0.0]))
    torch.testing.assert_close(step, tensor([0.025, 0.025]))


def test_literal_on_one_right_of_four_raises_the_wrong_ones():
    """A = (sqrt 3, -1/sqrt 3 three times): g_1 = beta / (4 sqrt 3), each wrong one + sqrt 3 beta / (4 * 3)."""
    step = -gradient(gdpo(weight="literal", pairs="all"), scores_at([0.0] * 4, [1.0, 0.0, 0.0, 0.0]))
    wrong = 0.1 * math.sqrt(3) / 12
    torch.testing.assert_close(step, tensor([0.1 / (4 * math.sqrt(3)), wrong, wrong, wrong]))


def test_default_weights_on_one_right_of_four_raise_it_and_lower_the_others():
    """|A| = (sqrt 3, 1/sqrt 3): w is proportional to (1, 3, 3, 3), scaled to mean beta: (0.04, 0.12, 0.12, 0.12)."""
    step = -gradient(gdpo(), scores_at([0.0] * 4, [1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(step, tensor([0.04 / 4, -0.12 / 12, -0.12 / 12, -0.12 / 12]))


def test_no_weights_cannot_see_a_common_shift():
    """(ii) `none` depends on L_i - L_j alone, so L -> L + c leaves it unchanged."""
    moved = [ratio + 5.0 for ratio in RATIOS]
    before, after = (gdpo(weight="none").loss(scores_at(ratios)).value.item() for ratios in (RATIOS, moved))
    assert after == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize(
    ("weight", "worst_rises"), [("abs", False), ("none", False), ("shift", False), ("literal", True)]
)
def test_one_step_on_a_tabular_softmax(weight, worst_rises):
    """(iii) Best rises and worst falls; literal raises both, and takes it from the middle."""
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    reference = torch.full((5,), -math.log(5), dtype=torch.float64)
    scores = GroupScores(logits.log_softmax(0), reference, tensor(REWARDS), torch.ones(5))
    gdpo(weight=weight).loss(scores).value.backward()
    after = (logits.detach() - logits.grad).softmax(0)
    assert after[0].item() > 0.2
    assert (after[4].item() > 0.2) == worst_rises


@pytest.mark.parametrize("pair_kind", ["adjacent", "all", "pos_neg"])
def test_two_responses_form_the_same_pair_in_every_kind(pair_kind):
    """(vi) With G = 2 the chain is all pairs."""
    winners, losers, shares = pairs(tensor([0.2, 0.9]), pair_kind)
    assert (winners.tolist(), losers.tolist(), shares.tolist()) == ([1], [0], [1.0])


def test_adjacent_levels_are_one_link_each_however_many_members_they_have():
    """Rewards 2, 1, 1, 0: two links; each is the mean over its two member pairs."""
    winners, losers, shares = pairs(tensor([2.0, 1.0, 1.0, 0.0]), "adjacent")
    found = {(i, j): s for i, j, s in zip(winners.tolist(), losers.tolist(), shares.tolist(), strict=True)}
    assert found == {(0, 1): 0.25, (0, 2): 0.25, (1, 3): 0.25, (2, 3): 0.25}


def test_pos_neg_leaves_out_responses_at_the_mean():
    winners, losers, _ = pairs(tensor([1.0, 0.5, 0.0]), "pos_neg")
    assert (winners.tolist(), losers.tolist()) == ([0], [2])


def test_tied_pairs_are_counted():
    assert tied_pairs(tensor([1.0, 0.0, 0.0, 0.0, 1.0])) == 4
    assert gdpo().loss(scores_at(RATIOS, [1.0, 0.0, 0.0, 0.0, 1.0])).n_skipped == 4


def test_nll_adds_the_mean_token_nll_of_the_best():
    scores = scores_at(RATIOS)
    expected = gdpo().loss(scores).value + 0.3 * (-scores.log_probs_G[0] / 7)
    torch.testing.assert_close(gdpo(nll=0.3).loss(scores).value, expected)


def test_literal_warns_when_it_is_chosen():
    with pytest.warns(UserWarning, match="blind to the direction of the advantage"):
        Gdpo(weight="literal")
