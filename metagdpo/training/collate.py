"""Texts to token sequences, sequences to families, families to rows under a token budget.

Shape legend: B rows, T positions of the longest row, N scored tokens, S sequences of the batch.

A family is [prompt, y_1 .. y_k]: sequences with the same prompt share its computation. Positions restart after the
prompt and each response sees the prompt and itself (training/attention.py), so scores and gradients are those of
separate sequences. Families stand side by side in one row, so nothing is padded. A model whose attention cannot do that
gets one padded row for each sequence. The last token of a response predicts nothing and is left out; with an empty
prompt nothing predicts the first one, and it is not scored. A mask says which tokens count in a sequence's
log-probability; the others are computed all the same, for those after them see them.
"""

# ruff: noqa: N815  (shape suffixes are upper case, see the legend)
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from metagdpo.errors import DataError, ModelError
from metagdpo.models.chat import render
from metagdpo.models.port import Message
from metagdpo.records.group import ResponseGroup
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue
from metagdpo.training.attention import Layout, Span
from metagdpo.training.settings import SequenceParams

SHARING_PAYS = 1.07
"""Token ratio from which on a shared prompt is worth the second part of its attention. Measured (docs/lab-log.md): at
1.05 it takes 1.05 times as long, at 1.09 it is 1.08 times as fast."""


@dataclass(frozen=True)
class TokenSequence:
    """One text to score: the response's tokens, given the prompt's."""

    key: str
    """`<question id>/<response index>`, `context_free/<index>` or `self_dialogue/<index>`."""
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    truncated: bool = False
    """The response was cut at max_length."""
    scored: tuple[bool, ...] | None = None
    """Which tokens of the response count, one entry for each; None for all."""

    def __post_init__(self) -> None:
        """Refuse a mask of another length.

        Raises:
            ValueError: There is not one entry for each token of the response.
        """
        if self.scored is not None and len(self.scored) != len(self.response_ids):
            message = f"{self.key}: a mask of {len(self.scored)} entries for {len(self.response_ids)} response tokens"
            raise ValueError(message)

    def masked(self, scored: Sequence[bool]) -> "TokenSequence":
        """The same text with another mask; what stands after the last scored token is cut off: it serves nothing."""
        end = max((i + 1 for i, counts in enumerate(scored) if counts), default=0)
        mask = None if all(scored[:end]) else tuple(scored[:end])
        return replace(self, response_ids=self.response_ids[:end], scored=mask)

    @property
    def n_computed(self) -> int:
        """Tokens of the response that go through the model: all but the last."""
        return max(0, len(self.response_ids) - 1)

    @property
    def scored_at(self) -> Sequence[int]:
        """Positions in the response of the tokens whose log-probability counts, in order."""
        with_something_before = range(0 if self.prompt_ids else 1, len(self.response_ids))
        if self.scored is None:
            return with_something_before
        return [i for i in with_something_before if self.scored[i]]

    @property
    def n_scored(self) -> int:
        """Tokens whose log-probability counts; without any, that of the sequence is 0 and has no gradient."""
        return len(self.scored_at)


@dataclass(frozen=True)
class Family:
    """Sequences that share one prompt, by their position in a list; one alone is a plain sequence."""

    members: tuple[int, ...]
    n_prompt: int
    """Tokens of the prompt."""
    n_responses: int
    """Tokens of the responses that go through the model."""

    @property
    def n_tokens(self) -> int:
        """Tokens that go through the model."""
        return self.n_prompt + self.n_responses


@dataclass(frozen=True)
class Outside:
    """A prompt that was computed in an earlier pass, as leaves of the graph."""

    states: dict[int, tuple[Tensor, Tensor]]
    """Keys and values by layer."""
    last_1D: Tensor
    """Hidden state of its last token, which predicts the first one of each response."""


