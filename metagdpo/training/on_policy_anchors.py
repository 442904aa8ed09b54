"""The anchors of section `train` beside TRL: what they need of the base, their gradients, what a step reports of them.

TRL makes the gradient of the policy's own answers; what is added here lies beside it in the same tensors before the
norm is clipped, so an update minimises `policy_loss + anchor_loss`, with anchor_loss = sum of weight * value.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from metagdpo.objectives.anchors import KlToBase
from metagdpo.records.group import ResponseGroup
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue
from metagdpo.training.anchoring import Anchoring, anchor_texts
from metagdpo.training.collate import group_sequences
from metagdpo.training.logprobs import Scorer
from metagdpo.training.parallel import Workers
from metagdpo.training.settings import SequenceParams, TrainParams


def anchors_at_base(
    base: Any,
    tokenizer: Any,
    groups: Sequence[ResponseGroup],
    *,
    context_free: Iterable[ContextFreeSample],
    self_dialogues: Iterable[SelfDialogue],
    params: TrainParams,
    sequences: SequenceParams,
    seed: int,
) -> Anchoring | None:
    """The anchors of an on-policy training that starts from the base; after an offline part `train` returns its own.

    Args:
        base: The loaded base, before `make_policy` changes it; moved to the device of the training.
        tokenizer: The base's.
        groups: Their responses are texts only for a `kl` anchor on `groups`.
        context_free: Training part of the context-free samples; may be empty when no anchor wants them.
        self_dialogues: May be empty when no anchor wants them.
        params: Section `train`.
        sequences: Section `reference`.
        seed: Decides which texts an update takes.

    Returns:
        None if there are no anchors; the base is then untouched.

    Raises:
        DataError: An anchor wants texts and there are none, or a prompt leaves no room for a response.
    """
    if not params.anchors:
        return None
    wants_groups = any(isinstance(anchor, KlToBase) and anchor.texts == "groups" for anchor in params.anchors)
    responses = group_sequences(tokenizer, groups, sequences) if wants_groups else ()
    texts = anchor_texts(context_free=context_free, self_dialogues=self_dialogues, groups=responses)
    return Anchoring(params, texts, Scorer(base.to(Workers().device)), seed=seed)


class StepAnchors:
    """The anchors of one step at a time, which may have several updates.

    Args:
        anchoring: Made from the base before it became the policy.
        policy: Learns.
        named: What the optimiser updates, by name.
        at_base: The policy is still the base; otherwise the anchors know where it started.
    """

    def __init__(self, anchoring: Anchoring, policy: Any, named: Mapping[str, Tensor], *, at_base: bool) -> None:
        self._anchoring, self._named = anchoring, named
        self._scorer, self._workers = Scorer(policy), Workers()
        self._found: list[dict[str, float]] = []
        self._n_tokens = 0
        if at_base:
            anchoring.remember_start(self._scorer, named, self._workers)

    def add_gradients(self, update: int) -> None:
        """Add weight * gradient of every anchor to the gradients that are there.

        Args:
            update: Counted over the whole training, the offline part included: decides which texts are taken.
        """
        texts, text_weighted, n_tokens = self._anchoring.text_gradients(self._scorer, update, self._workers)
        own, own_weighted = self._anchoring.weight_gradients(self._scorer.policy, self._named)
        self._found.append({**texts, **own, "anchor_loss": text_weighted + own_weighted})
        self._n_tokens += n_tokens

    def of_step(self) -> tuple[dict[str, float], int]:
        """Means over the updates since the last call, each before its update; and tokens computed, which add up."""
        found, n_tokens = self._found, self._n_tokens
        self._found, self._n_tokens = [], 0
        return {name: sum(each[name] for each in found) / len(found) for name in found[0]}, n_tokens
