"""The base's hidden states where tokens are scored: D numbers a token instead of V logits, and no second forward pass.

Shape legend: D hidden size, V vocabulary.
"""

# ruff: noqa: N815  (shape suffixes are upper case, see the legend)
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metagdpo.training.collate import TokenSequence, make_batch, make_families, pack
from metagdpo.training.logprobs import Scorer


@dataclass(frozen=True)
class BaseStates:
    """What a KL divergence from the base needs: hidden states by text, and the vocabulary projection."""

    hidden: dict[str, Tensor]
    """[n scored tokens, D] of each text, by key, on the CPU."""
    head_VD: Tensor


def base_states(
    base: Scorer,
    sequences: Sequence[TokenSequence],
    *,
    token_budget: int,
    shared_prompt: bool = True,
    copy_head: bool = False,
) -> BaseStates:
    """One forward pass of the base over all texts, without gradient.

    Args:
        base: The base.
        sequences: The texts; keys are unique.
        token_budget: Tokens, padding included, of one batch.
        shared_prompt: Whether neighbours with the same prompt share its computation.
        copy_head: Keep the vocabulary projection as it is now, for a base that is about to learn.
    """
    families = make_families(sequences, shared_prompt=shared_prompt and base.packed)
    hidden: dict[str, Tensor] = {}
    head_VD = torch.empty(0)
    for found in pack([family.n_tokens for family in families], token_budget, padded=not base.packed):
        batch = make_batch(sequences, [families[i] for i in found], packed=base.packed).to(base.device)
        with torch.no_grad():
            hidden_ND, head_VD = base.hidden(batch)
        parts = hidden_ND.cpu().split([sequences[i].n_scored for i in batch.members])
        hidden |= {sequences[i].key: part.clone() for i, part in zip(batch.members, parts, strict=True)}
    return BaseStates(hidden, head_VD.detach().clone() if copy_head else head_VD.detach())
