"""Texts to sequences, rows and batches."""

from pathlib import Path

import pytest

from metagdpo.errors import DataError
from metagdpo.models.load import load_tokenizer
from metagdpo.records.group import ResponseGroup, ScoredResponse
from metagdpo.records.self_dialogue import SelfDialogue, SelfTurn
from metagdpo.training.attention import Layout
from metagdpo.training.collate import (
    Family,
    TokenSequence,
    dialogue_sequences,
    end_of_turn,
    group_sequences,
    make_batch,
    make_families,
    pack,
)
from metagdpo.training.settings import SequenceParams


def group(texts, *, finish="stop", degenerate=False, prompt="1 + 1?"):
    responses = tuple(
        ScoredResponse(index=i, teacher="t", text=text, finish_reason=finish, correct=0.0, well_formed=True,
                       reward=float(i), advantage=0.0)
        for i, text in enumerate(texts)
    )  # fmt: skip
    return ResponseGroup(question_id="q", prompt=prompt, responses=responses, degenerate=degenerate)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path):
    return load_tokenizer(tiny_model_dir)


def sequence(name, prompt, response):
    return TokenSequence(name, tuple(prompt), tuple(response))


def test_an_ended_response_ends_with_the_end_of_turn(tokenizer):
    (found,) = group_sequences(tokenizer, [group(["two"])], SequenceParams())
    assert tokenizer.decode(found.response_ids) == "two<|im_end|>"
    assert tokenizer.decode(found.prompt_ids) == "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert found.key == "q/0"


def test_a_cut_response_has_no_end_of_turn(tokenizer):
    (found,) = group_sequences(tokenizer, [group(["two"], finish="length")], SequenceParams())
    assert tokenizer.decode(found.response_ids) == "two"


def test_the_end_of_turn_is_what_the_template_writes(tokenizer):
    assert tokenizer.decode([end_of_turn(tokenizer)]) == "<|im_end|>"


def test_degenerate_groups_are_not_tokenised(tokenizer):
    assert list(group_sequences(tokenizer, [group(["a", "b"], degenerate=True)], SequenceParams())) == []


def test_a_response_beyond_max_length_is_cut_and_marked(tokenizer):
    (whole,) = group_sequences(tokenizer, [group(["a long answer"])], SequenceParams())
    limit = len(whole.prompt_ids) + 3
    (cut,) = group_sequences(tokenizer, [group(["a long answer"])], SequenceParams(max_length=limit))
    assert cut.response_ids == whole.response_ids[:3]
    assert cut.truncated
    assert not whole.truncated


def test_a_prompt_without_room_is_refused(tokenizer):
    with pytest.raises(DataError, match=r"prompt of question q has \d+ tokens.*reference.max_length = 5"):
        list(group_sequences(tokenizer, [group(["a"])], SequenceParams(max_length=5)))


def test_neighbours_with_the_same_prompt_are_a_family():
    same = [sequence(str(i), range(9), range(4 + i)) for i in range(3)]
    (family,) = make_families(same, shared_prompt=True)
    assert family == Family((0, 1, 2), 9, 3 + 4 + 5)
    assert len(make_families(same, shared_prompt=False)) == 3


def test_a_prompt_is_shared_where_that_saves_tokens():
    """Three responses of 49 computed tokens: a prompt of 1 saves 2 of 150, one of 9 saves 18 of 174."""
    for n_prompt, expected in ((1, 3), (9, 1)):
        sequences = [sequence(str(i), range(n_prompt), range(50)) for i in range(3)]
        assert len(make_families(sequences, shared_prompt=True)) == expected


@pytest.mark.parametrize("padded", [False, True])
def test_batches_keep_the_budget_and_hold_everything_once(padded):
    sizes = [5, 40, 7, 90, 33, 6, 200]
    batches = pack(sizes, 100, padded=padded)
    assert sorted(i for found in batches for i in found) == list(range(7))
    assert batches[0] == [6]  # beyond the budget: alone
    for found in batches[1:]:
        longest = max(sizes[i] for i in found)
        assert (len(found) * longest if padded else sum(sizes[i] for i in found)) <= 100


