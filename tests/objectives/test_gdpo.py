"""GDPO against written-out loops and closed forms, all in float64.

Notation: L_i log-ratio, A_i advantage, w_i weight, D_ij = w_i L_i - w_j L_j, sigma(0) = 1/2, sigma'(0) = 1/4; h_i the
link derivatives of the pairs that i wins minus those that it loses. One pair adds link'(D_ij) to h_i and takes it from
h_j, so sum h_i = 0; and -d loss / d log p_i = w_i h_i.
"""

import math
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metagdpo.objectives.advantages import advantages, weights
from metagdpo.objectives.dpo import Dpo
from metagdpo.objectives.gdpo import Gdpo, _warn_of_literal, pairs, tied_pairs
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


@pytest.mark.parametrize("link", ["sigmoid", "logsigmoid"])
@pytest.mark.parametrize("weight", ["abs", "none"])
def test_two_responses_make_it_dpo_with_the_chosen_link(weight, link):
    """(i) With G = 2, A = (1, -1), so both weights are beta and D = beta (L_1 - L_2), the DPO margin."""
    found = gdpo(weight=weight, link=link).loss(scores_at([0.6, -0.9], [1.0, 0.0])).value.item()
    assert found == pytest.approx(-LINKS[link](0.1 * (0.6 + 0.9)), abs=1e-14)


def test_unweighted_all_pairs_with_dpos_link_is_dpo_on_all_pairs():
    """w_i = beta makes D_ij = beta (L_i - L_j), whatever the group size."""
    ours, dpo = gdpo(weight="none", link="logsigmoid", pairs="all"), Dpo(pairs="all")
    torch.testing.assert_close(ours.loss(scores_at(RATIOS)).value, dpo.loss(scores_at(RATIOS)).value)


@pytest.mark.parametrize("link", ["sigmoid", "logsigmoid"])
@pytest.mark.parametrize("pair_kind", ["adjacent", "all", "pos_neg"])
def test_literal_cannot_see_a_move_along_the_advantage(pair_kind, link):
    """(ii) D_ij = beta (L_i / A_i - L_j / A_j), and L -> L + c A adds c - c, so the loss is the same for every c.

    The whole family pi ~ pi_ref exp(c A), in which the best policy lies, is as good to it as the untrained model.
    """
    objective = gdpo(weight="literal", pairs=pair_kind, link=link)
    before = objective.loss(scores_at(RATIOS)).value.item()
    for c in (-20.0, 0.5, 3.0):
        moved = (tensor(RATIOS) + c * advantages(tensor(REWARDS))).tolist()
        assert objective.loss(scores_at(moved)).value.item() == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("link", ["sigmoid", "logsigmoid"])
@pytest.mark.parametrize("pair_kind", ["adjacent", "all", "pos_neg"])
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


@pytest.mark.parametrize("pair_kind", ["adjacent", "all"])
def test_a_response_at_the_mean_is_all_that_literal_can_see(pair_kind):
    """beta / 0 is undefined; with weight 0 for that response m the sum misses one term: <g, A> = -beta h_m.

    h_m is link'(D_m3) - link'(D_1m) over the number of pairs, with D_1m = beta L_1 / A_1 and D_m3 = -beta L_3 / A_3.
    """
    ratios, rewards = [2.0, 5.0, -7.0], [1.0, 0.5, 0.0]
    objective = gdpo(weight="literal", pairs=pair_kind)
    A = advantages(tensor(rewards))
    slope = [sigma(d) * sigma(-d) for d in (0.1 * 2.0 / A[0].item(), 0.1 * 7.0 / A[2].item())]
    h_m = (slope[1] - slope[0]) / (2 if pair_kind == "adjacent" else 3)
    assert float(-gradient(objective, scores_at(ratios, rewards)) @ A) == pytest.approx(-0.1 * h_m, abs=1e-15)


def test_literal_on_one_right_and_one_wrong_answer_raises_both():
    """A = (+1, -1), so D = beta (L_1 + L_2): the step is +beta/4 on both, with no preference."""
    step = -gradient(gdpo(weight="literal"), scores_at([0.0, 0.0], [1.0, 0.0]))
    torch.testing.assert_close(step, tensor([0.025, 0.025]))


def test_literal_on_one_right_of_four_raises_the_wrong_ones():
    """A = (sqrt 3, -1/sqrt 3 three times): g_1 = beta / (4 sqrt 3), each wrong one sqrt 3 beta / (4 * 3): the same."""
    step = -gradient(gdpo(weight="literal", pairs="all"), scores_at([0.0] * 4, [1.0, 0.0, 0.0, 0.0]))
    wrong = 0.1 * math.sqrt(3) / 12
    torch.testing.assert_close(step, tensor([0.1 / (4 * math.sqrt(3)), wrong, wrong, wrong]))


