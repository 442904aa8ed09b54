"""Carries out the anchors (objectives/anchors.py): which texts a step takes, and their gradients.

CFS, self-dialogues and the KL to the base see texts, each a few at a time; EWC and L2-SP see the weights. For the KL
the base's hidden states at every scored token are kept from the start: D numbers a token instead of V logits, and no
second forward of the base.

Each anchor is a mean over its own tokens, has its own coefficient and reports under its own name.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metagdpo.errors import DataError
from metagdpo.objectives import Anchor
from metagdpo.objectives.anchors import (
    ContextFree,
    Ewc,
    KlToBase,
    L2Sp,
    SelfDialogues,
    kl_to_base,
    own_text_nll,
)
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue
from metagdpo.training.accumulate import back
from metagdpo.training.base_states import BaseStates, base_states
from metagdpo.training.collate import (
    Batch,
    TokenSequence,
    context_free_sequences,
    dialogue_sequences,
    make_batch,
    make_families,
    pack,
)
from metagdpo.training.data import shuffled
from metagdpo.training.divergence import token_kl
from metagdpo.training.fisher import fisher_diagonal, pull
from metagdpo.training.lockstep import ALONE, NOTHING
from metagdpo.training.logprobs import Read, Scorer, log_prob_sums
from metagdpo.training.parallel import Workers
from metagdpo.training.settings import TrainParams

METRIC = {
    "context_free": "cfs_nll",
    "self_dialogue": "dialogue_nll",
    "kl": "kl_to_base",
    "ewc": "ewc",
    "l2_sp": "l2_sp",
}
"""Under which name each kind's value is reported, without its weight; see `metric_names`."""
TextAnchor = ContextFree | SelfDialogues | KlToBase


class Anchoring:
    """The anchors of one training.

    Args:
        params: Section `train`.
        texts: Sequences by name, from `anchor_texts`; a name that no anchor wants may be absent.
        base: The base, not yet changed into the policy; looked at only where an anchor needs it.
        seed: Decides which texts a step takes.

    Raises:
        DataError: An anchor wants texts and there are none.
    """

    def __init__(
        self, params: TrainParams, texts: Mapping[str, Sequence[TokenSequence]], base: Scorer, *, seed: int
    ) -> None:
        self.params, self.seed = params, seed
        self.names = metric_names(params.anchors)
        """Under which each anchor reports, in their order."""
        self.texts = {name: [each for each in texts.get(name, ()) if each.n_scored] for name in _wanted(params)}
        for name, found in self.texts.items():
            if not found:
                kind = name.partition("/")[0]
                raise DataError(f"an anchor in train.anchors wants {kind} texts and there are none. {_TO_GET[kind]}")
        compared = {text_name(anchor) for anchor in params.anchors if isinstance(anchor, KlToBase)}
        own = [each for name in sorted(compared) for each in self.texts[name]]
        self.base = _states(base, own, params) if own else None
        self.start: dict[str, Tensor] = {}
        self.fishers: dict[int | None, dict[str, Tensor]] = {}

    def remember_start(self, scorer: Scorer, named: Mapping[str, Tensor], workers: Workers) -> None:
        """Keep what L2-SP and EWC need of the base; before the first update and before a checkpoint is restored.

        Args:
            scorer: The policy, still the base.
            named: The weights that learn, by name; where a LoRA update starts needs no keeping, it is 0.
            workers: The processes; each computes its share of the Fisher diagonal.
        """
        weight_anchors = [anchor for anchor in self.params.anchors if isinstance(anchor, Ewc | L2Sp)]
        if self.params.method == "full" and weight_anchors:
            self.start = {name: tensor.detach().clone() for name, tensor in named.items()}
        for anchor in weight_anchors:
            if isinstance(anchor, Ewc) and anchor.samples not in self.fishers:
                chosen = self.texts["context_free"][: anchor.samples]
                self.fishers[anchor.samples] = fisher_diagonal(scorer, chosen, workers)

    def texts_of_step(self, step: int) -> list[tuple[TextAnchor, list[TokenSequence]]]:
        """Which texts each anchor that sees texts takes in a step."""
        found = []
        for number, anchor in enumerate(self.params.anchors):
            if isinstance(anchor, Ewc | L2Sp):
                continue
            texts = self.texts[text_name(anchor)]
            name = "context_free" if number == 0 else f"anchor {number}"
            chosen = [texts[i] for i in samples_of_step(len(texts), step, anchor.per_step, self.seed, name)]
            found.append((anchor, chosen))
        return found

    def text_gradients(self, scorer: Scorer, step: int, workers: Workers) -> tuple[dict[str, float], float, int]:
        """Add this process's share of the gradients of anchors that see texts.

        Returns:
            This process's part of each value, of their weighted sum, and tokens computed.
        """
        values: dict[str, float] = {}
        weighted, n_tokens = 0.0, 0
        pairs = zip(self.names, self.params.anchors, strict=True)
        names = [name for name, anchor in pairs if not isinstance(anchor, Ewc | L2Sp)]
        for name, (anchor, chosen) in zip(names, self.texts_of_step(step), strict=True):
            value, computed = self._text_gradient(scorer, anchor, chosen, workers)
            values[name] = value
            weighted += anchor.weight * value
            n_tokens += computed
        return values, weighted, n_tokens

    def _text_gradient(
        self, scorer: Scorer, anchor: TextAnchor, chosen: Sequence[TokenSequence], workers: Workers
    ) -> tuple[float, int]:
        """One anchor's part of `text_gradients`: its value without the weight, and tokens computed."""
        mine = [chosen[i] for i in workers.share([len(each.prompt_ids) + each.n_computed for each in chosen])]
        lengths_S = torch.tensor([each.n_scored for each in chosen])
        # Both are linear in what they sum over the tokens of a text, so a text counts 1 / (tokens of all texts).
        kl = isinstance(anchor, KlToBase)
        term = kl_to_base if kl else own_text_nll
        slope = anchor.weight * float(term(torch.ones(1, dtype=torch.float64), lengths_S))
        read = self._divergences if kl else _log_probs
        total, computed = _backward_of_sum(scorer, mine, slope, read, workers=workers, params=self.params)
        return float(term(torch.tensor([total], dtype=torch.float64), lengths_S)), computed

    def weight_gradients(self, model: Any, named: Mapping[str, Tensor]) -> tuple[dict[str, float], float]:
        """Add the gradients of L2-SP and EWC, once the gradients of all processes have been added up.

        Returns:
            Each value, and their weighted sum.
        """
        values: dict[str, float] = {}
        weighted = 0.0
        for name, anchor in zip(self.names, self.params.anchors, strict=True):
            if not isinstance(anchor, Ewc | L2Sp):
                continue
            fisher = self.fishers[anchor.samples] if isinstance(anchor, Ewc) else None
            value = pull(model, named, self.start, anchor.weight, fisher)
            values[name] = value
            weighted += anchor.weight * value
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


