"""Attention over a packed row: prompts and their responses side by side, nothing padded, nothing masked.

A row is [prompt, y_1 .. y_k, prompt, y_1 .. , ...]. Every span attends causally to itself; a response attends to its
prompt as well. The two parts of a response's attention are computed apart and merged by their log-sum-exp: with
l = log(e^(l_prompt) + e^(l_self)), out = e^(l_prompt - l) out_prompt + e^(l_self - l) out_self. As every probability is
e^(score - l), the backward of each part is the usual one with the *merged* output and log-sum-exp. All of it is exact.

Prompts may also lie outside the row: their keys and values then come from an earlier pass (`Layout.outside`), which is
how the responses of one large group are computed a few at a time without computing the prompt again.

Shape legend: T tokens of a row, H query heads, K key heads (H is a multiple of K), E head size.

Home of: two-part attention (the merge above)
"""

# ruff: noqa: PLR0917, SLF001  (what calls these fixes their arguments; log-sum-exp kernels have private names in torch)
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NAME = "metagdpo_packed"
"""Under which transformers knows this attention."""

Span = tuple[int, int]
"""Start and end of neighbouring tokens of a row."""


@dataclass(frozen=True)
class Layout:
    """Which tokens of a row see which."""

    spans: tuple[Span, ...]
    """Parts of the row that are causal in themselves; together they are the row."""
    prefixes: tuple[tuple[Span, Span], ...] = ()
    """(queries, keys): neighbouring responses and the prompt that they see whole."""
    outside: dict[int, tuple[Tensor, Tensor]] | None = None
    """Keys and values [1, K, P, E] of a prompt outside the row, by layer; keys of `prefixes` then count in it."""
    captured: dict[int, tuple[Tensor, Tensor]] | None = field(default=None)
    """Filled with the row's own keys and values by layer, where one asks for them with an empty dictionary."""


def install(model: Any) -> None:
    """Make a transformers model use this attention wherever it is given a `layout`, its usual one elsewhere."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: Layout | None = None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer; see its AttentionInterface for the arguments.

    Args:
        module: The attention layer.
        query: [1, H, T, E].
        key: [1, K, T, E].
        value: [1, K, T, E].
        attention_mask: Ignored where there is a layout.
        layout: Of the row; without one the call goes to scaled dot product attention as usual.
        scaling: Factor of the scores.
        others: For the usual attention.

    Returns:
        [1, T, H, E], and no attention weights.
    """
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        usual: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return usual
    if layout.captured is not None:
        layout.captured.setdefault(module.layer_idx, (key, value))
    outside = (None, None) if layout.outside is None else layout.outside[module.layer_idx]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _TwoParts.apply(query, key, value, *outside, layout, scale), None


class _TwoParts(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        outer_key: Tensor | None,
        outer_value: Tensor | None,
        layout: Layout,
        scale: float,
    ) -> Tensor:
        part = _part_for(query)
        out_THE = query.new_empty(query.shape[2], query.shape[1], query.shape[3])
        log_sum_HT = query.new_empty(query.shape[1], query.shape[2], dtype=_wide(query))
        for queries, keys, k, v in _parts(layout, key, value, outer_key, outer_value):
            found, log_sum = part.forward(
                _cut(query, queries), _cut(k, keys), _cut(v, keys), causal=queries is keys, scale=scale
            )
            own, own_sum = out_THE[slice(*queries)], log_sum_HT[:, slice(*queries)]
            if queries is keys:
                own.copy_(found[0].transpose(0, 1))
                own_sum.copy_(log_sum[0])
                continue
            both = torch.logaddexp(own_sum, log_sum[0])
            own.mul_((own_sum - both).exp().T[..., None].to(own.dtype))
            own.add_((found[0] * (log_sum[0] - both).exp()[..., None].to(found.dtype)).transpose(0, 1))
            own_sum.copy_(both)
        ctx.save_for_backward(query, key, value, outer_key, outer_value, out_THE, log_sum_HT)
        ctx.layout, ctx.scale = layout, scale
        return out_THE[None]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch is untyped here
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, outer_key, outer_value, out_THE, log_sum_HT = ctx.saved_tensors
        part = _part_for(query)
        merged, slope = out_THE.transpose(0, 1)[None], grad.transpose(1, 2)
        by_query = torch.empty_like(query)
        by_key, by_value = torch.empty_like(key), torch.empty_like(value)
        outer = [None if outer_key is None else torch.zeros_like(each) for each in (outer_key, outer_value)]
        for queries, keys, k, v in _parts(ctx.layout, key, value, outer_key, outer_value):
            found = part.backward(
                _cut(slope, queries),
                _cut(query, queries),
                _cut(k, keys),
                _cut(v, keys),
                out=_cut(merged, queries),
                log_sum=log_sum_HT[None, :, slice(*queries)],
                causal=queries is keys,
                scale=ctx.scale,
            )
            if queries is keys:
                for total, one in zip((by_query, by_key, by_value), found, strict=True):
                    _cut(total, queries).copy_(one)
                continue
            to_key, to_value = (by_key, by_value) if outer_key is None else outer
            _cut(by_query, queries).add_(found[0])
            _cut(to_key, keys).add_(found[1])
            _cut(to_value, keys).add_(found[2])
        return by_query, by_key, by_value, *outer, None, None


