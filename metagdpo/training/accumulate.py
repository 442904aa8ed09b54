"""Exact gradients of losses that couple sequences, within a token budget.

A loss sees a sequence only through its log-probability, so d loss / d theta = sum_i c_i d log p_i / d theta with
c_i = d loss / d log p_i. Three ways to compute it, equal to the last rounding:

- whole: everything in one pass, where it fits the budget;
- streamed: a few sequences at a time. c_i needs only the log-probabilities that sequence i is coupled with, so a part
  is back-propagated and forgotten as soon as those are known. Along the adjacent chain of GDPO that takes one pass and
  a window of two parts, whatever the size of the group;
- two passes, for couplings too wide for that, as in GroupDPO (arXiv 2604.15602): without gradient for the c_i, then
  part by part with them.

The prompt of a group is computed once in each: its keys and values become leaves of the graph, the parts add up their
gradients, and one backward through the prompt ends the group. Memory does not grow with the size of the group.
"""

# ruff: noqa: N815  (shape suffixes are upper case: S sequences)
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metagdpo.training.collate import Family, Outside, TokenSequence, make_batch, make_families, pack
from metagdpo.training.logprobs import Scorer
from metagdpo.training.plan import Part, Plan, Way, make_plan


@dataclass(frozen=True)
class Scored:
    """What a backward pass found, in the order of the sequences."""

    log_probs_S: Tensor
    """Nats, float64, on the CPU, without gradient."""
    gradient_S: Tensor
    """d loss / d log p of each sequence."""
    n_tokens: int
    """Tokens that were computed with gradient; padding left out, a shared prompt counted once."""
    way: Way


def backward_through(
    scorer: Scorer,
    sequences: Sequence[TokenSequence],
    loss: Callable[[Tensor], Tensor],
    *,
    token_budget: int,
    shared_prompt: bool = True,
    coupling_SS: Tensor | None = None,
) -> Scored:
    """Add the gradient of `loss(log_probs_S)` to the model's parameters.

    Args:
        scorer: The policy.
        sequences: The S sequences that the loss couples.
        loss: From [S] log-probabilities, nats, float64, to a scalar.
        token_budget: Tokens, padding included, whose activations are held at once.
        shared_prompt: Whether neighbours with the same prompt share its computation where that saves tokens.
        coupling_SS: Whether d loss / d log p_i may depend on log p_j; on the diagonal whether it can be other than 0.
            None: everything depends on everything.
    """
    if coupling_SS is None:
        coupling_SS = torch.ones(len(sequences), len(sequences), dtype=torch.bool)
    plan = make_plan(sequences, coupling_SS, token_budget, shared_prompt=shared_prompt, packed=scorer.packed)
    log_probs_S = torch.zeros(len(sequences), dtype=torch.float64)
    with torch.no_grad():
        for families in plan.measured:
            score(scorer, sequences, families, log_probs_S)
    carry_out = {"whole": _whole, "streamed": _streamed, "two_passes": _two_passes}[plan.way]
    carry_out(scorer, sequences, loss, plan, log_probs_S)
    return Scored(log_probs_S, slopes(loss, log_probs_S), plan.n_tokens, plan.way)


def score_all(
    scorer: Scorer, sequences: Sequence[TokenSequence], *, token_budget: int, shared_prompt: bool = True
) -> Tensor:
    """Log-probability of every sequence, nats, float64 [S], without gradient."""
    families = make_families(sequences, shared_prompt=shared_prompt and scorer.packed)
    log_probs_S = torch.zeros(len(sequences), dtype=torch.float64)
    with torch.no_grad():
        for found in pack([family.n_tokens for family in families], token_budget, padded=not scorer.packed):
            score(scorer, sequences, [families[i] for i in found], log_probs_S)
    return log_probs_S


def _whole(
    scorer: Scorer,
    sequences: Sequence[TokenSequence],
    loss: Callable[[Tensor], Tensor],
    plan: Plan,
    log_probs_S: Tensor,
) -> None:
    families = [family for part in plan.parts for family in part.families]
    if families:
        graph, members = score(scorer, sequences, families, log_probs_S)
        back(graph, slopes(loss, log_probs_S)[members])


def _streamed(
    scorer: Scorer,
    sequences: Sequence[TokenSequence],
    loss: Callable[[Tensor], Tensor],
    plan: Plan,
    log_probs_S: Tensor,
) -> None:
    # What is not known yet is 0 and does not reach the slopes that are used: that is what the coupling says.
    prompts = _Prompts(scorer, plan.parts)
    held: list[tuple[Part, Tensor, list[int]]] = []
    for now, part in enumerate(plan.parts):
        held.append((part, *score(scorer, sequences, part.families, log_probs_S, prompts.of(part))))
        slopes_S = slopes(loss, log_probs_S)
        for each, graph, members in [entry for entry in held if entry[0].needs <= now]:
            back(graph, slopes_S[members])
            prompts.done_with(each)
        held = [entry for entry in held if entry[0].needs > now]