def test_default_weights_on_one_right_of_four_raise_it_and_lower_the_others():
    """|A| = (sqrt 3, 1/sqrt 3): w is proportional to (1, 3, 3, 3), scaled to mean beta: (0.04, 0.12, 0.12, 0.12)."""
    step = -gradient(gdpo(), scores_at([0.0] * 4, [1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(step, tensor([0.04 / 4, -0.12 / 12, -0.12 / 12, -0.12 / 12]))


def test_no_weights_cannot_see_a_common_shift():
    """(ii) `none` depends on L_i - L_j alone, so L -> L + c leaves it unchanged: displacement goes unseen."""
    moved = [ratio + 5.0 for ratio in RATIOS]
    before, after = (gdpo(weight="none").loss(scores_at(ratios)).value.item() for ratios in (RATIOS, moved))
    assert after == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("link", ["sigmoid", "logsigmoid"])
@pytest.mark.parametrize("weight", ["abs", "none", "shift"])
@pytest.mark.parametrize("pair_kind", ["adjacent", "all", "pos_neg"])
def test_positive_weights_never_step_against_the_advantage(pair_kind, weight, link):
    """<g, A> = sum over pairs of link'(D_ij) (w_i A_i - w_j A_j), and w A rises with A for each of these weights.

    abs: A / max(|A|, c) is sign(A) outside the clamp and A / c inside; shift: A / (A - min + 1) has the slope
    (1 - min) / (...)^2 > 0. So no term is negative, at any theta.
    """
    generator = torch.Generator().manual_seed(2)
    for _ in range(10):
        rewards = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        ratios = (3 * torch.randn(6, generator=generator, dtype=torch.float64)).tolist()
        step = -gradient(gdpo(weight=weight, pairs=pair_kind, link=link), scores_at(ratios, rewards))
        assert float(step @ advantages(tensor(rewards))) > 0


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


@pytest.mark.parametrize("weight", ["literal", "abs", "none", "shift", "margin"])
def test_two_responses_have_the_same_loss_as_a_chain_and_as_all_pairs(weight):
    """(vi) Eq. 12 and Eq. 13 have one and the same term."""
    chain, every = (
        gdpo(weight=weight, pairs=kind).loss(scores_at([0.6, -0.9], [1.0, 0.0])) for kind in ("adjacent", "all")
    )
    assert chain.value.item() == every.value.item()


@pytest.mark.parametrize("pair_kind", ["adjacent", "all", "pos_neg"])
def test_equal_rewards_are_skipped_and_counted(pair_kind):
    """(iv) Zero loss with a finite, zero gradient, NLL included; all 6 pairs are ties and count as skipped."""
    objective, scores = gdpo(pairs=pair_kind, nll=1.0), scores_at([0.3, -1.0, 2.0, 0.0], [0.7] * 4)
    found = objective.loss(scores)
    assert (found.value.item(), found.n_pairs, found.n_skipped) == (0.0, 0, 6)
    assert gradient(objective, scores).tolist() == [0.0] * 4


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


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12, unique=True))
def test_adjacent_couples_each_response_with_its_two_neighbours(rewards):
    """Without ties it is a chain in the order of the rewards: G - 1 links, 2 (G - 1) entries beside the diagonal."""
    coupled = Gdpo().coupling(tensor(rewards))
    in_order = coupled[tensor(rewards).argsort()][:, tensor(rewards).argsort()]
    chain = (torch.arange(len(rewards))[:, None] - torch.arange(len(rewards))).abs() <= 1
    assert torch.equal(in_order, chain)
    assert int(coupled.sum()) - len(rewards) == 2 * (len(rewards) - 1)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=9))
def test_adjacent_couples_neighbouring_levels(rewards):
    """Every member of a level with every member of the next, and no response with its equals."""
    levels = sorted(set(rewards))
    level = torch.tensor([levels.index(reward) for reward in rewards])
    neighbours = (level[:, None] - level).abs() == 1
    diagonal = torch.eye(len(rewards), dtype=torch.bool) & (len(levels) > 1)
    assert torch.equal(Gdpo().coupling(tensor(rewards)), neighbours | diagonal)


def coupled(objective, rewards):
    return objective.coupling(tensor(rewards)).int().tolist()


def test_pos_neg_couples_over_the_mean_and_leaves_out_what_sits_on_it():
    expected = [[1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]
    assert coupled(gdpo(pairs="pos_neg"), [1.0, 0.5, 0.25, 0.25]) == expected


def test_literal_does_not_couple_a_response_at_the_mean():
    """Its weight is 0, so D_12 = w_1 L_1 and D_23 = -w_3 L_3 depend on one response each."""
    assert coupled(gdpo(weight="literal"), [1.0, 0.5, 0.0]) == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_nll_adds_only_the_diagonal_of_the_best():
    """Raw rewards as literal advantages silence the best, whose reward is 0; the NLL makes it matter again."""
    silent = {"weight": "literal", "advantage": "raw"}
    assert coupled(gdpo(**silent), [0.0, -1.0, -2.0]) == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]
    assert coupled(gdpo(**silent, nll=0.1), [0.0, -1.0, -2.0]) == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_literal_warns_once_a_process_however_often_it_is_read():
    """Whatever the filters: Python's own once-a-line rule would repeat it for each way of making the object."""
    _warn_of_literal.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            Gdpo(weight="literal")
            Gdpo.model_validate({"weight": "literal"})
            Gdpo.model_validate_json('{"weight": "literal"}')
    assert [warning.category for warning in caught] == [UserWarning]
    assert "blind to the direction of the advantage" in str(caught[0].message)


def test_only_literal_warns():
    _warn_of_literal.cache_clear()
    for weight in ("abs", "none", "shift", "margin"):
        Gdpo(weight=weight)
    with pytest.warns(UserWarning, match="use it only to reproduce the print"):
        Gdpo(weight="literal")
