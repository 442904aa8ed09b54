"""Carries out the anchors (objectives/anchors.py): which texts a step takes, and their gradients.

CFS and the KL to the base see texts, each a few at a time; L2-SP sees the weights. For the KL the base's hidden states
at every scored token are kept from the start: D numbers a token instead of V logits, and no second forward of the base.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metagdpo.errors import DataError
from metagdpo.objectives.anchors import (
    KlToBase,
    L2Sp,
    context_free_nll,
    kl_to_base,
    l2_sp,
    low_rank_square,
)
from metagdpo.training.accumulate import back
from metagdpo.training.collate import Batch, TokenSequence, make_batch, make_families, pack
from metagdpo.training.data import shuffled
from metagdpo.training.divergence import token_kl
from metagdpo.training.lockstep import ALONE, NOTHING
from metagdpo.training.logprobs import Read, Scorer, log_prob_sums
from metagdpo.training.parallel import Workers
from metagdpo.training.settings import TrainParams

METRIC = {"context_free": "cfs_nll", "kl": "kl_to_base", "l2_sp": "l2_sp"}
"""Under which name each anchor's value is reported, without its weight."""


@dataclass(frozen=True)
class BaseStates:
    """What the KL needs of the base: hidden states by text, and its vocabulary projection."""

    hidden: dict[str, Tensor]
    """[n scored tokens, D] of each text, by key, on the CPU."""
    head_VD: Tensor  # noqa: N815  (shape suffix)