def test_a_batch_says_where_each_token_is_predicted():
    """1 2 3 4 5 6 without its last token; 4, 5, 6 are predicted at positions 2, 3, 4."""
    one = [sequence("a", [1, 2, 3], [4, 5, 6])]
    batch = make_batch(one, make_families(one, shared_prompt=True))
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 4, 5]]
    assert batch.source_N.tolist() == [2, 3, 4]
    assert batch.target_N.tolist() == [4, 5, 6]
    assert batch.layout == Layout(spans=((0, 5),))


def test_a_shared_row_restarts_positions_and_hides_siblings():
    """[1 2 | 3 4 | 6]: both responses see the prompt and themselves."""
    sequences = [sequence("a", [1, 2], [3, 4, 5]), sequence("b", [1, 2], [6, 7])]
    batch = make_batch(sequences, make_families(sequences, shared_prompt=True))
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 4, 6]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.source_N.tolist() == [1, 2, 3, 1, 4]
    assert batch.layout == Layout(spans=((0, 2), (2, 4), (4, 5)), prefixes=(((2, 5), (0, 2)),))


def test_families_stand_side_by_side_without_padding():
    sequences = [sequence("a", [1, 2], [3, 4]), sequence("b", [5], [6, 7, 8])]
    batch = make_batch(sequences, make_families(sequences, shared_prompt=True))
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 5, 6, 7]]
    assert batch.layout == Layout(spans=((0, 3), (3, 6)))


def test_a_model_that_cannot_pack_gets_padded_rows():
    sequences = [sequence("a", [1, 2], [3, 4]), sequence("b", [5], [6, 7, 8, 9])]
    batch = make_batch(sequences, make_families(sequences, shared_prompt=False), packed=False)
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 0], [5, 6, 7, 8]]
    assert batch.source_N.tolist() == [1, 2, 4, 5, 6, 7]
    assert batch.layout is None


def test_with_an_empty_prompt_the_first_token_is_not_scored():
    lonely = [sequence("x", [], [1, 2, 3])]
    batch = make_batch(lonely, make_families(lonely, shared_prompt=True))
    assert batch.input_ids_BT.tolist() == [[1, 2]]
    assert (batch.source_N.tolist(), batch.target_N.tolist()) == ([0, 1], [2, 3])
    assert lonely[0].n_scored == 2


def test_a_mask_chooses_what_is_predicted_and_leaves_the_row_as_it_is():
    """[1 2 | 3 4 | 6] with 4 and 7 scored: 4 is predicted at the place of 3, 7 at that of 6."""
    sequences = [
        TokenSequence("a", (1, 2), (3, 4, 5), scored=(False, True, False)),
        TokenSequence("b", (1, 2), (6, 7), scored=(False, True)),
    ]
    batch = make_batch(sequences, make_families(sequences, shared_prompt=True))
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 4, 6]]
    assert (batch.source_N.tolist(), batch.target_N.tolist()) == ([2, 4], [4, 7])
    assert batch.owner_N.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("mask", "sources", "targets"),
    [
        ((True, True, True), [1, 2, 3], [3, 4, 5]),
        ((True, False, False), [1], [3]),
        ((False, False, True), [3], [5]),
        ((False, False, False), [], []),
    ],
    ids=["all", "first", "last", "none"],
)
def test_the_ends_of_a_mask(mask, sources, targets):
    """1 2 | 3 4 5: the first response token is predicted by the prompt's last."""
    one = [TokenSequence("a", (1, 2), (3, 4, 5), scored=mask)]
    batch = make_batch(one, make_families(one, shared_prompt=True))
    assert (batch.source_N.tolist(), batch.target_N.tolist()) == (sources, targets)
    assert (one[0].n_scored, one[0].n_computed) == (len(targets), 2)


