"""Self-dialogues: conversations in which the base plays both sides, before it is trained (SA-SFT, arXiv 2602.20162).

Home of: SA-SFT sampling (arXiv 2602.20162), nucleus sampling at temperature 0.7 and top-p 0.9. The paper's way of
playing the roles is not known to us; ours: the chat template opens the user's turn, the model writes it up to its
end-of-turn token, the template opens the assistant's turn, and so on.
"""

from collections.abc import Sequence
from typing import Literal

from metagdpo.models.port import Sampling, TextModel, derived_seed
from metagdpo.preservation.generator import Piece, write
from metagdpo.preservation.settings import SelfDialogueParams
from metagdpo.records.self_dialogue import SelfDialogue, SelfTurn

ROLES: tuple[Literal["user", "assistant"], ...] = ("user", "assistant")


def sample_dialogues(
    model: TextModel,
    weights: str,
    layout: Sequence[tuple[int, ...]],
    settings: SelfDialogueParams,
    *,
    n: int,
    seed: int,
) -> list[SelfDialogue]:
    """Dialogues in the order of their index, nothing left out: some may end before the assistant says anything.

    Args:
        model: The base model.
        weights: Digest of its weights, for provenance.
        layout: What the chat template writes around turns (`chat_layout`); its length is the number of turns.
        settings: Length and sampling.
        n: Dialogues wanted.
        seed: Every turn's own seed derives from it, the dialogue's index and the turn: more dialogues or more turns
            leave those there are as they were.

    Raises:
        ModelError: The model failed (turns that came are in its journal), or it does not show its tokens.
    """
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens)
    seeds = [[derived_seed(seed, "self_dialogue", index, turn) for turn in range(len(layout))] for index in range(n)]
    return [
        SelfDialogue(
            index=index,
            turns=tuple(_turn(number, piece) for number, piece in enumerate(pieces)),
            model=weights,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
        )
        for index, pieces in enumerate(write(model, layout, seeds, sampling))
    ]


def _turn(number: int, piece: Piece) -> SelfTurn:
    return SelfTurn(
        role=ROLES[number % 2],
        template_ids=piece.before,
        token_ids=piece.written.token_ids,
        text=piece.written.text,
        ended=piece.written.finish_reason == "stop",
        seed=piece.seed,
    )
