"""Who computes what in a step, and how many tokens that is; from counts alone, so it is known before a model runs.

Groups and texts are shared out over the processes, each packs its groups into coupled sets within the token budget, and
training/plan.py says how a set is computed. engine.py and anchoring.py carry out what is planned here.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from metagdpo.training.collate import TokenSequence, make_families, pack
from metagdpo.training.data import TrainGroup, shuffled
from metagdpo.training.parallel import shares
from metagdpo.training.plan import make_plan
from metagdpo.training.settings import TrainParams


def groups_of_step(n: int, step: int, per_step: int, seed: int) -> list[int]:
    """Which of n groups a step trains on: each once an epoch, in an order that only seed and epoch decide."""
    epoch, position = divmod(step, math.ceil(n / per_step))
    return shuffled(n, seed, "groups", epoch)[position * per_step : (position + 1) * per_step]


def group_size(group: TrainGroup, params: TrainParams, *, packed: bool) -> int:
    """Tokens of a group in one pass, padding included where the model cannot pack."""
    families = make_families(group.sequences, shared_prompt=params.shared_prompt and packed)
    if packed:
        return sum(family.n_tokens for family in families)
    return len(families) * max(family.n_tokens for family in families)


def coupled_sets(
    groups: Sequence[TrainGroup], params: TrainParams, *, packed: bool, processes: int
) -> list[list[list[int]]]:
    """For each process, positions of the groups in each of its coupled sets."""
    sizes = [group_size(group, params, packed=packed) for group in groups]
    return [
        [[mine[i] for i in together] for together in pack([sizes[i] for i in mine], params.token_budget)]
        for mine in shares(sizes, processes)
    ]


def coupling_of(groups: Sequence[TrainGroup], params: TrainParams) -> Tensor:
    """What the objective couples in a set: nothing across groups. bool [S, S] over the groups' sequences."""
    return torch.block_diag(*(params.objective.coupling(group.rewards_G) for group in groups)).bool()


def group_tokens(
    groups: Sequence[TrainGroup], params: TrainParams, *, packed: bool, processes: int = 1, sharded: bool = False
) -> int:
    """Tokens that all processes compute with gradient for a step's groups: what the objective does not use left out.

    Args:
        groups: Of the step.
        params: Section `train`.
        packed: Whether the model can attend over packed rows.
        processes: How many share the step.
        sharded: Whether weights are split over them.
    """
    total = 0
    for sets in coupled_sets(groups, params, packed=packed, processes=processes):
        for found in sets:
            members = [groups[i] for i in found]
            total += make_plan(
                [sequence for group in members for sequence in group.sequences],
                coupling_of(members, params),
                params.token_budget,
                shared_prompt=params.shared_prompt,
                packed=packed,
                apart=not sharded,
            ).n_tokens
    return total


def text_tokens(texts: Sequence[TokenSequence], params: TrainParams, *, packed: bool, processes: int = 1) -> int:
    """Tokens that all processes compute with gradient for the texts that one anchor takes in a step."""
    costs = [len(each.prompt_ids) + each.n_computed for each in texts]
    total = 0
    for mine in shares(costs, processes):
        families = make_families([texts[i] for i in mine], shared_prompt=params.shared_prompt and packed)
        total += sum(family.n_tokens for family in families)
    return total


def step_tokens(
    groups: Sequence[TrainGroup],
    texts: Iterable[Sequence[TokenSequence]],
    params: TrainParams,
    *,
    packed: bool,
    processes: int = 1,
    sharded: bool = False,
) -> int:
    """Tokens that all processes compute with gradient in a step; equal to what the step then logs as `tokens`.

    Args:
        groups: Of the step.
        texts: Those that each anchor takes.
        params: Section `train`.
        packed: Whether the model can attend over packed rows.
        processes: How many share the step.
        sharded: Whether weights are split over them.
    """
    of_groups = group_tokens(groups, params, packed=packed, processes=processes, sharded=sharded)
    return of_groups + sum(text_tokens(found, params, packed=packed, processes=processes) for found in texts)