def test_padded_rows_respect_masks():
    sequences = [
        TokenSequence("a", (1, 2), (3, 4), scored=(False, True)),
        TokenSequence("b", (5,), (6, 7, 8, 9), scored=(True, False, False, True)),
    ]
    batch = make_batch(sequences, make_families(sequences, shared_prompt=False), packed=False)
    assert batch.source_N.tolist() == [2, 4, 7]
    assert batch.target_N.tolist() == [4, 6, 9]


def test_with_an_empty_prompt_a_mask_cannot_score_the_first_token():
    lonely = TokenSequence("x", (), (1, 2, 3), scored=(True, False, True))
    assert list(lonely.scored_at) == [2]
    assert lonely.n_scored == 1


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="q/0: a mask of 1 entries for 2 response tokens"):
        TokenSequence("q/0", (1,), (2, 3), scored=(True,))


@pytest.mark.parametrize(
    ("mask", "response", "left"),
    [
        ((True, False, True), (3, 4, 5), (True, False, True)),
        ((False, True, False), (3, 4), (False, True)),
        ((True, True, False), (3, 4), None),
        ((True, True, True), (3, 4, 5), None),
        ((False, False, False), (), None),
    ],
)
def test_what_stands_after_the_last_scored_token_is_cut_off(mask, response, left):
    found = TokenSequence("a", (1, 2), (3, 4, 5), truncated=True).masked(mask)
    assert found == TokenSequence("a", (1, 2), response, truncated=True, scored=left)


def turn(role, template, tokens):
    return SelfTurn(role=role, template_ids=template, token_ids=tokens, text="", ended=True, seed=0)


def dialogue(*turns):
    return SelfDialogue(index=4, turns=turns, model="m", temperature=0.7, top_p=0.9, max_new_tokens=9)


TALK = dialogue(
    turn("user", (1, 2), (30, 31, 9)),
    turn("assistant", (3, 4), (40, 9)),
    turn("user", (1,), (32, 9)),
    turn("assistant", (3,), (41, 42)),
)
SPOKEN = (30, 31, 9, 3, 4, 40, 9, 1, 32, 9, 3, 41, 42)


def flags(text):
    return tuple(letter == "1" for letter in text)


@pytest.mark.parametrize(("learn", "mask"), [("assistant", "0000011000011"), ("all", "1110011011011")])
def test_a_dialogue_is_scored_on_sampled_tokens_of_the_chosen_turns(learn, mask):
    """The template's tokens (1 to 4) between turns never count, the end of a turn (9) that the model wrote does."""
    (found,) = dialogue_sequences([TALK], learn)
    assert found == TokenSequence("self_dialogue/4", (1, 2), SPOKEN, scored=flags(mask))


def test_a_dialogue_that_ends_with_the_user_is_cut_after_the_assistant():
    asked = dialogue(*TALK.turns[:3])
    (assistant,), (whole,) = (dialogue_sequences([asked], learn) for learn in ("assistant", "all"))
    assert (assistant.response_ids, assistant.scored) == (SPOKEN[:7], flags("0000011"))
    assert (whole.response_ids, whole.scored) == (SPOKEN[:10], flags("1110011011"))


def test_a_dialogue_of_one_turn_needs_no_mask():
    (found,) = dialogue_sequences([dialogue(TALK.turns[0])], "all")
    assert found == TokenSequence("self_dialogue/4", (1, 2), (30, 31, 9))


@pytest.mark.parametrize("turns", [(), TALK.turns[:1], (TALK.turns[0], turn("assistant", (3,), ()))])
def test_a_dialogue_in_which_the_assistant_says_nothing_scores_nothing(turns):
    (found,) = dialogue_sequences([dialogue(*turns)], "assistant")
    assert (found.n_scored, found.n_computed) == (0, 0)
