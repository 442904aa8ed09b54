"""Every way to compute a gradient equals the plain one: each sequence by itself, full logits, one graph, float64."""

from dataclasses import replace

import pytest
import torch
from exact import exact_model, plain_log_prob, take_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_tiny_model

from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.scores import GroupScores
from metagdpo.objectives.sft import Sft
from metagdpo.training import plan
from metagdpo.training.accumulate import backward_through
from metagdpo.training.collate import TokenSequence
from metagdpo.training.lockstep import Job, backward_in_step
from metagdpo.training.logprobs import Scorer
from metagdpo.training.parallel import Workers


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return Scorer(exact_model(make_tiny_model(tmp_path_factory.mktemp("m") / "t")))


def a_group(seed, G, *, n_prompt=None, longest=9):
    """G ragged responses to one prompt; some of one token."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda low, high: int(torch.randint(low, high + 1, (), generator=random))  # noqa: E731
    ids = lambda n: tuple(torch.randint(3, 290, (n,), generator=random).tolist())  # noqa: E731
    prompt = ids(draw(0, 12) if n_prompt is None else n_prompt)
    return [TokenSequence(f"q/{i}", prompt, ids(draw(1, longest))) for i in range(G)]


def a_masked_group(seed, G, *, n_prompt=None):
    """The same with a random mask each, trailing tokens kept even where they are masked; one has nothing scored."""
    random = torch.Generator().manual_seed(seed + 1000)
    draw = lambda n: tuple((torch.rand(n, generator=random) < 0.6).tolist())  # noqa: E731
    group = [replace(s, scored=draw(len(s.response_ids))) for s in a_group(seed, G, n_prompt=n_prompt)]
    return [replace(group[0], scored=(False,) * len(group[0].response_ids)), *group[1:]]


def group_loss(objective, sequences, seed):
    random = torch.Generator().manual_seed(seed)
    G = len(sequences)
    rewards = torch.randint(0, max(2, G // 2), (G,), generator=random).double()
    rewards[0], rewards[-1] = -1.0, 2.0 * G
    references = -10 * torch.rand(G, dtype=torch.float64, generator=random)
    lengths = torch.tensor([max(1, s.n_scored) for s in sequences])
    return rewards, lambda log_probs: objective.loss(GroupScores(log_probs, references, rewards, lengths)).value


OBJECTIVES = [Gdpo(nll=0.5), Gdpo(pairs="all", link="logsigmoid"), Sft()]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.kind}-{getattr(o, 'pairs', '')}")
@pytest.mark.parametrize("budget", [10_000, 45, 1], ids=["whole", "parts", "one-by-one"])
@pytest.mark.parametrize("G", [2, 5, 16])
@pytest.mark.parametrize("n_prompt", [0, 1, 11])
def test_loss_and_gradient_equal_the_plain_way(scorer, objective, budget, G, n_prompt):
    """1e-9 relative, over ragged lengths, empty prompts and every way; rotary positions restart after the prompt."""
    sequences = a_group(G + n_prompt, G, n_prompt=n_prompt)
    rewards, loss = group_loss(objective, sequences, G)
    expected = torch.stack([plain_log_prob(scorer.policy, s) for s in sequences])
    loss(expected).backward()
    plain = take_gradient(scorer.policy)
    found = backward_through(scorer, sequences, loss, token_budget=budget, coupling_SS=objective.coupling(rewards))
    torch.testing.assert_close(found.log_probs_S, expected.detach(), rtol=1e-9, atol=1e-9)
    ours = take_gradient(scorer.policy)
    assert float((ours - plain).norm()) <= 1e-9 * float(plain.norm())


@pytest.mark.parametrize("make", [a_group, a_masked_group])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.kind}-{getattr(o, 'pairs', '')}")
@pytest.mark.parametrize("budget", [10_000, 45, 1], ids=["whole", "parts", "one-by-one"])
def test_a_model_that_cannot_pack_gives_the_same(scorer, monkeypatch, make, objective, budget):
    """Padded rows, nothing shared: what models with windows or without rotary positions get."""
    sequences = make(3, 6, n_prompt=8)
    rewards, loss = group_loss(objective, sequences, 6)
    loss(torch.stack([plain_log_prob(scorer.policy, s) for s in sequences])).backward()
    plain = take_gradient(scorer.policy)
    monkeypatch.setattr(scorer, "packed", False)
    backward_through(scorer, sequences, loss, token_budget=budget, coupling_SS=objective.coupling(rewards))
    assert float((take_gradient(scorer.policy) - plain).norm()) <= 1e-9 * float(plain.norm())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.kind}-{getattr(o, 'pairs', '')}")
@pytest.mark.parametrize("budget", [10_000, 40, 1], ids=["whole", "parts", "one-by-one"])
@pytest.mark.parametrize("n_prompt", [0, 11])
def test_a_mask_leaves_the_sum_over_what_it_keeps(scorer, objective, budget, n_prompt):
    """Log-probabilities and gradients, where a response may have nothing left; prompts shared, also from outside."""
    sequences = a_masked_group(7, 12, n_prompt=n_prompt)
    rewards, loss = group_loss(objective, sequences, 12)
    expected = torch.stack([plain_log_prob(scorer.policy, s) for s in sequences])
    loss(expected).backward()
    plain = take_gradient(scorer.policy)
    found = backward_through(scorer, sequences, loss, token_budget=budget, coupling_SS=objective.coupling(rewards))
    torch.testing.assert_close(found.log_probs_S, expected.detach(), rtol=1e-9, atol=1e-9)
    assert float((take_gradient(scorer.policy) - plain).norm()) <= 1e-9 * float(plain.norm())


def test_the_test_above_goes_every_way():
    """Also with a prompt from outside, which the streamed parts share."""
    sequences = a_masked_group(7, 12, n_prompt=11)
    coupled = Gdpo(nll=0.5).coupling(group_loss(Gdpo(), sequences, 12)[0])
    found = [plan.make_plan(sequences, coupled, budget, shared_prompt=True, packed=True) for budget in (10_000, 40, 1)]
    assert [each.way for each in found] == ["whole", "streamed", "two_passes"]
    assert all(part.prompt == sequences[0].prompt_ids for part in found[1].parts)


def test_a_mask_changes_nothing_of_what_is_computed(scorer):
    """Tokens that do not count are context of those that do: the same rows, the same number of tokens."""
    whole, masked = a_group(7, 12, n_prompt=11), a_masked_group(7, 12, n_prompt=11)
    found = [backward_through(scorer, each, torch.sum, token_budget=60) for each in (whole, masked)]
    take_gradient(scorer.policy)
    assert [each.n_computed for each in masked] == [each.n_computed for each in whole]
    assert found[0].n_tokens == found[1].n_tokens


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("budget", [10_000, 1])
def test_with_nothing_scored_the_log_probability_is_0_and_nothing_moves(scorer, monkeypatch, packed, budget):
    monkeypatch.setattr(scorer, "packed", packed)
    sequences = [replace(s, scored=(False,) * len(s.response_ids)) for s in a_group(2, 4, n_prompt=9)]
    sequences += [TokenSequence("empty", sequences[0].prompt_ids, ()), TokenSequence("void", (), ())]
    found = backward_through(scorer, sequences, torch.sum, token_budget=budget)
    assert found.log_probs_S.tolist() == [0.0] * 6
    assert not bool(take_gradient(scorer.policy).any())


masks = st.lists(st.booleans(), min_size=1, max_size=7).map(tuple)


@settings(max_examples=25, deadline=None)
@given(
    masks=st.lists(masks, min_size=1, max_size=4),
    n_prompt=st.integers(0, 6),
    apart=st.booleans(),
    way=st.tuples(st.sampled_from([10_000, 20, 1]), st.booleans()),
)
def test_any_mask_is_the_plain_sum_over_what_it_keeps(scorer, masks, n_prompt, apart, way):
    """Of any responses, also where prompts differ; a weighted sum of squares couples all of them."""
    budget, packed = way
    prompts = [tuple(range(3 + i * apart, 3 + i * apart + n_prompt)) for i in range(len(masks))]
    sequences = [
        TokenSequence(f"q/{i}", prompt, tuple(40 + (7 * i + 3 * t) % 90 for t in range(len(mask))), scored=mask)
        for i, (prompt, mask) in enumerate(zip(prompts, masks, strict=True))
    ]
    weights = torch.linspace(-1, 2, len(masks), dtype=torch.float64)
    expected = torch.stack([plain_log_prob(scorer.policy, s) for s in sequences])
    loss = lambda log_probs: (weights * log_probs).sum().square() + log_probs.sum()  # noqa: E731
    if expected.requires_grad:
        loss(expected).backward()
    plain = take_gradient(scorer.policy)
    before, scorer.packed = scorer.packed, packed
    found = backward_through(scorer, sequences, loss, token_budget=budget)
    scorer.packed = before
    torch.testing.assert_close(found.log_probs_S, expected.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(take_gradient(scorer.policy), plain, rtol=1e-8, atol=1e-9)


def test_weights_split_over_processes_respect_masks_too(scorer):
    """The order of passes of lockstep.py, with one process."""
    sequences = a_masked_group(7, 12, n_prompt=11)
    rewards, loss = group_loss(Gdpo(nll=0.5), sequences, 12)
    loss(torch.stack([plain_log_prob(scorer.policy, s) for s in sequences])).backward()
    plain = take_gradient(scorer.policy)
    job = Job(sequences, loss, Gdpo(nll=0.5).coupling(rewards))
    backward_in_step(scorer, [job], Workers(), token_budget=60, shared_prompt=True)
    assert float((take_gradient(scorer.policy) - plain).norm()) <= 1e-9 * float(plain.norm())


def test_many_prompts_beyond_the_budget_are_computed_in_turn(scorer):
    """Three groups in one coupled set: each prompt is computed once, when its first part comes."""
    sequences = [s for seed in range(3) for s in a_group(seed, 4, n_prompt=10 + seed)]
    coefficients = torch.linspace(-1, 1, len(sequences), dtype=torch.float64)

    def loss(log_probs):
        return (coefficients * log_probs).sum().square() / 100

    loss(torch.stack([plain_log_prob(scorer.policy, s) for s in sequences])).backward()
    plain = take_gradient(scorer.policy)
    assert backward_through(scorer, sequences, loss, token_budget=60).way == "two_passes"
    assert float((take_gradient(scorer.policy) - plain).norm()) <= 1e-9 * float(plain.norm())


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_is_streamed_in_order_within_the_budget(seed):
    """No part waits longer than for its right neighbour, whatever the order in which responses came."""
    sequences = a_group(seed, 12, n_prompt=20, longest=15)
    rewards = torch.randperm(12, generator=torch.Generator().manual_seed(seed)).double()
    found = plan.make_plan(sequences, Gdpo().coupling(rewards), 60, shared_prompt=True, packed=True)
    assert found.way == "streamed"
    assert all(part.needs <= i + 1 for i, part in enumerate(found.parts))
    order = [float(rewards[i]) for part in found.parts for family in part.families for i in family.members]
    assert order in (sorted(order), sorted(order, reverse=True))