class Anchoring:
    """The anchors of one training.

    Args:
        params: Section `train`.
        texts: Sequences by name: `context_free` and `groups`.
        base: The base, not yet changed into the policy; looked at only where an anchor needs it.
        seed: Decides which texts a step takes.

    Raises:
        DataError: An anchor wants texts and there are none.
    """

    def __init__(
        self, params: TrainParams, texts: Mapping[str, Sequence[TokenSequence]], base: Scorer, *, seed: int
    ) -> None:
        self.params, self.seed = params, seed
        self.texts = {
            kind: [each for each in found if each.n_scored] for kind, found in texts.items() if kind in _wanted(params)
        }
        for kind, found in self.texts.items():
            if not found:
                raise DataError(f"an anchor in train.anchors wants {kind} texts and there are none. {_TO_GET[kind]}")
        kinds = {anchor.texts for anchor in params.anchors if isinstance(anchor, KlToBase)}
        own = [each for kind in sorted(kinds) for each in self.texts[kind]]
        self.base = _base_states(base, own, params) if own else None
        self.start: dict[str, Tensor] = {}

    def remember_start(self, named: Mapping[str, Tensor]) -> None:
        """Keep where the weights start, for L2-SP in full fine-tuning; a LoRA update starts at 0 by itself."""
        if self.params.method == "full" and any(isinstance(anchor, L2Sp) for anchor in self.params.anchors):
            self.start = {name: tensor.detach().clone() for name, tensor in named.items()}

    def text_gradients(self, scorer: Scorer, step: int, workers: Workers) -> tuple[dict[str, float], float, int]:
        """Add this process's share of the gradients of anchors that see texts.

        Returns:
            This process's part of each value, of their weighted sum, and tokens computed.
        """
        values: dict[str, float] = {}
        weighted, n_tokens = 0.0, 0
        for number, anchor in enumerate(self.params.anchors):
            if isinstance(anchor, L2Sp):
                continue
            texts = self.texts[anchor.texts if isinstance(anchor, KlToBase) else "context_free"]
            name = "context_free" if number == 0 else f"anchor {number}"
            chosen = [texts[i] for i in samples_of_step(len(texts), step, anchor.per_step, self.seed, name)]
            mine = [chosen[i] for i in workers.share([len(each.prompt_ids) + each.n_computed for each in chosen])]
            lengths_S = torch.tensor([each.n_scored for each in chosen])
            # Both are linear in what they sum over the tokens of a text, so a text counts 1 / (tokens of all texts).
            kl = isinstance(anchor, KlToBase)
            term = kl_to_base if kl else context_free_nll
            slope = anchor.weight * float(term(torch.ones(1, dtype=torch.float64), lengths_S))
            read = self._divergences if kl else _log_probs
            total, computed = _backward_of_sum(scorer, mine, slope, read, workers=workers, params=self.params)
            value = float(term(torch.tensor([total], dtype=torch.float64), lengths_S))
            values[METRIC[anchor.kind]] = values.get(METRIC[anchor.kind], 0.0) + value
            weighted += anchor.weight * value
            n_tokens += computed
        return values, weighted, n_tokens

    def weight_gradients(self, model: Any, named: Mapping[str, Tensor]) -> tuple[dict[str, float], float]:
        """Add the gradient of L2-SP, once the gradients of all processes have been added up.

        Returns:
            The value, and the weighted value.
        """
        values: dict[str, float] = {}
        weighted = 0.0
        for anchor in self.params.anchors:
            if not isinstance(anchor, L2Sp):
                continue
            if self.start:
                found = l2_sp(tensor - self.start[name] for name, tensor in named.items())
            else:
                squares = [
                    low_rank_square(module.lora_A[key].weight, module.lora_B[key].weight, module.scaling[key])
                    for module in model.modules()
                    for key in getattr(module, "lora_A", {})
                ]
                found = torch.stack(squares).sum() / 2
            (anchor.weight * found).backward()
            values[METRIC["l2_sp"]] = float(found.detach())
            weighted += anchor.weight * values[METRIC["l2_sp"]]
        return values, weighted

    def _divergences(self, members: Sequence[TokenSequence]) -> Read:
        base = self.base
        assert base is not None

        def read(batch: Batch, hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
            states = [base.hidden.get(each.key, base.head_VD[: each.n_scored].cpu()) for each in members]
            kl_N = token_kl(hidden_ND, weight_VD, torch.cat(states).to(hidden_ND.device), base.head_VD)
            return kl_N.new_zeros(len(batch.members)).index_add(0, batch.owner_N, kl_N)

        return read


def samples_of_step(n: int, step: int, per_step: int, seed: int, what: str = "context_free") -> list[int]:
    """Which of n texts a step uses: an endless walk through reshuffled passes, whole passes apart."""
    walk = range(step * per_step, (step + 1) * per_step)
    return [shuffled(n, seed, what, i // n)[i % n] for i in walk]


_TO_GET = {
    "context_free": "Run `dvc repro preserve`.",
    "groups": "Take texts: context_free, or look at data/groups.jsonl.",
}


def _wanted(params: TrainParams) -> set[str]:
    return {
        anchor.texts if isinstance(anchor, KlToBase) else "context_free"
        for anchor in params.anchors
        if not isinstance(anchor, L2Sp)
    }


def _log_probs(_members: Sequence[TokenSequence]) -> Read:
    return log_prob_sums


def _base_states(base: Scorer, sequences: Sequence[TokenSequence], params: TrainParams) -> BaseStates:
    families = make_families(sequences, shared_prompt=params.shared_prompt and base.packed)
    hidden: dict[str, Tensor] = {}
    head_VD = torch.empty(0)
    sizes = [family.n_tokens for family in families]
    for found in pack(sizes, params.token_budget, padded=not base.packed):
        batch = make_batch(sequences, [families[i] for i in found], packed=base.packed).to(base.device)
        with torch.no_grad():
            hidden_ND, head_VD = base.hidden(batch)
        parts = hidden_ND.cpu().split([sequences[i].n_scored for i in batch.members])
        hidden |= {sequences[i].key: part.clone() for i, part in zip(batch.members, parts, strict=True)}
    return BaseStates(hidden, head_VD.detach().clone() if params.method == "full" else head_VD.detach())


def _backward_of_sum(
    scorer: Scorer,
    sequences: Sequence[TokenSequence],
    slope: float,
    read_of: Callable[[Sequence[TokenSequence]], Read],
    *,
    workers: Workers,
    params: TrainParams,
) -> tuple[float, int]:
    """Add slope times the gradient of the sum of what is read; return the sum and the tokens computed."""
    families = make_families(sequences, shared_prompt=params.shared_prompt and scorer.packed)
    sizes = [family.n_tokens for family in families]
    total = 0.0
    packs = pack(sizes, params.token_budget, padded=not scorer.packed)
    empty = workers.most(len(packs)) - len(packs) if workers.sharded else 0  # as in lockstep.py
    for found in packs:
        batch = make_batch(sequences, [families[i] for i in found], packed=scorer.packed).to(scorer.device)
        graph = scorer(batch, read_of([sequences[i] for i in batch.members]))
        total += float(graph.detach().cpu().double().sum())
        back(graph, torch.full_like(graph, slope))
    for _ in range(empty):
        graph = scorer(make_batch(NOTHING, ALONE, packed=scorer.packed).to(scorer.device), read_of(NOTHING))
        back(graph, torch.zeros_like(graph))
    return total, sum(sizes)
