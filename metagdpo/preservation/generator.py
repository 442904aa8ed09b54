"""The one generator of what the base writes by itself: pieces of text, each sampled after exactly the ids before it.

A layout decides the mode. One entry: a text without context, after its start alone (CFS). Several: a conversation in
which the model plays every side (SA-SFT), with what the chat template writes between its turns. All prompts are token
ids: no template, no system message and no second tokenisation can slip in between.
"""

from collections.abc import Sequence
from typing import NamedTuple

from metagdpo.errors import ModelError
from metagdpo.models.port import Completion, Request, Sampling, TextModel

Ids = tuple[int, ...]


class Piece(NamedTuple):
    """One sampled piece of a text."""

    before: Ids
    """What stands between the last sampled token and this piece's first; never sampled."""
    written: Completion
    seed: int


def write(
    model: TextModel, layout: Sequence[Ids], seeds: Sequence[Sequence[int]], sampling: Sampling
) -> list[list[Piece]]:
    """Texts, piece after piece; all texts take the same step together, so that each step is one batch of requests.

    A text ends early when the model is cut at the length limit, and when it ends a piece with another token than the
    layout has there (it ended the document, not the turn). Every text has at least one piece.

    Args:
        model: The base model.
        layout: For each piece what stands before it, the end token of the piece before included.
        seeds: For each text one seed for each piece.
        sampling: Temperature, top_p and the largest number of new tokens of a piece.

    Raises:
        ModelError: The model failed (pieces that came are in its journal), or it does not show its tokens.
    """
    texts: list[list[Piece]] = [[] for _ in seeds]
    for step, between in enumerate(layout):
        nexts = {number: after(pieces, between) for number, pieces in enumerate(texts) if len(pieces) == step}
        before = {number: ids for number, ids in nexts.items() if ids is not None}
        requests = [
            Request(prefix_ids=so_far(texts[number]) + ids, seed=seeds[number][step]) for number, ids in before.items()
        ]
        found = dict(model.complete(requests, sampling))
        for position, (number, ids) in enumerate(before.items()):
            if not found[position].token_ids:
                message = f"{model.identity} does not show the tokens it sampled; its own text needs a local model."
                raise ModelError(message)
            texts[number].append(Piece(ids, found[position], seeds[number][step]))
    return texts


def so_far(pieces: Sequence[Piece]) -> Ids:
    """All ids of a text: what was written between its pieces, and the pieces as they were sampled."""
    return tuple(token for piece in pieces for token in (*piece.before, *piece.written.token_ids))


def after(pieces: Sequence[Piece], between: Ids) -> Ids | None:
    """What is written before a text's next piece; None where the text has ended.

    The layout ends the piece before with an end token. The model wrote that token itself, so only what follows it is
    left to write.
    """
    if not pieces:
        return between
    last = pieces[-1].written
    if last.finish_reason == "length" or last.token_ids[-1] not in between:
        return None
    return between[between.index(last.token_ids[-1]) + 1 :]
