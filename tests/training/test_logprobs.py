"""Chunked log-probabilities and shared rows against the plain way, in float64."""

import random

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from metagdpo.errors import ModelError
from metagdpo.models.load import load_model
from metagdpo.training.collate import TokenSequence, make_batch, make_rows
from metagdpo.training.logprobs import can_share_prompts, check_model, sequence_log_probs, token_log_probs


@pytest.fixture
def model(tiny_model_dir, monkeypatch):
    """In float64 throughout: transformers computes the norm in float32 whatever the model's type."""

    def norm(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)
    return load_model(tiny_model_dir, "float32").double()


def ragged_sequences(seed, n_groups=3, group_size=4):
    draw = random.Random(seed)
    found = []
    for g in range(n_groups):
        prompt = tuple(draw.randrange(250) for _ in range(draw.randint(1, 20)))
        for i in range(group_size):
            response = tuple(draw.randrange(250) for _ in range(draw.choice([0, 1, 2, 5, 13])))
            found.append(TokenSequence(f"{g}/{i}", prompt, response))
    return found


def plain_log_prob(model, sequence):
    """Sum over the response of log softmax(logits)[token], one sequence at a time, full logits."""
    log_probs = model(input_ids=torch.tensor([sequence.prompt_ids + sequence.response_ids])).logits.log_softmax(-1)
    start = len(sequence.prompt_ids) - 1
    return sum((log_probs[0, start + k, t] for k, t in enumerate(sequence.response_ids)), torch.zeros(()).double())


def gradients(model, value):
    found = torch.autograd.grad(value, list(model.parameters()))
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("shared_prompt", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_the_plain_way(model, seed, shared_prompt):
    """Value and gradient of a random combination, tied embeddings included, to 1e-9."""
    sequences = ragged_sequences(seed)
    coefficients = torch.randn(len(sequences), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = torch.stack([plain_log_prob(model, sequence) for sequence in sequences])
    rows = make_rows(sequences, shared_prompt=shared_prompt)
    members = [member for row in rows for member in row.members]
    found = sequence_log_probs(model, make_batch(sequences, rows, torch.float64))
    torch.testing.assert_close(found, expected[members], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        gradients(model, (found * coefficients[members]).sum()),
        gradients(model, (expected * coefficients).sum()),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("head_learns", [True, False])
def test_token_log_probs_pass_gradcheck(chunk, head_learns):
    hidden = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.float64, requires_grad=head_learns)
    target = torch.randint(0, 11, (7,))
    assert torch.autograd.gradcheck(lambda h, w: token_log_probs(h, w, target, chunk), (hidden, weight))


def test_bfloat16_log_probs_are_summed_in_float32():
    hidden, weight = torch.randn(4, 8).bfloat16(), torch.randn(16, 8).bfloat16()
    assert token_log_probs(hidden, weight, torch.tensor([0, 1, 2, 3])).dtype == torch.float32


def test_the_tiny_llama_is_accepted_and_shares_prompts(model):
    check_model(model)
    assert can_share_prompts(model)


def test_a_model_that_scales_its_logits_is_refused(model, monkeypatch):
    plain = type(model).forward

    def scaled(self, **inputs):
        found = plain(self, **inputs)
        found.logits = found.logits * 0.5
        return found

    monkeypatch.setattr(type(model), "forward", scaled)
    with pytest.raises(ModelError, match="changes its logits after the vocabulary projection"):
        check_model(model)


def test_a_windowed_model_does_not_share_prompts(model):
    model.config.layer_types = ["sliding_attention", "full_attention"]
    assert not can_share_prompts(model)
