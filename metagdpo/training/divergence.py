"""KL divergence of next-token distributions from the base's, without ever holding [tokens, vocabulary] logits in full.

    KL_n = sum_v p_0(v) log(p_0(v) / p(v)),   p = softmax(h W^T),   p_0 = softmax(h_0 W_0^T)

Computed in chunks of positions, with its backward in closed form: d KL / d h = W^T (p - p_0). Base and candidate take
the same path, so equal models differ by exactly 0 and not by rounding.

Shape legend: N positions, C positions of a chunk, D hidden size, V vocabulary.

Home of: KL to the base (token-wise: KL(p_base(. | prefix) || p_theta(. | prefix)), nats)
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 256
"""Positions whose logits exist at once: a few times 256 x 49k x 4 bytes = 50 MB."""


def token_kl(
    hidden_ND: Tensor, weight_VD: Tensor, base_hidden_ND: Tensor, base_weight_VD: Tensor, chunk: int = CHUNK
) -> Tensor:
    """KL(base || candidate) of the next token at each position.

    Args:
        hidden_ND: Hidden states of the candidate.
        weight_VD: Its vocabulary projection, without bias.
        base_hidden_ND: Hidden states of the base at the same positions; get no gradient.
        base_weight_VD: The base's vocabulary projection; gets no gradient. May be the candidate's own.
        chunk: Positions whose logits exist at once.

    Returns:
        [N], nats, at least 0, in at least float32.
    """
    found: Tensor = _TokenKl.apply(hidden_ND, weight_VD, base_hidden_ND.detach(), base_weight_VD.detach(), chunk)
    return found


class _TokenKl(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """With a frozen head the unit gradient is made while the logits exist, so backward needs no second projection."""

    @staticmethod
    def forward(  # noqa: PLR0917  (torch passes them by position)
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, base_hidden_ND: Tensor, base_weight_VD: Tensor, chunk: int
    ) -> Tensor:
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        kl_N = torch.empty(len(hidden_ND), dtype=wide, device=hidden_ND.device)
        head_learns = ctx.needs_input_grad[1]
        unit_ND = torch.empty_like(hidden_ND) if ctx.needs_input_grad[0] and not head_learns else None
        for part in _parts(len(hidden_ND), chunk):
            log_p_CV = _log_softmax(hidden_ND[part], weight_VD, wide)
            log_base_CV = _log_softmax(base_hidden_ND[part], base_weight_VD, wide)
            ratio_CV = log_p_CV - log_base_CV  # three [C, V] at once; the rest is in place
            base_CV = log_base_CV.exp_()
            slope_CV = log_p_CV.exp_().sub_(base_CV)  # p - p_0
            if unit_ND is not None:
                unit_ND[part] = slope_CV.to(weight_VD.dtype) @ weight_VD
            # KL = sum [(p - p_0) - p_0 log(p / p_0)]: the first sum is 0, and takes away the rounding of the log-sums.
            kl_N[part] = slope_CV.sub_(ratio_CV.mul_(base_CV)).sum(-1).clamp_(min=0)
        ctx.chunk, ctx.head_learns, ctx.wide = chunk, head_learns, wide
        if head_learns:
            ctx.save_for_backward(hidden_ND, weight_VD, base_hidden_ND, base_weight_VD)
        else:
            ctx.save_for_backward(unit_ND)
        return kl_N

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch is untyped here
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        if not ctx.head_learns:
            (unit_ND,) = ctx.saved_tensors
            return grad_N[:, None].to(unit_ND.dtype) * unit_ND, None, None, None, None
        hidden_ND, weight_VD, base_hidden_ND, base_weight_VD = ctx.saved_tensors
        hidden_grad_ND = torch.empty_like(hidden_ND)
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=ctx.wide)
        for part in _parts(len(hidden_ND), ctx.chunk):
            slope_CV = _log_softmax(hidden_ND[part], weight_VD, ctx.wide).exp_()
            slope_CV.sub_(_log_softmax(base_hidden_ND[part], base_weight_VD, ctx.wide).exp_())
            scaled_CV = slope_CV.mul_(grad_N[part, None]).to(weight_VD.dtype)
            hidden_grad_ND[part] = scaled_CV @ weight_VD
            weight_grad_VD += scaled_CV.T @ hidden_ND[part]
        return hidden_grad_ND, weight_grad_VD.to(weight_VD.dtype), None, None, None


def _log_softmax(hidden_CD: Tensor, weight_VD: Tensor, wide: torch.dtype) -> Tensor:
    return (hidden_CD @ weight_VD.T).log_softmax(-1, dtype=wide)


def _parts(n: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, n, chunk)]
