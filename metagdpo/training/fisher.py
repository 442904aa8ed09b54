"""How much each weight matters to what the base writes (the Fisher diagonal, for EWC), and the pull back to the start.

A text x is drawn from the base itself, so the score d log p(x_t | x_<t) / d theta of each token has mean 0 given what
stands before it. The scores of a text's tokens are therefore uncorrelated, and the square of their sum has the
expectation of the sum of their squares. One backward pass a text thus estimates, without bias, the second derivative in
each weight, at the base, of KL(base || candidate) summed over the text's tokens. That holds for text drawn at
temperature 1 without truncation, also where it ends at a limit of tokens.

Home of: diagonal Fisher information (arXiv 1612.00796; labels from the model as arXiv 1905.12558 asks for)
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metagdpo.objectives.anchors import ewc, l2_sp, low_rank_square, low_rank_update
from metagdpo.progress import bar
from metagdpo.training.collate import TokenSequence, make_batch, make_families
from metagdpo.training.logprobs import Scorer
from metagdpo.training.parallel import Workers


def fisher_diagonal(scorer: Scorer, samples: Sequence[TokenSequence], workers: Workers) -> dict[str, Tensor]:
    """Fisher information of each weight, nats a token: sum over samples of (d log p(x) / d theta)^2 / scored tokens.

    Takes a backward pass for each sample. Holds twice the weights in question: the result, in at least float32, and the
    gradient of one sample. Processes share the samples and end with the same numbers.

    Args:
        scorer: The policy, full or LoRA; of a LoRA policy the adapter is switched off meanwhile.
        samples: Text that the base drew, each with a scored token.
        workers: The processes, all of which call.

    Returns:
        By name of the parameter, in full fine-tuning; for LoRA by name of the adapted layer, in its weight's shape.
    """
    with _weights_of_base(scorer.policy) as weights:
        totals = [
            torch.zeros_like(each, dtype=torch.promote_types(each.dtype, torch.float32)) for each in weights.values()
        ]
        mine = workers.share([len(each.prompt_ids) + each.n_computed for each in samples])
        for i in bar(mine, total=len(mine), what="fisher", unit="sample", show=workers.main):
            batch = make_batch([samples[i]], make_families([samples[i]], shared_prompt=False), packed=scorer.packed)
            score = torch.autograd.grad(scorer(batch.to(scorer.device)).sum(), [*weights.values()], allow_unused=True)
            for total, part in zip(totals, score, strict=True):
                if part is not None:
                    total.add_(part.to(total.dtype).square())
    workers.add_up(totals)
    n_tokens = sum(each.n_scored for each in samples)
    return {name: total / n_tokens for name, total in zip(weights, totals, strict=True)}


def pull(
    model: Any,
    named: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    weight: float,
    fisher: Mapping[str, Tensor] | None,
) -> float:
    """Add the gradient of weight * L2-SP, or of weight * EWC, layer by layer: one update s B A exists at a time.

    Args:
        model: The policy.
        named: The weights that learn, by name.
        start: Where they began; empty for LoRA, whose update s B A of a layer began at 0.
        weight: The anchor's coefficient.
        fisher: From `fisher_diagonal`; None for L2-SP.

    Returns:
        The value, without the coefficient.
    """
    total = 0.0
    for value in _halves(model, named, start, fisher):
        (weight * value).backward()
        total += float(value.detach())
    return total


def _halves(
    model: Any, named: Mapping[str, Tensor], start: Mapping[str, Tensor], fisher: Mapping[str, Tensor] | None
) -> Iterator[Tensor]:
    """Half the squared distance from the start of each parameter, or of each adapted layer."""
    for name in start:
        delta = [named[name] - start[name]]
        yield l2_sp(delta) if fisher is None else ewc(delta, [fisher[name]])
    if start:
        return
    for name, module in _adapted(model):
        for key, factor in module.lora_A.items():
            low_rank = factor.weight, module.lora_B[key].weight, module.scaling[key]
            if fisher is None:
                yield low_rank_square(*low_rank) / 2
            else:
                update_OD = low_rank_update(*low_rank)
                yield ewc([update_OD.T if module.fan_in_fan_out else update_OD], [fisher[name]])


def _adapted(model: Any) -> list[tuple[str, Any]]:
    """Layers with a LoRA adapter, by name."""
    return [(name, module) for name, module in model.named_modules() if len(getattr(module, "lora_A", ()))]


@contextlib.contextmanager
def _weights_of_base(policy: Any) -> Iterator[dict[str, Tensor]]:
    """The weights whose information is wanted, while they take gradients and the policy is the base."""
    if not hasattr(policy, "peft_config"):
        yield {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
        return
    weights = {name: module.get_base_layer().weight for name, module in _adapted(policy)}
    try:
        for each in weights.values():
            each.requires_grad_(True)
        with policy.disable_adapter():
            yield weights
    finally:
        for each in weights.values():
            each.requires_grad_(False)