@dataclass(frozen=True)
class Batch:
    """What one forward pass computes, and where each scored token is predicted."""

    input_ids_BT: Tensor
    position_ids_BT: Tensor | None
    """None where each row is one plain sequence."""
    layout: Layout | None
    """Of the one packed row; None for padded rows: causal attention never sees padding on the right."""
    source_N: Tensor
    """Position (in the flattened B * T) whose hidden state predicts the token; B * T is an outside prompt's last."""
    target_N: Tensor
    """The token itself."""
    owner_N: Tensor
    """Which of the S sequences it belongs to."""
    members: tuple[int, ...]
    """Positions of the S sequences in the list that the batch was made from."""
    n_tokens: int
    """Tokens that are computed, padding left out."""
    last_1D: Tensor | None = None
    """Hidden state of the last token of the outside prompt."""

    def to(self, device: Any) -> "Batch":
        """The same batch on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()})


def group_sequences(
    tokenizer: Any, groups: Iterable[ResponseGroup], settings: SequenceParams
) -> Iterator[TokenSequence]:
    """The sequences of every group that has a preference, in order; degenerate groups are passed over untokenised.

    Raises:
        DataError: A prompt leaves no room for a response within max_length.
        ModelError: The tokenizer has no chat template or no end-of-turn token.
    """
    ending = end_of_turn(tokenizer)
    for group in groups:
        if group.degenerate:
            continue
        prompt_ids = tuple(render(tokenizer, [Message(role="user", content=group.prompt)]))
        room = settings.max_length - len(prompt_ids)
        if room < 1:
            message = (
                f"the prompt of question {group.question_id} has {len(prompt_ids)} tokens, which leaves no room for a "
                f"response within reference.max_length = {settings.max_length}. Raise it, or drop the question."
            )
            raise DataError(message)
        for response in group.responses:
            ids = tokenizer(response.text, add_special_tokens=False)["input_ids"]
            if response.finish_reason == "stop":
                ids = [*ids, ending]
            key = f"{group.question_id}/{response.index}"
            yield TokenSequence(key, prompt_ids, tuple(ids[:room]), truncated=len(ids) > room)


def context_free_sequences(samples: Iterable[ContextFreeSample]) -> Iterator[TokenSequence]:
    """Context-free samples, scored on every token after the start symbol."""
    for sample in samples:
        yield TokenSequence(f"context_free/{sample.index}", sample.prefix_ids, sample.token_ids)


def dialogue_sequences(
    dialogues: Iterable[SelfDialogue], learn: Literal["assistant", "all"]
) -> Iterator[TokenSequence]:
    """Dialogues as one text each, scored on the assistant's tokens or all that were sampled, never on the template's.

    The prompt is what the template writes before the first sampled token, the response everything after it.

    Args:
        dialogues: In order; one without a scored token gives a sequence without one.
        learn: Whose tokens are scored.
    """
    for dialogue in dialogues:
        ids: list[int] = []
        scored: list[bool] = []
        for turn in dialogue.turns:
            ids += [*turn.template_ids, *turn.token_ids]
            learnt = learn == "all" or turn.role == "assistant"
            scored += [False] * len(turn.template_ids) + [learnt] * len(turn.token_ids)
        start = sum(len(turn.template_ids) for turn in dialogue.turns[:1])
        whole = TokenSequence(f"self_dialogue/{dialogue.index}", tuple(ids[:start]), tuple(ids[start:]))
        yield whole.masked(scored[start:])


def end_of_turn(tokenizer: Any) -> int:
    """The token with which the model's own template ends an assistant's turn.

    Raises:
        ModelError: The template writes no special token after a turn.
    """
    known = {*tokenizer.get_added_vocab().values(), tokenizer.eos_token_id}
    turn = [Message(role="user", content="a"), Message(role="assistant", content="b")]
    for token in reversed(render(tokenizer, turn, add_generation_prompt=False)):
        if token in known:
            return token
    raise ModelError(f"the chat template in {tokenizer.name_or_path} ends the assistant's turn with no special token.")


def make_families(sequences: Sequence[TokenSequence], *, shared_prompt: bool) -> list[Family]:
    """Join neighbouring sequences with the same prompt where that saves enough tokens.

    Args:
        sequences: In order; only neighbours are joined.
        shared_prompt: Off, every sequence is alone.
    """
    families: list[Family] = []
    for prompt_ids, run in groupby(range(len(sequences)), key=lambda i: sequences[i].prompt_ids):
        members = tuple(run)
        together = _family(sequences, members, len(prompt_ids))
        pays = len(members) * len(prompt_ids) + together.n_responses >= SHARING_PAYS * max(1, together.n_tokens)
        if shared_prompt and prompt_ids and len(members) > 1 and pays:
            families.append(together)
        else:
            families += [_family(sequences, (i,), len(prompt_ids)) for i in members]
    return families


def pack(sizes: Sequence[int], token_budget: int, *, padded: bool = False) -> list[list[int]]:
    """Put units into batches of similar length, each within the budget.

    Args:
        sizes: Tokens of each unit; one beyond the budget gets a batch of its own.
        token_budget: Tokens of a batch, padding included.
        padded: Each unit is a row and costs as much as the longest of its batch.

    Returns:
        Positions of the units in each batch, longest first (it shows at once whether memory suffices).
    """
    batches: list[list[int]] = []
    used = longest = 0
    for unit in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        cost = longest if padded and batches else sizes[unit]
        if not batches or used + cost > token_budget:
            batches.append([])
            used, longest = 0, sizes[unit]
            cost = sizes[unit]
        batches[-1].append(unit)
        used += cost
    return batches


def make_batch(
    sequences: Sequence[TokenSequence],
    families: Sequence[Family],
    *,
    packed: bool = True,
    outside: Outside | None = None,
) -> Batch:
    """One packed row of families, or a padded row for each.

    Args:
        sequences: The list that families index.
        families: Those of the batch; alone in their rows where it is not packed.
        packed: Off for models that cannot attend over packed rows; families then have one member each.
        outside: The families' prompt, which is then not computed again.
    """
    rows = [_Row()]
    for family in families:
        if not packed and rows[-1].ids:
            rows.append(_Row())
        rows[-1].add(sequences, family, outside=outside is not None)
    width = max(len(row.ids) for row in rows)
    states = None if outside is None else outside.states
    layout = Layout(tuple(rows[0].spans), tuple(rows[0].prefixes), states) if packed else None
    ends = [n for b, row in enumerate(rows) for n in [b * width] * len(row.source)]
    source = [at for row in rows for at in row.source]
    outer = len(rows) * width
    return Batch(
        input_ids_BT=torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows], dtype=torch.long),
        position_ids_BT=torch.tensor([rows[0].positions], dtype=torch.long) if packed else None,
        layout=layout,
        source_N=torch.tensor([outer if at < 0 else end + at for end, at in zip(ends, source, strict=True)]).long(),
        target_N=torch.tensor([token for row in rows for token in row.target], dtype=torch.long),
        owner_N=torch.tensor([i for i, n in enumerate(n for row in rows for n in row.scored) for _ in range(n)]).long(),
        members=tuple(member for family in families for member in family.members),
        n_tokens=sum(len(row.ids) for row in rows),
        last_1D=None if outside is None else outside.last_1D,
    )


OUTSIDE = -1
"""As a source: the last hidden state of the prompt outside."""


@dataclass
class _Row:
    """A row while it grows."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    prefixes: list[tuple[Span, Span]] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)

    def add(self, sequences: Sequence[TokenSequence], family: Family, *, outside: bool) -> None:
        prompt = sequences[family.members[0]].prompt_ids
        start = len(self.ids)
        alone = len(family.members) == 1 and not outside
        if not outside:
            self._append(prompt, 0)
        keys = (0, len(prompt)) if outside else (start, len(self.ids))
        if not alone and keys[1] > keys[0] and not outside:
            self.spans.append(keys)
        first = len(self.ids)
        before = OUTSIDE if outside else keys[1] - 1
        for member in family.members:
            response, scored = sequences[member].response_ids, sequences[member].scored_at
            at = len(self.ids)
            self._append(response[:-1], len(prompt))
            self.source += [at + i - 1 if i else before for i in scored]
            self.target += [response[i] for i in scored]
            self.scored.append(len(scored))
            self.spans.append((start if alone else at, len(self.ids)))
        if not alone and prompt:
            self.prefixes.append(((first, len(self.ids)), keys))

    def _append(self, ids: Sequence[int], position: int) -> None:
        self.ids += ids
        self.positions += range(position, position + len(ids))


def _family(sequences: Sequence[TokenSequence], members: tuple[int, ...], n_prompt: int) -> Family:
    return Family(members, n_prompt, sum(sequences[i].n_computed for i in members))
