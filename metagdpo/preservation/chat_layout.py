"""What a chat template writes around turns, as token ids, so that sampled turns are never tokenised again.

Found by rendering conversations of short words and keeping what does not change with the words. Text is never split:
where a tokeniser joins the template's last space to the first word (SentencePiece), that space belongs to the word, as
it does in training data. Left out: conversations with a system message of one's own; the template's default stays.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from metagdpo.errors import ModelError
from metagdpo.models.chat import render
from metagdpo.models.port import Message

WORDS = ("apple", "7", "Zug")
"""Stand for what is said: no two share their first or their last token, none can join with a space or line break."""

THOUGHT = "muse"
"""Stands for what a reasoning model thinks before it answers."""

Ids = tuple[int, ...]


def role(turn: int) -> str:
    """`user` for turns 0, 2, ...; `assistant` for 1, 3, ..."""
    return "user" if turn % 2 == 0 else "assistant"


def chat_layout(tokenizer: Any, n_turns: int) -> tuple[Ids, ...]:
    """For each turn what stands between the words before it and its own, the user's turn first.

    The first entry opens the conversation (start symbol, default system message, header of the user's turn); the others
    end the turn before and open the next one, as the template writes both.

    Args:
        tokenizer: A transformers tokenizer.
        n_turns: At least 1.

    Raises:
        ModelError: There is no template, it refuses alternating turns, or it shows a conversation's earlier turns
            otherwise than it did when they were written.
    """
    layout = [_start_of_turn(tokenizer, ())]
    if not layout[0]:
        message = (
            f"the chat template in {tokenizer.name_or_path} writes nothing before a user's words, so nothing tells the "
            "model to begin. Set preserve.self_dialogue to null, and preserve.context_free.prefix to `bos` or `eot`."
        )
        raise ModelError(message)
    for turn in range(1, n_turns):
        earlier = (WORDS[0],) * (turn - 1)
        before = _start_of_turn(tokenizer, earlier)
        after = [_start_of_turn(tokenizer, (*earlier, word)) for word in WORDS]
        if any(ids[: len(before)] != before for ids in after):
            raise ModelError(_changed(tokenizer, turn))
        said_and_glue = [ids[len(before) :] for ids in after]
        glue = _common_start([ids[::-1] for ids in said_and_glue])[::-1]
        if any(len(ids) == len(glue) for ids in said_and_glue):
            message = (
                f"the chat template in {tokenizer.name_or_path} does not show what the {role(turn - 1)} says in turn "
                f"{turn}, so turns cannot alternate. Set preserve.self_dialogue to null."
            )
            raise ModelError(message)
        layout.append(glue)
    for turn in range(2, n_turns, 2):
        _check_thoughts_stay(tokenizer, turn)
    return tuple(layout)


def _start_of_turn(tokenizer: Any, said: Sequence[str]) -> Ids:
    """The ids of a conversation up to where the words of its next turn begin."""
    turn = len(said)
    if role(turn) == "assistant":
        opened = render(tokenizer, _conversation(said))
        if opened != render(tokenizer, _conversation(said), add_generation_prompt=False):
            return tuple(opened)
    # A user's turn, or a template that knows no generation prompt (it may need none, as where `[/INST]` does it all).
    shown = [render(tokenizer, _conversation((*said, word)), add_generation_prompt=False) for word in WORDS]
    return _common_start(shown)


def _check_thoughts_stay(tokenizer: Any, turn: int) -> None:
    """Sampled thoughts stay in what later turns are sampled after; a template that removes them would show less."""
    thinking = f"<think>\n{THOUGHT}\n</think>\n\n{WORDS[1]}"
    said = (*(WORDS[0],) * (turn - 1), thinking, WORDS[0])
    if THOUGHT not in tokenizer.decode(render(tokenizer, _conversation(said), add_generation_prompt=False)):
        raise ModelError(_changed(tokenizer, turn))


def _changed(tokenizer: Any, turn: int) -> str:
    return (
        f"the chat template in {tokenizer.name_or_path} shows turn {turn} or one before it otherwise once the next one "
        "begins (some templates remove earlier thoughts), so later turns would follow what nobody sampled. Set "
        "preserve.self_dialogue.n_turns to 2, or preserve.self_dialogue to null."
    )


def _conversation(said: Sequence[str]) -> list[Message]:
    return [Message(role="user" if turn % 2 == 0 else "assistant", content=text) for turn, text in enumerate(said)]


def _common_start(rows: Sequence[Sequence[int]]) -> Ids:
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))
