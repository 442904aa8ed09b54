"""STM, selective token masking (arXiv 2501.14315): tokens that the base finds unlikely are not learned.

A response's log-probability becomes the sum over the tokens that are left, under policy and reference alike. Objectives
see nothing but these sums, so it goes with all of them, and at the start every log-ratio is 0 as without it. The tokens
left out are still read: what stands after them is predicted from them.

Left out here: the held text of anchors, which is not masked.

Home of: STM mask (token y_t of a response counts where 1 / p_base(y_t | q, y_<t) <= perplexity)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metagdpo.errors import DataError
from metagdpo.progress import bar
from metagdpo.training.collate import Batch, TokenSequence, make_batch, make_families, pack
from metagdpo.training.data import TrainGroup
from metagdpo.training.logprobs import Scorer, token_log_probs
from metagdpo.training.settings import SequenceParams, Stm


@dataclass(frozen=True)
class MaskCounts:
    """What a mask left out."""

    n_tokens: int
    """Scored tokens of the responses before."""
    n_masked: int
    """Of these, left out."""
    n_responses: int
    n_emptied: int
    """Responses that have no scored token left: their log-ratio is 0 and stays it."""

    def __str__(self) -> str:
        """One line for people."""
        share = self.n_masked / max(1, self.n_tokens)
        line = f"token mask: {self.n_masked} of {self.n_tokens} response tokens are left out ({share:.1%})"
        return f"{line}; {self.n_emptied} of {self.n_responses} responses have none left" if self.n_emptied else line


def mask_tokens(
    base: Scorer, groups: Sequence[TrainGroup], mask: Stm, settings: SequenceParams
) -> tuple[list[TrainGroup], MaskCounts]:
    """The groups with unlikely tokens of their responses left out, and their reference summed over what is left.

    A response of which nothing is left out keeps its reference as it was computed before, to the bit.

    Args:
        base: The base, not yet changed into the policy: one forward pass over all responses, without gradient.
        groups: In order, which is kept; none give none.
        mask: `train.token_mask`.
        settings: Section `reference`: how the pass is batched, as for the references.

    Raises:
        DataError: Nothing is left of any response.
    """
    sequences = [sequence for group in groups for sequence in group.sequences]
    log_probs = base_log_probs(base, sequences, settings)
    found, start = [], 0
    for group in groups:
        found.append(_masked_group(group, log_probs[start : start + len(group.sequences)], mask))
        start += len(group.sequences)
    counts = _counts(sequences, [sequence for group in found for sequence in group.sequences])
    if counts.n_tokens and counts.n_masked == counts.n_tokens:
        message = (
            f"train.token_mask leaves out all {counts.n_tokens} tokens of the {counts.n_responses} responses: the base "
            f"gives none of them a probability of 1 / {mask.perplexity:g} or more, so nothing is left to learn. Raise "
            "train.token_mask.perplexity, or set train.token_mask: null."
        )
        raise DataError(message)
    return found, counts


def base_log_probs(base: Scorer, sequences: Sequence[TokenSequence], settings: SequenceParams) -> list[Tensor]:
    """Log-probability of every scored token of each sequence: [n scored] each, nats, on the CPU, without gradient."""
    families = make_families(sequences, shared_prompt=settings.shared_prompt and base.packed)
    batches = pack([family.n_tokens for family in families], settings.token_budget, padded=not base.packed)
    found = [torch.empty(0)] * len(sequences)
    for positions in bar(batches, total=len(batches), what="token mask", unit="batch"):
        batch = make_batch(sequences, [families[i] for i in positions], packed=base.packed).to(base.device)
        with torch.no_grad():
            log_probs_N = base(batch, _by_token).cpu()
        parts = log_probs_N.split([sequences[i].n_scored for i in batch.members])
        for i, part in zip(batch.members, parts, strict=True):
            found[i] = part
    return found


def kept_tokens(log_probs_N: Tensor, perplexity: float) -> Tensor:
    """Which tokens a mask keeps: 1 / p <= perplexity.

    Args:
        log_probs_N: log p of each token under the base, nats. One that is not a number is kept, so that training stops
            at it instead of passing over it.
        perplexity: Largest 1 / p that is learned.
    """
    return ~(-log_probs_N > math.log(perplexity))


def _masked_group(group: TrainGroup, log_probs: Sequence[Tensor], mask: Stm) -> TrainGroup:
    sequences, reference_G = list(group.sequences), group.reference_G.clone()
    for g, (sequence, log_probs_N) in enumerate(zip(sequences, log_probs, strict=True)):
        kept_N = kept_tokens(log_probs_N, mask.perplexity)
        if kept_N.all():
            continue
        kept = {at for at, keep in zip(sequence.scored_at, kept_N.tolist(), strict=True) if keep}
        sequences[g] = sequence.masked([at in kept for at in range(len(sequence.response_ids))])
        reference_G[g] = log_probs_N[kept_N].double().sum()
    return replace(group, sequences=tuple(sequences), reference_G=reference_G)


def _counts(before: Sequence[TokenSequence], after: Sequence[TokenSequence]) -> MaskCounts:
    n_tokens, n_left = (sum(sequence.n_scored for sequence in sequences) for sequences in (before, after))
    emptied = [a for b, a in zip(before, after, strict=True) if b.n_scored and not a.n_scored]
    return MaskCounts(n_tokens, n_tokens - n_left, len(before), len(emptied))


def _by_token(batch: Batch, hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
    return token_log_probs(hidden_ND, weight_VD, batch.target_N)