def anchor_texts(
    *,
    context_free: Iterable[ContextFreeSample],
    self_dialogues: Iterable[SelfDialogue],
    groups: Iterable[TokenSequence],
) -> dict[str, list[TokenSequence]]:
    """Everything that anchors may look at, by the names that `text_name` gives.

    Args:
        context_free: Training part of the context-free samples; may be empty.
        self_dialogues: May be empty.
        groups: Responses of the training groups, every token scored: a token mask keeps tokens from being learned, it
            does not keep them from being held.
    """
    dialogues = list(self_dialogues)
    return {
        "context_free": list(context_free_sequences(context_free)),
        "groups": list(groups),
        "self_dialogue/assistant": list(dialogue_sequences(dialogues, "assistant")),
        "self_dialogue/all": list(dialogue_sequences(dialogues, "all")),
    }


def text_name(anchor: TextAnchor | Ewc) -> str:
    """Which of the texts an anchor looks at; the KL compares dialogues at every token that the base sampled."""
    if isinstance(anchor, SelfDialogues):
        return f"self_dialogue/{anchor.learn}"
    if isinstance(anchor, KlToBase):
        return "self_dialogue/all" if anchor.texts == "self_dialogue" else anchor.texts
    return "context_free"


def metric_names(anchors: Sequence[Anchor]) -> list[str]:
    """The name under which each anchor's value is reported; the second of a kind gets `_2`, the third `_3`."""
    seen: Counter[str] = Counter()
    names = []
    for anchor in anchors:
        name = METRIC[anchor.kind]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


_TO_GET = {
    "context_free": "Raise preserve.context_free.ratio in params.yaml, then run `dvc repro`.",
    "groups": "Take texts: context_free, or look at data/groups.jsonl.",
    "self_dialogue": "Where preserve.self_dialogue in params.yaml is null, none are made: give it values "
    "(docs/parameters.md), then run `dvc repro`. If it has values, look at the counts in data/preservation.json.",
}


def _wanted(params: TrainParams) -> list[str]:
    return sorted({text_name(anchor) for anchor in params.anchors if not isinstance(anchor, L2Sp)})


def _log_probs(_members: Sequence[TokenSequence]) -> Read:
    return log_prob_sums


def _states(base: Scorer, texts: Sequence[TokenSequence], params: TrainParams) -> BaseStates:
    # In full fine-tuning the projection is about to change.
    return base_states(
        base,
        texts,
        token_budget=params.token_budget,
        shared_prompt=params.shared_prompt,
        copy_head=params.method == "full",
    )


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
