"""Texts to sequences, rows and batches."""

from pathlib import Path

import pytest
import torch

from metagdpo.errors import DataError
from metagdpo.models.load import load_tokenizer
from metagdpo.records.group import ResponseGroup, ScoredResponse
from metagdpo.training import collate
from metagdpo.training.collate import TokenSequence, end_of_turn, group_sequences, make_batch, make_rows, pack
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


def test_neighbours_with_the_same_prompt_share_a_row():
    same = [sequence(str(i), range(9), range(4 + i)) for i in range(3)]
    (row,) = make_rows(same, shared_prompt=True)
    assert sorted(row.members) == [0, 1, 2]
    assert row.n_tokens == 9 + 3 + 4 + 5
    assert len(make_rows(same, shared_prompt=False)) == 3


def test_rows_stay_below_the_limit(monkeypatch):
    monkeypatch.setattr(collate, "ROW_TOKENS", 20)
    rows = make_rows([sequence(str(i), range(9), range(7)) for i in range(5)], shared_prompt=True)
    assert [row.n_tokens for row in rows] == [15] * 5


def test_a_short_prompt_is_not_worth_sharing():
    rows = make_rows([sequence(str(i), [1], range(50)) for i in range(3)], shared_prompt=True)
    assert [len(row.members) for row in rows] == [1, 1, 1]


def test_batches_keep_the_budget_and_hold_everything_once():
    lengths = [[n] for n in (5, 40, 7, 90, 33, 6, 200)]
    batches = pack(lengths, 100)
    assert sorted(i for found in batches for i in found) == list(range(7))
    assert batches[0] == [6]  # beyond the budget: alone
    for found in batches[1:]:
        assert len(found) * max(lengths[i][0] for i in found) <= 100


def test_a_batch_says_where_each_token_is_predicted():
    """Row 1 2 3 4 5 6 without its last token; 4, 5, 6 are predicted at positions 2, 3, 4."""
    batch = make_batch([sequence("a", [1, 2, 3], [4, 5, 6])], make_rows([sequence("a", [1, 2, 3], [4, 5, 6])],
                       shared_prompt=True), torch.float32)  # fmt: skip
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 4, 5]]
    assert batch.source_N.tolist() == [2, 3, 4]
    assert batch.target_N.tolist() == [4, 5, 6]
    assert batch.mask_B1TT is None


def test_a_shared_row_restarts_positions_and_hides_siblings():
    """[1 2 | 3 4 | 6]: the second response sees the prompt and itself."""
    sequences = [sequence("a", [1, 2], [3, 4, 5]), sequence("b", [1, 2], [6, 7])]
    batch = make_batch(sequences, make_rows(sequences, shared_prompt=True), torch.float32)
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 4, 6]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 3, 2]]
    assert (batch.mask_B1TT[0, 0, 4] == 0).tolist() == [True, True, False, False, True]
    assert batch.source_N.tolist() == [1, 2, 3, 1, 4]


def test_a_sequence_without_a_prompt_is_refused():
    lonely = [sequence("x", [], [1, 2])]
    with pytest.raises(DataError, match="x has no prompt"):
        make_batch(lonely, make_rows(lonely, shared_prompt=True), torch.float32)
