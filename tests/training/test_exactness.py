"""Every way to compute a gradient equals the plain one: each sequence by itself, full logits, one graph, float64."""

import functools

import pytest
import torch
from tiny import make_tiny_model

from metagdpo.models.load import load_model
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.scores import GroupScores
from metagdpo.objectives.sft import Sft
from metagdpo.training import plan
from metagdpo.training.accumulate import backward_through
from metagdpo.training.collate import TokenSequence
from metagdpo.training.logprobs import Scorer


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """The tiny Llama in float64 throughout: its own norm computes in float32, whose rounding would hide ours."""
    model = load_model(make_tiny_model(tmp_path_factory.mktemp("m") / "t"), "float64")
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = functools.partial(rms_norm, module)
    return Scorer(model)


def rms_norm(module, hidden):
    return module.weight * hidden * (hidden.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()


def a_group(seed, G, *, n_prompt=None, longest=9):
    """G ragged responses to one prompt; some of one token."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda low, high: int(torch.randint(low, high + 1, (), generator=random))  # noqa: E731
    ids = lambda n: tuple(torch.randint(3, 290, (n,), generator=random).tolist())  # noqa: E731
    prompt = ids(draw(0, 12) if n_prompt is None else n_prompt)
    return [TokenSequence(f"q/{i}", prompt, ids(draw(1, longest))) for i in range(G)]


def plain_log_prob(model, sequence):
    """Sum over scored tokens of log softmax(logits)[token]; with an empty prompt nothing predicts the first token."""
    ids = sequence.prompt_ids + sequence.response_ids
    log_probs = model(input_ids=torch.tensor([ids])).logits.log_softmax(-1)[0]
    first = max(1, len(sequence.prompt_ids))
    return sum((log_probs[t - 1, ids[t]] for t in range(first, len(ids))), torch.zeros(()).double())


def gradient(model):
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


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
    plain = gradient(scorer.policy)
    found = backward_through(scorer, sequences, loss, token_budget=budget, coupling_SS=objective.coupling(rewards))
    torch.testing.assert_close(found.log_probs_S, expected.detach(), rtol=1e-9, atol=1e-9)
    ours = gradient(scorer.policy)
    assert float((ours - plain).norm()) <= 1e-9 * float(plain.norm())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.kind}-{getattr(o, 'pairs', '')}")
@pytest.mark.parametrize("budget", [10_000, 45, 1], ids=["whole", "parts", "one-by-one"])
def test_a_model_that_cannot_pack_gives_the_same(scorer, monkeypatch, objective, budget):
    """Padded rows, nothing shared: what models with windows or without rotary positions get."""
    sequences = a_group(3, 6, n_prompt=8)
    rewards, loss = group_loss(objective, sequences, 6)
    loss(torch.stack([plain_log_prob(scorer.policy, s) for s in sequences])).backward()
    plain = gradient(scorer.policy)
    monkeypatch.setattr(scorer, "packed", False)
    backward_through(scorer, sequences, loss, token_budget=budget, coupling_SS=objective.coupling(rewards))
    assert float((gradient(scorer.policy) - plain).norm()) <= 1e-9 * float(plain.norm())


def test_many_prompts_beyond_the_budget_are_computed_in_turn(scorer):
    """Three groups in one coupled set: each prompt is computed once, when its first part comes."""
    sequences = [s for seed in range(3) for s in a_group(seed, 4, n_prompt=10 + seed)]
    coefficients = torch.linspace(-1, 1, len(sequences), dtype=torch.float64)

    def loss(log_probs):
        return (coefficients * log_probs).sum().square() / 100

    loss(torch.stack([plain_log_prob(scorer.policy, s) for s in sequences])).backward()
    plain = gradient(scorer.policy)
    assert backward_through(scorer, sequences, loss, token_budget=60).way == "two_passes"
    assert float((gradient(scorer.policy) - plain).norm()) <= 1e-9 * float(plain.norm())


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
