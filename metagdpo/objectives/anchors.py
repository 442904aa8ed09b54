"""Terms that hold the model near its base, added to any objective.

    loss = objective + sum over anchors of weight * anchor

All pull back along the same geometry: near the base, with d = theta - theta_0 and F its Fisher matrix, `context_free`
and `kl` are 1/2 d^T F d to second order (plus a constant), `ewc` is that with the diagonal of F, `l2_sp` with F = 1.
`self_dialogue` is too where its texts were drawn at temperature 1 without truncation; drawn sharper, as in the paper,
it also pulls towards sharper answers.

Home of: CFS loss (arXiv 2505.13811: E over x ~ p_0 of -log p_theta(x), which is KL(p_0 || p_theta) up to a constant),
SA-SFT loss (arXiv 2602.20162: the same over dialogues that p_0 led with itself, on the tokens that it sampled),
L2-SP (arXiv 1802.01483: 1/2 ||theta - theta_0||^2, and its low-rank form),
EWC (arXiv 1612.00796: 1/2 sum over weights of F_k (theta_k - theta_0k)^2)
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from metagdpo.schema import Frozen


class ContextFree(Frozen):
    """CFS: negative log-likelihood of text that the base wrote from its start symbol alone."""

    kind: Literal["context_free"] = "context_free"
    weight: float = Field(gt=0)
    """Coefficient of nats a token."""
    per_step: int = Field(gt=0)
    """Context-free samples in every step."""


class SelfDialogues(Frozen):
    """SA-SFT (arXiv 2602.20162): negative log-likelihood of dialogues that the base led with itself."""

    kind: Literal["self_dialogue"] = "self_dialogue"
    weight: float = Field(gt=0)
    """Coefficient of nats a token."""
    per_step: int = Field(gt=0)
    """Dialogues in every step; beside `groups_per_step` groups that is the paper's mixing ratio."""
    learn: Literal["assistant", "all"] = "assistant"
    """Which turns are scored: the assistant's, as in plain SFT on dialogues, or everything that the base sampled."""


class KlToBase(Frozen):
    """KL(base || candidate) of the next token, over the whole vocabulary, at every token of given texts.

    The base stands first, as in learning without forgetting (arXiv 1606.09282): what the base finds likely must stay
    likely. The reverse would let the candidate drop abilities that it does not use on these texts. It is also what CFS
    estimates: given the text so far, the CFS gradient in expectation over the base's next token is this one's, without
    the noise of having drawn a single token. It costs one forward pass of the base on all texts, before the first step.
    """

    kind: Literal["kl"] = "kl"
    weight: float = Field(gt=0)
    """Coefficient of nats a token."""
    per_step: int = Field(gt=0)
    """Texts in every step."""
    texts: Literal["context_free", "groups", "self_dialogue"] = "groups"
    """`groups`: responses of the training groups after their prompts; `context_free`, `self_dialogue`: what the base
    itself wrote."""


class L2Sp(Frozen):
    """L2-SP: half the squared distance of the learning parameters from where they started; needs no text."""

    kind: Literal["l2_sp"] = "l2_sp"
    weight: float = Field(gt=0)
    """Per squared unit of parameter, summed and not averaged over parameters: adds weight * (theta - theta_0) to the
    gradient whatever the size of the model."""


class Ewc(Frozen):
    """EWC (arXiv 1612.00796): half the squared distance from the start, each weight counted by its Fisher information.

    The Fisher diagonal is estimated once, on context-free samples: text drawn from the model itself is what the
    definition asks for, and labels of real data are not (arXiv 1905.12558). It costs a backward pass for each sample
    before the first step, and as much memory as the weights that learn have (for LoRA: as the layers it adapts).
    """

    kind: Literal["ewc"] = "ewc"
    weight: float = Field(gt=0)
    """Coefficient of nats a token: with 1 it is the diagonal's part of what CFS protects, to second order."""
    samples: int | None = Field(default=None, gt=0)
    """Context-free training samples that the Fisher diagonal is estimated on; null takes all."""


