"""Chunked log-probabilities and shared rows against the plain way, in float64."""

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from metagdpo.errors import ModelError
from metagdpo.models.load import load_model
from metagdpo.training import attention
from metagdpo.training.logprobs import Scorer, can_pack, check_model, token_log_probs


@pytest.fixture
def model(tiny_model_dir, monkeypatch):
    """In float64 throughout: transformers computes the norm in float32 whatever the model's type."""

    def norm(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)
    return load_model(tiny_model_dir, "float32").double()


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


def test_the_tiny_llama_is_accepted_and_packs(model):
    assert Scorer(model).packed


def test_a_model_that_scales_its_logits_is_refused(model, monkeypatch):
    plain = type(model).forward

    def scaled(self, **inputs):
        found = plain(self, **inputs)
        found.logits = found.logits * 0.5
        return found

    monkeypatch.setattr(type(model), "forward", scaled)
    with pytest.raises(ModelError, match="changes its logits after the vocabulary projection"):
        check_model(model)


def test_a_windowed_model_does_not_pack(model):
    model.config.layer_types = ["sliding_attention", "full_attention"]
    assert not can_pack(model)


def test_a_model_whose_attention_does_more_is_found_out_by_trying(model, monkeypatch):
    """Like a soft cap or a sink, which a layer's attention adds and a layout does not know of."""
    plain = attention.attend

    def other(module, query, *tensors, layout=None, **settings):
        factor = 1.0 if layout is None else 1.5
        return plain(module, query * factor, *tensors, layout=layout, **settings)

    monkeypatch.setattr(attention, "attend", other)
    assert not can_pack(model)
    assert model.config._attn_implementation == "sdpa"


def test_a_wrong_gradient_is_found_out_too(model, monkeypatch):
    """A kernel that is right forward and wrong backward, as on a device where it was never run."""
    plain = attention._Cpu.backward

    def wrong(*tensors, **settings):
        return tuple(0.8 * slope for slope in plain(*tensors, **settings))

    monkeypatch.setattr(attention._Cpu, "backward", wrong)
    assert not can_pack(model)
