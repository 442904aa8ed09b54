"""Summed log-probabilities of responses, without ever holding [tokens, vocabulary] logits in full.

The backbone runs once; hidden states are taken only where a response token is predicted; the vocabulary projection runs
in chunks, with its backward in closed form: d log p(y) / d h = W_y - sum_v softmax_v W_v.

Shape legend: N scored tokens, D hidden size, V vocabulary, S sequences.

Home of: sequence log-probability (sum over the response's tokens of log p(token | all before), nats)
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metagdpo.errors import ModelError
from metagdpo.training import attention
from metagdpo.training.collate import Batch, TokenSequence, make_batch, make_families

CHUNK = 256
"""Tokens whose logits exist at once: 256 x 49k x 4 bytes = 50 MB."""

Read = Callable[[Batch, Tensor, Tensor], Tensor]
"""From a batch, its hidden states where tokens are predicted [N, D] and the vocabulary projection [V, D]."""


class Scorer(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A policy, or a base, as the thing that scores batches: the one way through the model for references and training.

    Args:
        policy: A transformers causal language model, or a PEFT model around one.

    Raises:
        ModelError: Its logits are not what a chunked vocabulary projection gives.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        check_model(policy)
        self.policy = policy
        self.packed = can_pack(policy)
        """Whether sequences can stand side by side in one row and share prompts; otherwise each has a padded row."""

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        return torch.device(self.policy.device)

    def forward(self, batch: Batch, read: Read | None = None) -> Tensor:
        """Summed log-probability [S] of the batch's sequences, nats; or what `read` makes of the hidden states."""
        return (read or log_prob_sums)(batch, *self.hidden(batch))

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Hidden states where scored tokens are predicted [N, D], and the vocabulary projection [V, D]."""
        backbone, head = backbone_and_head(self.policy)
        parts = [head.weight[:0]]
        if batch.input_ids_BT.shape[1]:
            parts.append(_states(backbone, batch).flatten(0, 1))
        if batch.last_1D is not None:
            parts.append(batch.last_1D)
        return torch.cat(parts[1:] or parts)[batch.source_N], head.weight

    def states_of(self, batch: Batch) -> Tensor:
        """All hidden states of a batch, [B, T, D]."""
        return _states(backbone_and_head(self.policy)[0], batch)


def log_prob_sums(batch: Batch, hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
    """Sum of the log-probabilities of each sequence's scored tokens: [S], nats, in at least float32."""
    log_probs_N = token_log_probs(hidden_ND, weight_VD, batch.target_N)
    return log_probs_N.new_zeros(len(batch.members)).index_add(0, batch.owner_N, log_probs_N)


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


def can_pack(model: Any) -> bool:
    """Whether sequences may share a row and prompts, exactly: by the model's configuration, and then by trying it.

    Rotary positions and full attention in every layer are needed; what else a layer may do with scores (soft caps,
    sinks) shows in the trial. Afterwards the model attends over layouts where it is given one, as before elsewhere.
    """
    config = model.config
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    rotary = getattr(config, "rope_parameters", None) is not None
    if not rotary or set(layers) != {"full_attention"} or windowed:
        return False
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = plain.config._attn_implementation  # noqa: SLF001  (transformers has a setter and no getter)
    attention.install(plain)
    if _packing_is_exact(plain):
        return True
    plain.set_attn_implementation(before)
    return False


def _packing_is_exact(model: Any) -> bool:
    ids = itertools.cycle(range(3, min(50, model.config.vocab_size)))
    prompts = [tuple(itertools.islice(ids, n)) for n in (7, 5)]
    texts = [(prompts[0], 4), (prompts[0], 9), (prompts[1], 6)]
    sequences = [TokenSequence("", prompt, tuple(itertools.islice(ids, n))) for prompt, n in texts]
    backbone, _ = backbone_and_head(model)
    embedding = backbone.get_input_embeddings().weight
    learns = embedding.requires_grad
    embedding.requires_grad_()
    found = []
    for shared in (True, False):
        families = make_families(sequences, shared_prompt=shared)
        batch = make_batch(sequences, families, packed=shared).to(model.device)
        with torch.enable_grad():
            hidden_ND = _states(backbone, batch).flatten(0, 1)[batch.source_N].float()
            slope_ND = torch.linspace(-1, 1, hidden_ND.numel(), device=model.device).cos().view_as(hidden_ND)
            (by_embedding,) = torch.autograd.grad((hidden_ND * slope_ND).sum(), embedding)
        found.append((hidden_ND.detach(), by_embedding.float()))
    embedding.requires_grad_(learns)
    tolerance = 1e-3 if model.dtype in {torch.float32, torch.float64} else 5e-2
    return all(float((ours - plain).norm() / plain.norm()) < tolerance for ours, plain in zip(*found, strict=True))


def _states(backbone: Any, batch: Batch) -> Tensor:
    kwargs: dict[str, Any] = {}
    if batch.layout is not None:
        # A mask of four dimensions is taken as it is; one number then stands for the dense mask that is not needed.
        unused = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=batch.input_ids_BT.device)
        kwargs = {"layout": batch.layout, "attention_mask": unused}
    states: Tensor = backbone(
        input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT, use_cache=False, **kwargs
    ).last_hidden_state
    return states


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
        hidden_grad_ND = torch.empty_like(hidden_ND)
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=log_sum_N.dtype)  # chunks add up in full precision
        for part in _parts(len(target_N), ctx.chunk):
            logits_CV = (hidden_ND[part] @ weight_VD.T).to(log_sum_N.dtype)
            slope_CV = logits_CV.sub_(log_sum_N[part, None]).exp_().neg_()
            slope_CV.scatter_add_(-1, target_N[part, None], torch.ones_like(slope_CV[:, :1]))  # onehot - softmax
            slope_CV = slope_CV.mul_(grad_N[part, None]).to(weight_VD.dtype)
            hidden_grad_ND[part] = slope_CV @ weight_VD
            if weight_grad_VD.dtype == slope_CV.dtype:
                weight_grad_VD.addmm_(slope_CV.T, hidden_ND[part])
            else:
                weight_grad_VD += slope_CV.T @ hidden_ND[part]
        return hidden_grad_ND, weight_grad_VD.to(weight_VD.dtype), None, None


def _parts(n: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]