Anchor = Annotated[ContextFree | SelfDialogues | KlToBase | Ewc | L2Sp, Field(discriminator="kind")]
"""What to protect with; the numbers come from `own_text_nll`, `kl_to_base`, `ewc` and `l2_sp`."""


def own_text_nll(log_probs_S: Tensor, lengths_S: Tensor) -> Tensor:
    """Negative log-probability a token over texts that the base wrote, nats: the mean over their own scored tokens.

    It is the term of CFS (arXiv 2505.13811, context-free samples, all tokens) and of SA-SFT (arXiv 2602.20162,
    self-dialogues, the assistant's tokens or all sampled ones). SA-SFT mixes its dialogues into the data without a
    coefficient; here they are a term of their own, with any objective. Normalised by its own tokens, so that the
    coefficient does not silently depend on lengths (neither paper says how it normalises).

    Args:
        log_probs_S: Summed log-probability of each text's scored tokens, nats.
        lengths_S: Scored tokens of each text.
    """
    return -log_probs_S.sum() / lengths_S.sum().clamp(min=1)


def kl_to_base(divergences_S: Tensor, lengths_S: Tensor) -> Tensor:
    """KL(base || candidate) a token, nats: the mean over the tokens of all texts.

    Args:
        divergences_S: Divergence of each text, summed over its tokens, nats (`training.divergence.token_kl`).
        lengths_S: Tokens of each text that were compared.
    """
    return divergences_S.sum() / lengths_S.sum().clamp(min=1)


def l2_sp(deltas: Iterable[Tensor]) -> Tensor:
    """1/2 ||theta - theta_0||^2 over all parameters, in at least float32.

    Args:
        deltas: theta - theta_0 of each parameter, of any shapes.
    """
    total = torch.zeros(())
    for delta in deltas:
        total = total + delta.to(torch.promote_types(delta.dtype, torch.float32)).square().sum()
    return total / 2


def ewc(deltas: Iterable[Tensor], fishers: Iterable[Tensor]) -> Tensor:
    """1/2 sum over parameters k of F_k (theta_k - theta_0k)^2, nats a token, in at least float32.

    Args:
        deltas: theta - theta_0 of each parameter, of any shapes.
        fishers: The Fisher diagonal of each, nats a token, of the same shapes.
    """
    total = torch.zeros(())
    for delta, fisher in zip(deltas, fishers, strict=True):
        total = total + (fisher * delta.to(torch.promote_types(delta.dtype, torch.float32)).square()).sum()
    return total / 2


def low_rank_update(a_RD: Tensor, b_OR: Tensor, scale: float) -> Tensor:
    """The update s B A that a LoRA adapter adds to its layer's weight [O, D], in at least float32.

    Args:
        a_RD: The adapter's A, rank R by inputs D.
        b_OR: The adapter's B, outputs O by rank R.
        scale: s, the factor in front of B A: alpha / r in LoRA.
    """
    wide = torch.promote_types(a_RD.dtype, torch.float32)
    return scale * (b_OR.to(wide) @ a_RD.to(wide))


def low_rank_square(a_RD: Tensor, b_OR: Tensor, scale: float) -> Tensor:
    """||s B A||^2 (Frobenius) of a LoRA update, without ever making B A; half of it belongs to `l2_sp`.

    ||B A||^2 = tr(A^T B^T B A) = tr(B^T B A A^T) = sum over the two [R, R] Gram matrices, entry by entry.

    Args:
        a_RD: The adapter's A, rank R by inputs D.
        b_OR: The adapter's B, outputs O by rank R.
        scale: s, the factor in front of B A: alpha / r in LoRA.

    Returns:
        Scalar, in at least float32.
    """
    wide = torch.promote_types(a_RD.dtype, torch.float32)
    a_RD, b_OR = a_RD.to(wide), b_OR.to(wide)
    return scale**2 * ((b_OR.T @ b_OR) * (a_RD @ a_RD.T)).sum()
