"""The tiny model in float64 throughout, and the plain way to score with it: full logits, one sequence at a time."""

import functools
from pathlib import Path

import torch

from metagdpo.models.load import load_model


def exact_model(directory: Path):
    """The tiny Llama; its own norm computes in float32, whose rounding would hide ours."""
    model = load_model(directory, "float64")
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = functools.partial(_rms_norm, module)
    return model


def plain_token_log_probs(model, sequence):
    """log softmax(logits)[token] by position in the response; with an empty prompt nothing predicts the first token."""
    ids = sequence.prompt_ids + sequence.response_ids
    log_probs = model(input_ids=torch.tensor([ids])).logits.log_softmax(-1)[0]
    start = len(sequence.prompt_ids)
    return {t - start: log_probs[t - 1, ids[t]] for t in range(max(1, start), len(ids))}


def plain_log_prob(model, sequence):
    """Sum over the tokens that count: those that a mask keeps, all of them without one."""
    kept = sequence.scored or [True] * len(sequence.response_ids)
    nothing = torch.zeros(()).double()
    if not sequence.response_ids:
        return nothing
    return sum((value for at, value in plain_token_log_probs(model, sequence).items() if kept[at]), nothing)


def take_gradient(model):
    """The gradient of all parameters as one vector, 0 where there is none; it is gone from the model afterwards."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad()
    return torch.cat([part.flatten() for part in parts])


def _rms_norm(module, hidden):
    return module.weight * hidden * (hidden.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
