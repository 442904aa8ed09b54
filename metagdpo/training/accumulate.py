"""Exact gradients of losses that couple sequences, within a token budget.

A loss sees a sequence only through its log-probability, so d loss / d theta = sum_i c_i d log p_i / d theta with
c_i = d loss / d log p_i. What fits the budget is computed in one pass. What does not is computed twice, as in GroupDPO
(arXiv 2604.15602): once without gradient for the c_i, then batch by batch with them; memory is flat in the group size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metagdpo.training.collate import Batch, Row, TokenSequence, make_batch, make_rows, pack
from metagdpo.training.logprobs import sequence_log_probs


@dataclass(frozen=True)
class Scored:
    """What a backward pass found, in the order of the sequences."""

    log_probs_S: Tensor  # noqa: N815  (shape suffix)
    """Nats, float64, without gradient."""
    gradient_S: Tensor  # noqa: N815  (shape suffix)
    """d loss / d log p of each sequence."""
    n_tokens: int
    """Tokens of prompts and texts that were computed with gradient; padding left out, a shared prompt counted once."""


def backward_through(
    model: Any,
    sequences: Sequence[TokenSequence],
    loss: Callable[[Tensor], Tensor],
    *,
    token_budget: int,
    shared_prompt: bool,
    backward: Callable[[Tensor], None] = torch.Tensor.backward,
) -> Scored:
    """Add the gradient of `loss(log_probs_S)` to the model's parameters.

    Args:
        model: The policy.
        sequences: The S sequences that the loss couples.
        loss: From [S] log-probabilities, nats, float64, to a scalar.
        token_budget: Tokens, padding included, whose activations are held at once.
        shared_prompt: Whether neighbours with the same prompt share rows.
        backward: Runs back-propagation from a scalar.
    """
    rows = make_rows(sequences, shared_prompt=shared_prompt)
    batches = [[rows[i] for i in found] for found in pack([[row.n_tokens] for row in rows], token_budget)]
    fits = len(batches) == 1 or len(rows) * max(row.n_tokens for row in rows) <= token_budget
    if fits:
        graph_S = _unsorted([sequence_log_probs(model, _batch(model, sequences, rows))], [rows])
        log_probs_S = graph_S.detach().double()
        gradient_S = _slopes(loss, log_probs_S)
        backward((graph_S * gradient_S.to(graph_S.dtype)).sum())
    else:
        with torch.no_grad():
            parts = [sequence_log_probs(model, _batch(model, sequences, found)) for found in batches]
        log_probs_S = _unsorted(parts, batches).double()
        gradient_S = _slopes(loss, log_probs_S)
        for found in batches:
            graph_S = sequence_log_probs(model, _batch(model, sequences, found))
            backward((graph_S * gradient_S[_members(found)].to(graph_S.dtype)).sum())
    return Scored(log_probs_S, gradient_S, sum(row.n_tokens for row in rows))


def _slopes(loss: Callable[[Tensor], Tensor], log_probs_S: Tensor) -> Tensor:
    leaf_S = log_probs_S.clone().requires_grad_()
    (gradient_S,) = torch.autograd.grad(loss(leaf_S), leaf_S)
    return gradient_S


def _unsorted(parts: list[Tensor], batches: list[list[Row]]) -> Tensor:
    """Values of batches in the order of the sequences."""
    members = [member for rows in batches for member in _members(rows)]
    return torch.cat(parts)[torch.tensor(members, device=parts[0].device).argsort()]


def _members(rows: Sequence[Row]) -> list[int]:
    return [member for row in rows for member in row.members]


def _batch(model: Any, sequences: Sequence[TokenSequence], rows: Sequence[Row]) -> Batch:
    return make_batch(sequences, rows, model.dtype).to(model.device)
