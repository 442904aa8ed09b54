"""How the gradient of one coupled set of sequences is computed within a token budget: in which parts, in which order.

Pure bookkeeping over token counts; training/accumulate.py carries it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np
from torch import Tensor

from metagdpo.training.collate import Family, TokenSequence, make_families, pack

Way = Literal["whole", "streamed", "two_passes"]
WINDOWS = (2, 3, 4, 6, 8)
"""Parts that the budget is tried to be divided into when a group is streamed; the fewest that suffice are used."""


@dataclass(frozen=True)
class Part:
    """Sequences that are computed in one forward pass."""

    families: tuple[Family, ...]
    needs: int
    """Position of the part after whose forward pass all that this one is coupled with is known."""
    prompt: tuple[int, ...] | None = None
    """The shared prompt that was computed apart."""

    @property
    def n_tokens(self) -> int:
        """Tokens that go through the model in this part."""
        return sum(family.n_responses if self.prompt is not None else family.n_tokens for family in self.families)


@dataclass(frozen=True)
class Plan:
    """How one coupled set is computed."""

    way: Way
    parts: tuple[Part, ...]
    """With gradient."""
    measured: tuple[tuple[Family, ...], ...]
    """Forward only: the loss does not depend on these sequences, but what is reported does."""
    n_tokens: int
    """Tokens computed with gradient, each shared prompt once."""


def make_plan(
    sequences: Sequence[TokenSequence],
    coupling_SS: Tensor,
    token_budget: int,
    *,
    shared_prompt: bool,
    packed: bool,
    apart: bool = True,
) -> Plan:
    """Choose the way and the parts.

    Args:
        sequences: The S sequences of the set.
        coupling_SS: As in `accumulate.backward_through`.
        token_budget: Tokens, padding included, whose activations may be held at once.
        shared_prompt: Whether prompts may be shared.
        packed: Whether the model can attend over packed rows; otherwise nothing is shared and rows are padded.
        apart: Whether parts may share a prompt computed apart, and be streamed; otherwise each computes it anew.
    """
    coupled = coupling_SS.cpu().numpy()
    involved = [i for i in range(len(sequences)) if coupled[i, i]]
    others = [i for i in range(len(sequences)) if not coupled[i, i]]
    share = shared_prompt and packed
    families = _families(sequences, involved, share=share)
    aside = _families(sequences, others, share=share)
    measured = tuple(
        tuple(aside[i] for i in found)
        for found in pack([family.n_tokens for family in aside], token_budget, padded=not packed)
    )
    n_tokens = sum(family.n_tokens for family in families)
    cost = n_tokens if packed else len(families) * max((family.n_tokens for family in families), default=0)
    if cost <= token_budget:
        return Plan("whole", (Part(tuple(families), 0),), measured, n_tokens)
    order = [involved[i] for i in _narrow_order(coupled[np.ix_(involved, involved)])]
    together = {member: family for family in families for member in family.members if len(family.members) > 1}
    prompts = sum(family.n_prompt for family in families if len(family.members) > 1)
    room = max(1, token_budget - prompts)
    for window in WINDOWS if apart else ():
        parts = _parts(sequences, order, together, coupled, room // window, packed=packed)
        if _most_held(parts) <= room:
            return Plan("streamed", parts, measured, n_tokens)
    order = [i for family in families for i in family.members]
    parts = _parts(sequences, order, together, coupled, room, packed=packed)
    if not apart:
        parts = tuple(replace(part, prompt=None) for part in parts)
        n_tokens = sum(part.n_tokens for part in parts)
    return Plan("two_passes", parts, measured, n_tokens)


def _families(sequences: Sequence[TokenSequence], chosen: Sequence[int], *, share: bool) -> list[Family]:
    found = make_families([sequences[i] for i in chosen], shared_prompt=share)
    return [Family(tuple(chosen[i] for i in f.members), f.n_prompt, f.n_responses) for f in found]


def _narrow_order(coupled: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]") -> list[int]:
    """An order in which coupled sequences stand close together: reverse Cuthill-McKee; of a chain, the chain."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    return [int(i) for i in reverse_cuthill_mckee(csr_array(coupled.astype(np.int8)), symmetric_mode=True)]


def _parts(
    sequences: Sequence[TokenSequence],
    order: Sequence[int],
    together: dict[int, Family],
    coupled: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]",
    size: int,
    *,
    packed: bool,
) -> tuple[Part, ...]:
    """Cut the order into parts of at most `size` tokens, at least one sequence each, one shared prompt each."""
    parts: list[list[int]] = []
    shared: list[bool] = []
    for prompt, run in groupby(order, key=lambda i: sequences[i].prompt_ids if i in together else None):
        used = longest = 0
        first = True
        for i in run:
            alone = sequences[i].n_computed + (0 if prompt is not None else len(sequences[i].prompt_ids))
            longest = max(longest, alone)
            cost = used + alone if packed else longest * (1 if first else len(parts[-1]) + 1)
            if first or cost > size:
                parts.append([])
                shared.append(prompt is not None)
                used, longest, first = 0, alone, False
            parts[-1].append(i)
            used += alone
    place = {i: position for position, members in enumerate(parts) for i in members}
    found = []
    for members, has_prompt in zip(parts, shared, strict=True):
        needs = max(place[j] for i in members for j in np.flatnonzero(coupled[i]).tolist() if j in place)
        prompt_ids = sequences[members[0]].prompt_ids
        if has_prompt:
            own: tuple[Family, ...] = (
                Family(tuple(members), len(prompt_ids), sum(sequences[i].n_computed for i in members)),
            )
        else:
            own = tuple(Family((i,), len(sequences[i].prompt_ids), sequences[i].n_computed) for i in members)
        found.append(Part(own, needs, prompt_ids if has_prompt else None))
    return tuple(found)


def _most_held(parts: Sequence[Part]) -> int:
    """Most tokens whose activations are held at once when every part goes as soon as it can."""
    most = 0
    for now in range(len(parts)):
        most = max(most, sum(part.n_tokens for i, part in enumerate(parts) if i <= now <= max(i, part.needs)))
    return most