def _two_passes(
    scorer: Scorer,
    sequences: Sequence[TokenSequence],
    loss: Callable[[Tensor], Tensor],
    plan: Plan,
    log_probs_S: Tensor,
) -> None:
    with torch.no_grad():
        prompts = _Prompts(scorer, plan.parts)
        for part in plan.parts:
            score(scorer, sequences, part.families, log_probs_S, prompts.of(part))
            prompts.done_with(part)
    slopes_S = slopes(loss, log_probs_S)
    prompts = _Prompts(scorer, plan.parts)
    for part in plan.parts:
        graph, members = score(scorer, sequences, part.families, log_probs_S.clone(), prompts.of(part))
        back(graph, slopes_S[members])
        prompts.done_with(part)


class _Prompts:
    """Prompts of the parts that share one: each computed when its first part comes, back-propagated after its last."""

    def __init__(self, scorer: Scorer, parts: Sequence[Part]) -> None:
        self.scorer = scorer
        self.left = Counter(part.prompt for part in parts)
        self.graphs: dict[tuple[int, ...], list[Tensor]] = {}
        self.leaves: dict[tuple[int, ...], list[_Leaf]] = {}
        self.layers: list[int] = []

    def of(self, part: Part) -> Outside | None:
        if part.prompt is None:
            return None
        if part.prompt not in self.graphs:
            self._compute(part.prompt)
        leaves = [leaf.tensor for leaf in self.leaves[part.prompt]]
        states = {layer: (leaves[2 * i], leaves[2 * i + 1]) for i, layer in enumerate(self.layers)}
        return Outside(states, leaves[-1])

    def done_with(self, part: Part) -> None:
        if part.prompt is None:
            return
        self.left[part.prompt] -= 1
        if self.left[part.prompt]:
            return
        graphs, leaves = self.graphs.pop(part.prompt), self.leaves.pop(part.prompt)
        pairs = [(graph, leaf.slope) for graph, leaf in zip(graphs, leaves, strict=True) if leaf.slope is not None]
        if pairs:
            torch.autograd.backward([graph for graph, _ in pairs], [slope.to(graph.dtype) for graph, slope in pairs])

    def _compute(self, prompt: tuple[int, ...]) -> None:
        batch = make_batch([TokenSequence("prompt", prompt, ())], [Family((0,), len(prompt), 0)])
        captured: dict[int, tuple[Tensor, Tensor]] = {}
        layout = None if batch.layout is None else replace(batch.layout, captured=captured)
        hidden_BTD = self.scorer.states_of(replace(batch, layout=layout).to(self.scorer.device))
        self.layers = sorted(captured)
        self.graphs[prompt] = [*(each for layer in self.layers for each in captured[layer]), hidden_BTD[0, -1:]]
        self.leaves[prompt] = [_Leaf(graph) for graph in self.graphs[prompt]]


class _Leaf:
    """A tensor cut off from its graph, whose gradient adds up in at least float32."""

    def __init__(self, graph: Tensor) -> None:
        self.tensor = graph.detach()
        self.slope: Tensor | None = None
        if graph.requires_grad:
            self.tensor.requires_grad_()
            self.tensor.register_post_accumulate_grad_hook(self._add)

    def _add(self, leaf: Any) -> None:
        wide = leaf.grad.to(torch.promote_types(leaf.dtype, torch.float32))
        self.slope = wide if self.slope is None else self.slope.add_(wide)
        leaf.grad = None


def score(
    scorer: Scorer,
    sequences: Sequence[TokenSequence],
    families: Sequence[Family],
    log_probs_S: Tensor,
    outside: Outside | None = None,
) -> tuple[Tensor, list[int]]:
    """Log-probabilities of the families' members, with their graph; also written into the list of all."""
    batch = make_batch(sequences, families, packed=scorer.packed, outside=outside).to(scorer.device)
    graph: Tensor = scorer(batch)
    members = list(batch.members)
    log_probs_S[members] = graph.detach().cpu().double()
    return graph, members


def back(graph: Tensor, slope_S: Tensor) -> None:
    """Back-propagate from log-probabilities with their slopes."""
    if graph.requires_grad:  # not so for responses of one token with nothing before it
        graph.backward(slope_S.to(graph.device, graph.dtype))


def slopes(loss: Callable[[Tensor], Tensor], log_probs_S: Tensor) -> Tensor:
    """c_i = d loss / d log p_i."""
    leaf_S = log_probs_S.clone().requires_grad_()
    (gradient_S,) = torch.autograd.grad(loss(leaf_S), leaf_S)
    return gradient_S
