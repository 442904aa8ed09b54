"""Texts to token sequences, sequences to rows, rows to padded batches under a token budget.

Shape legend: B rows, T positions of the longest row, N scored tokens, S sequences of the batch.

A row is [prompt, y_1 .. y_k]: responses to one prompt share its computation. Positions restart after the prompt, and
each response sees the prompt and itself, so scores and gradients are those of separate rows. The last token of a
response predicts nothing and is left out.
"""

# ruff: noqa: N815  (shape suffixes are upper case, see the legend)
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from metagdpo.errors import DataError, ModelError
from metagdpo.models.chat import render
from metagdpo.models.port import Message
from metagdpo.records.group import ResponseGroup
from metagdpo.records.sample import ContextFreeSample
from metagdpo.training.settings import SequenceParams

ROW_TOKENS = 512
"""Longest shared row: attention over a dense mask grows with its square. Measured on 2 CPU cores with a 135M model."""
MIN_SHARED_SHARE = 0.25
"""A prompt shorter than this share of the mean response is not worth a dense mask."""

PROMPT, PADDING = 0, -1


@dataclass(frozen=True)
class TokenSequence:
    """One text to score: the response's tokens, given the prompt's."""

    key: str
    """`<question id>/<response index>` or `context_free/<index>`."""
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    truncated: bool = False
    """The response was cut at max_length."""


@dataclass(frozen=True)
class Row:
    """Sequences that share one prompt, by their position in a list."""

    members: tuple[int, ...]
    n_tokens: int
    """Tokens that are computed."""


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right, and where each scored token is predicted."""

    input_ids_BT: Tensor
    position_ids_BT: Tensor | None
    """None when every row is one plain sequence."""
    mask_B1TT: Tensor | None
    """Added to attention scores; None when every row is plain, as causal attention never sees padding on the right."""
    source_N: Tensor
    """Position (in the flattened B * T) whose hidden state predicts the token."""
    target_N: Tensor
    """The token itself."""
    owner_N: Tensor
    """Which of the S sequences it belongs to."""
    lengths_S: Tensor
    """Scored tokens of each sequence."""
    n_tokens: int
    """Tokens that are computed, padding left out."""

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


def make_rows(sequences: Sequence[TokenSequence], *, shared_prompt: bool) -> list[Row]:
    """Put neighbouring sequences with the same prompt into common rows where that saves work.

    Args:
        sequences: In order; only neighbours are joined.
        shared_prompt: Off, every sequence has its own row.
    """
    rows: list[Row] = []
    for prompt_ids, run in groupby(range(len(sequences)), key=lambda i: sequences[i].prompt_ids):
        members = sorted(run, key=lambda i: (-_computed(sequences[i]), i))
        mean = sum(_computed(sequences[i]) for i in members) / len(members)
        pays = shared_prompt and len(members) > 1 and len(prompt_ids) >= MIN_SHARED_SHARE * mean
        open_rows: list[tuple[list[int], int]] = []
        for i in members:  # longest first, into the first row that has room
            need = _computed(sequences[i])
            fit = next((k for k, (_, used) in enumerate(open_rows) if pays and used + need <= ROW_TOKENS), None)
            if fit is None:
                open_rows.append(([i], len(prompt_ids) + need))
            else:
                open_rows[fit] = ([*open_rows[fit][0], i], open_rows[fit][1] + need)
        rows += [Row(tuple(found), used) for found, used in open_rows]
    return rows


def pack(lengths: Sequence[Sequence[int]], token_budget: int) -> list[list[int]]:
    """Put units of rows into batches of similar length, each within the budget after padding.

    Args:
        lengths: For each unit the tokens of its rows.
        token_budget: Rows times the longest row; a unit beyond it gets a batch of its own.

    Returns:
        Positions of the units in each batch, longest batch first (it shows at once whether memory suffices).
    """
    batches: list[list[int]] = []
    n_rows = longest = 0
    for unit in sorted(range(len(lengths)), key=lambda i: (-max(lengths[i]), i)):
        if not batches or (n_rows + len(lengths[unit])) * longest > token_budget:
            batches.append([])
            n_rows, longest = 0, max(lengths[unit])
        batches[-1].append(unit)
        n_rows += len(lengths[unit])
    return batches


def make_batch(sequences: Sequence[TokenSequence], rows: Sequence[Row], dtype: torch.dtype) -> Batch:
    """Pad rows into one batch; its sequences are the rows' members, row after row.

    Args:
        sequences: The list that rows index.
        rows: Rows of the batch.
        dtype: Of the attention mask, which is that of the model.

    Raises:
        DataError: A sequence has no prompt, so its first token cannot be predicted.
    """
    width = max(row.n_tokens for row in rows)
    ids: list[list[int]] = []
    positions: list[list[int]] = []
    segments: list[list[int]] = []
    source: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    lengths: list[int] = []
    for b, row in enumerate(rows):
        prompt = sequences[row.members[0]].prompt_ids
        if not prompt:
            raise DataError(f"{sequences[row.members[0]].key} has no prompt: its first token cannot be predicted.")
        row_ids, row_positions, row_segments = list(prompt), list(range(len(prompt))), [PROMPT] * len(prompt)
        for k, member in enumerate(row.members, start=1):
            response = sequences[member].response_ids
            start = len(row_ids)
            row_ids += response[:-1]
            row_positions += range(len(prompt), len(prompt) + len(response[:-1]))
            row_segments += [k] * len(response[:-1])
            before = [len(prompt) - 1, *range(start, start + len(response) - 1)][: len(response)]
            source += [b * width + t for t in before]
            target += response
            owner += [len(lengths)] * len(response)
            lengths.append(len(response))
        gap = width - len(row_ids)
        ids.append(row_ids + [0] * gap)
        positions.append(row_positions + [0] * gap)
        segments.append(row_segments + [PADDING] * gap)
    shared = any(len(row.members) > 1 for row in rows)
    return Batch(
        input_ids_BT=torch.tensor(ids),
        position_ids_BT=torch.tensor(positions) if shared else None,
        mask_B1TT=_mask(torch.tensor(segments), dtype) if shared else None,
        source_N=torch.tensor(source, dtype=torch.long),
        target_N=torch.tensor(target, dtype=torch.long),
        owner_N=torch.tensor(owner, dtype=torch.long),
        lengths_S=torch.tensor(lengths),
        n_tokens=sum(row.n_tokens for row in rows),
    )


def _computed(sequence: TokenSequence) -> int:
    return max(0, len(sequence.response_ids) - 1)


def _mask(segments_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a position may look, a large negative number elsewhere: the prompt, itself, and its own past."""
    query_BT1, key_B1T = segments_BT[:, :, None], segments_BT[:, None, :]
    sees_BTT = ((key_B1T == PROMPT) | (key_B1T == query_BT1)).tril()
    mask_BTT = torch.zeros(sees_BTT.shape, dtype=dtype).masked_fill(~sees_BTT, torch.finfo(dtype).min)
    return mask_BTT[:, None]