class _Cpu:
    """torch's flash attention for the CPU, which also gives the log-sum-exp; it repeats key heads by itself."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
        out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
        return out, log_sum

    @staticmethod
    def backward(
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        out: Tensor,
        log_sum: Tensor,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        slopes: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, log_sum, 0.0, causal, scale=scale
        )
        return slopes


class _Cuda:
    """torch's flash attention for half precision on CUDA, called as its own context parallelism calls it."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
        out, log_sum, *_ = torch.ops.aten._flash_attention_forward(
            *(each.transpose(1, 2) for each in (q, k, v)),
            None, None, q.shape[2], k.shape[2], 0.0, causal, False, scale=scale,
        )  # fmt: skip
        return out.transpose(1, 2), log_sum

    @staticmethod
    def backward(
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        out: Tensor,
        log_sum: Tensor,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        state = torch.empty(2, dtype=torch.uint64, device=q.device)  # of dropout, which there is none of
        unused = torch.empty(0, dtype=torch.uint64, device=q.device)
        slopes = torch.ops.aten._flash_attention_backward(
            *(each.transpose(1, 2) for each in (grad, q, k, v, out)),
            log_sum.contiguous(), None, None, q.shape[2], k.shape[2], 0.0, causal, state, unused, scale=scale,
        )  # fmt: skip
        by_query, by_key, by_value = (each.transpose(1, 2) for each in slopes)
        return by_query, by_key, by_value


class _Plain:
    """The definition, a block of queries at a time: for what has no fast kernel, and the oracle of those that have."""

    BLOCK = 256

    @classmethod
    def _odds(cls, q: Tensor, k: Tensor, start: int, *, causal: bool, scale: float) -> Tensor:
        scores = (q @ k.transpose(-1, -2)).to(_wide(q)) * scale
        if causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(start + 1)
            scores = scores.masked_fill(later, -torch.inf)
        return scores

    @classmethod
    def forward(cls, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
        k, v = (each.repeat_interleave(q.shape[1] // k.shape[1], 1) for each in (k, v))
        outs, sums = [], []
        for start in range(0, q.shape[2], cls.BLOCK):
            scores = cls._odds(q[:, :, start : start + cls.BLOCK], k, start, causal=causal, scale=scale)
            sums.append(scores.logsumexp(-1))
            outs.append((scores - sums[-1][..., None]).exp().to(v.dtype) @ v)
        return torch.cat(outs, 2), torch.cat(sums, 2)

    @classmethod
    def backward(
        cls,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        out: Tensor,
        log_sum: Tensor,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads, repeats = k.shape[1], q.shape[1] // k.shape[1]
        k, v = (each.repeat_interleave(repeats, 1) for each in (k, v))
        by_query, by_key, by_value = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start in range(0, q.shape[2], cls.BLOCK):
            rows = slice(start, start + cls.BLOCK)
            odds = (cls._odds(q[:, :, rows], k, start, causal=causal, scale=scale) - log_sum[:, :, rows, None]).exp()
            slope = grad[:, :, rows]
            shared = (slope * out[:, :, rows]).sum(-1, keepdim=True)
            by_score = (odds * ((slope @ v.transpose(-1, -2)) - shared) * scale).to(q.dtype)
            by_query[:, :, rows] = by_score @ k
            by_key += by_score.transpose(-1, -2) @ q[:, :, rows]
            by_value += odds.to(v.dtype).transpose(-1, -2) @ slope
        by_key, by_value = (each.unflatten(1, (heads, repeats)).sum(2) for each in (by_key, by_value))
        return by_query, by_key, by_value


def _part_for(query: Tensor) -> Any:
    if query.device.type == "cpu":
        return _Cpu
    flash = query.device.type == "cuda" and query.dtype in {torch.bfloat16, torch.float16} and query.shape[-1] % 8 == 0
    return _Cuda if flash else _Plain


def _parts(
    layout: Layout, key: Tensor, value: Tensor, outer_key: Tensor | None, outer_value: Tensor | None
) -> Iterator[tuple[Span, Span, Tensor, Tensor]]:
    """(queries, keys, tensors that the keys are of), first all causal parts, for which queries *is* keys."""
    for span in layout.spans:
        if span[1] > span[0]:
            yield span, span, key, value
    for queries, keys in layout.prefixes:
        if queries[1] > queries[0] and keys[1] > keys[0]:
            yield queries, keys, key if outer_key is None else outer_key, value if outer_value is None else outer_value


def _cut(tensor: Tensor, span: Span) -> Tensor:
    return tensor[:, :, slice(*span)]


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
