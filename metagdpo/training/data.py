"""What training is given: groups ready to be trained on, and which of them are held out."""

# ruff: noqa: N815  (shape suffixes are upper case: G responses of one group)
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metagdpo.errors import DataError
from metagdpo.models.port import derived_seed
from metagdpo.objectives.scores import GroupScores
from metagdpo.records.group import ResponseGroup
from metagdpo.records.reference import ReferenceLogProb
from metagdpo.training.collate import TokenSequence, group_sequences
from metagdpo.training.reference import reference_of
from metagdpo.training.settings import SequenceParams


@dataclass(frozen=True)
class TrainGroup:
    """A group ready to be trained on."""

    sequences: tuple[TokenSequence, ...]
    rewards_G: Tensor
    reference_G: Tensor
    """Log-probability of each response's scored tokens under the base, nats, float64."""
    weight: float = 1.0
    """What its loss is multiplied by."""

    def scores(self, log_probs_G: Tensor) -> GroupScores:
        """The group with the policy's log-probabilities, as objectives see it."""
        return GroupScores(
            log_probs_G=log_probs_G,
            reference_G=self.reference_G.to(log_probs_G.device),
            rewards_G=self.rewards_G.to(log_probs_G.device),
            lengths_G=torch.tensor([sequence.n_scored for sequence in self.sequences], device=log_probs_G.device),
        )


def train_groups(
    tokenizer: Any,
    groups: Sequence[ResponseGroup],
    references: Mapping[str, ReferenceLogProb],
    settings: SequenceParams,
) -> list[TrainGroup]:
    """The groups that prefer something; the others are passed over.

    Raises:
        DataError: No group has a preference, or a prompt leaves no room for a response.
        EvidenceError: A reference log-probability is missing or belongs to another text.
    """
    kept = [group for group in groups if not group.degenerate]
    if not kept:
        message = (
            f"none of the {len(groups)} groups has two different rewards, so there is nothing to prefer. In section "
            "`respond`, raise n or the temperature of a teacher, or select questions that it answers only sometimes."
        )
        raise DataError(message)
    sequences = iter(group_sequences(tokenizer, kept, settings))
    ready = []
    for group in kept:
        members = tuple(next(sequences) for _ in group.responses)
        rewards_G = torch.tensor([response.reward for response in group.responses], dtype=torch.float64)
        ready.append(TrainGroup(members, rewards_G, reference_of(references, members)))
    return ready


def hold_out(groups: Sequence[TrainGroup], share: float, seed: int) -> tuple[list[TrainGroup], list[TrainGroup]]:
    """Groups to train on and groups to measure; which is which depends on the seed and their number only.

    Raises:
        DataError: A positive share that leaves nothing on one side.
    """
    if share == 0:
        return list(groups), []
    n = round(share * len(groups))
    if not 0 < n < len(groups):
        message = (
            f"train.held_out_share = {share} of {len(groups)} groups is {n}, which leaves nothing to "
            f"{'train on' if n else 'measure'}. Choose another share, or more questions."
        )
        raise DataError(message)
    chosen = set(shuffled(len(groups), seed, "held_out", 0)[:n])
    return (
        [group for i, group in enumerate(groups) if i not in chosen],
        [group for i, group in enumerate(groups) if i in chosen],
    )


def shuffled(n: int, seed: int, what: str, epoch: int) -> list[int]:
    """An order of n things that only its arguments decide."""
    generator = torch.Generator().manual_seed(derived_seed(seed, what, epoch))
    return [int(i) for i in torch.randperm(n, generator=generator)]
