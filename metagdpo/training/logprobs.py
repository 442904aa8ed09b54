"""Summed log-probabilities of responses, without ever holding [tokens, vocabulary] logits in full.

The backbone runs once; hidden states are taken only where a response token is predicted; the vocabulary projection runs
in chunks, with its backward in closed form: d log p(y) / d h = W_y - sum_v softmax_v W_v.

Shape legend: N scored tokens, D hidden size, V vocabulary, S sequences.

Home of: sequence log-probability (sum over the response's tokens of log p(token | all before), nats)
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metagdpo.errors import ModelError
from metagdpo.training.collate import Batch

CHUNK = 256
"""Tokens whose logits exist at once: 256 x 49k x 4 bytes = 50 MB."""


def sequence_log_probs(model: Any, batch: Batch) -> Tensor:
    """Sum of the log-probabilities of each sequence's tokens.

    Args:
        model: A transformers causal language model, or a PEFT model around one.
        batch: On the model's device.

    Returns:
        [S], nats, in float32 (float64 for a float64 model).
    """
    backbone, head = backbone_and_head(model)
    hidden_BTD = backbone(
        input_ids=batch.input_ids_BT,
        attention_mask=batch.mask_B1TT,
        position_ids=batch.position_ids_BT,
        use_cache=False,
    ).last_hidden_state
    hidden_ND = hidden_BTD.flatten(0, 1)[batch.source_N]
    log_probs_N = token_log_probs(hidden_ND, head.weight, batch.target_N)
    return log_probs_N.new_zeros(len(batch.lengths_S)).index_add(0, batch.owner_N, log_probs_N)


def token_log_probs(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, chunk: int = CHUNK) -> Tensor:
    """Log-probability of each token, log softmax(h W^T)[target].

    Args:
        hidden_ND: Hidden states.
        weight_VD: Vocabulary projection, without bias.
        target_N: Token ids.
        chunk: Tokens whose logits exist at once.

    Returns:
        [N], nats, in at least float32.
    """
    found: Tensor = _TokenLogProbs.apply(hidden_ND, weight_VD, target_N, chunk)
    return found


def backbone_and_head(model: Any) -> tuple[Any, Any]:
    """The part that yields hidden states, and the vocabulary projection, of a plain or a PEFT model."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(plain, plain.base_model_prefix), plain.get_output_embeddings()


def check_model(model: Any) -> None:
    """Refuse a model whose logits are not `hidden @ head.weight` (soft-capped, scaled or biased ones), by trying it.

    Raises:
        ModelError: The two ways differ, or the model has no separate head.
    """
    backbone, head = backbone_and_head(model)
    weight = getattr(head, "weight", None)
    if weight is None:
        raise ModelError(f"{type(model).__name__} has no vocabulary projection that can be computed in chunks.")
    ids = torch.arange(8, device=weight.device)[None] % weight.shape[0]
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits.float()
        ours = (backbone(input_ids=ids, use_cache=False).last_hidden_state @ weight.T).float()
    if not torch.allclose(plain, ours, rtol=1e-2, atol=1e-2 * float(plain.abs().max())):
        message = (
            f"{type(model).__name__} changes its logits after the vocabulary projection (soft cap, scale or bias), "
            "which chunked log-probabilities do not do. Use a model without it, such as Llama, Qwen or SmolLM."
        )
        raise ModelError(message)


def can_share_prompts(model: Any) -> bool:
    """Whether shared rows are exact for this model: rotary positions, and full attention in every layer."""
    config = model.config
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    rotary = getattr(config, "rope_parameters", None) is not None
    return rotary and set(layers) == {"full_attention"} and not windowed


class _TokenLogProbs(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """With a frozen head the unit gradient is made while the logits exist, so backward needs no second projection."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, chunk: int) -> Tensor:
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        log_probs_N = torch.empty(len(target_N), dtype=wide, device=hidden_ND.device)
        log_sum_N = torch.empty_like(log_probs_N)
        head_learns = ctx.needs_input_grad[1]
        unit_ND = torch.empty_like(hidden_ND) if ctx.needs_input_grad[0] and not head_learns else None
        for part in _parts(len(target_N), chunk):
            logits_CV = (hidden_ND[part] @ weight_VD.T).to(wide)
            chosen_C = logits_CV.gather(-1, target_N[part, None])[:, 0]
            peak_C1 = logits_CV.amax(-1, keepdim=True)
            odds_CV = logits_CV.sub_(peak_C1).exp_()  # in place: one [chunk, V] at a time; softmax = odds / total
            total_C1 = odds_CV.sum(-1, keepdim=True)
            log_sum_N[part] = (peak_C1 + total_C1.log())[:, 0]
            log_probs_N[part] = chosen_C - log_sum_N[part]
            if unit_ND is not None:
                mean_CD = (odds_CV.to(weight_VD.dtype) @ weight_VD) / total_C1.to(weight_VD.dtype)
                unit_ND[part] = weight_VD[target_N[part]] - mean_CD
        ctx.chunk = chunk
        ctx.head_learns = head_learns
        if head_learns:
            ctx.save_for_backward(hidden_ND, weight_VD, target_N, log_sum_N)
        else:
            ctx.save_for_backward(unit_ND)
        return log_probs_N

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch is untyped here
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        if not ctx.head_learns:
            (unit_ND,) = ctx.saved_tensors
            return grad_N[:, None].to(unit_ND.dtype) * unit_ND, None, None, None
        hidden_ND, weight_VD, target_N, log_sum_N = ctx.saved_tensors
        hidden_grad_ND, weight_grad_VD = torch.empty_like(hidden_ND), torch.zeros_like(weight_VD)
        for part in _parts(len(target_N), ctx.chunk):
            logits_CV = (hidden_ND[part] @ weight_VD.T).to(log_sum_N.dtype)
            slope_CV = logits_CV.sub_(log_sum_N[part, None]).exp_().neg_()
            slope_CV.scatter_add_(-1, target_N[part, None], torch.ones_like(slope_CV[:, :1]))  # onehot - softmax
            slope_CV = slope_CV.mul_(grad_N[part, None]).to(weight_VD.dtype)
            hidden_grad_ND[part] = slope_CV @ weight_VD
            weight_grad_VD.addmm_(slope_CV.T, hidden_ND[part])
        return hidden_grad_ND, weight_grad_VD, None, None


def _parts(n: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]
