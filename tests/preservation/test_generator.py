from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metagdpo.errors import ModelError
from metagdpo.models.load import identify
from metagdpo.models.local import Local
from metagdpo.models.port import Completion, Sampling
from metagdpo.models.recorded import Recorded
from metagdpo.preservation.generator import Piece, after, so_far, write

END, OTHER_END = 1, 99
SAMPLING = Sampling(temperature=1, max_new_tokens=3)
LAYOUT = ((0, 2), (END, 5, 6), (END, 7))


class Scripted:
    """Answers each prompt from a table of its seed; remembers what it was asked."""

    identity = "scripted"

    def __init__(self, answers):
        self.answers = answers
        self.batches = []

    def complete(self, requests, _):
        self.batches.append([(request.prefix_ids, request.seed) for request in requests])
        for position in reversed(range(len(requests))):
            tokens = self.answers[requests[position].seed]
            reason = "stop" if tokens[-1] in {END, OTHER_END} else "length"
            yield position, Completion(text=str(tokens), token_ids=tokens, finish_reason=reason)


def test_each_piece_is_sampled_after_all_ids_so_far_and_what_stands_between():
    model = Scripted({10: (3, END), 11: (4, 4, END), 12: (8,)})
    (text,) = write(model, LAYOUT, [(10, 11, 12)], SAMPLING)
    seen = [prefix for ((prefix, _),) in model.batches]
    assert seen == [(0, 2), (0, 2, 3, END, 5, 6), (0, 2, 3, END, 5, 6, 4, 4, END, 7)]
    assert so_far(text) == (0, 2, 3, END, 5, 6, 4, 4, END, 7, 8)


def test_an_end_token_that_the_model_wrote_is_not_written_again():
    model = Scripted({10: (3, END), 11: (4, END)})
    (text,) = write(model, LAYOUT[:2], [(10, 11)], SAMPLING)
    assert [piece.before for piece in text] == [(0, 2), (5, 6)]


def test_a_layout_of_one_entry_is_one_piece_after_exactly_these_ids():
    model = Scripted({10: (3, END), 11: (4,)})
    texts = write(model, ((0, 2),), [(10,), (11,)], SAMPLING)
    assert model.batches == [[((0, 2), 10), ((0, 2), 11)]]
    assert [[piece.written.token_ids for piece in text] for text in texts] == [[(3, END)], [(4,)]]


def test_all_texts_take_a_step_together_and_those_that_ended_take_no_more():
    model = Scripted({10: (3, END), 20: (4, 4, 4), 30: (OTHER_END,), 11: (5, END), 12: (6, END)})
    texts = write(model, LAYOUT, [(10, 11, 12), (20, 21, 22), (30, 31, 32)], SAMPLING)
    assert [[seed for _, seed in batch] for batch in model.batches] == [[10, 20, 30], [11], [12]]
    assert [len(text) for text in texts] == [3, 1, 1]


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.lists(st.integers(0, 9), max_size=4))
def test_what_is_left_to_write_is_what_follows_the_first_end_token(head, tail):
    written = Completion(text="", token_ids=(3, 77), finish_reason="stop")
    assert after([Piece((0,), written, 1)], (*head, 77, *tail)) == tuple(tail)


def test_no_texts_ask_for_nothing():
    assert write(Scripted({}), LAYOUT, [], SAMPLING) == []


def test_a_model_that_hides_its_tokens_is_refused():
    class Hidden:
        identity = "endpoint"

        def complete(self, requests, _):
            yield from ((k, Completion(text="x", finish_reason="stop")) for k in range(len(requests)))

    with pytest.raises(ModelError, match=r"endpoint does not show the tokens it sampled.*local model"):
        write(Hidden(), LAYOUT, [(1, 2, 3)], SAMPLING)


class Dying:
    """Gives up after so many completions, as a killed run does."""

    def __init__(self, inner, alive):
        self.inner, self.alive, self.identity = inner, alive, inner.identity
        self.paid = Counter()

    def complete(self, requests, sampling):
        for position, completion in self.inner.complete(requests, sampling):
            if not self.alive:
                raise ModelError("killed")
            self.alive -= 1
            self.paid[requests[position]] += 1
            yield position, completion


def test_a_resumed_run_pays_for_no_piece_twice_and_gives_the_same_texts(five_words_dir, tmp_path):
    """Killed in the first step and again in the second, against a run in one go."""
    local = Local(five_words_dir, identify("five", five_words_dir), dtype="float32", batch_size=4)
    seeds = [(100 + k, 200 + k, 300 + k) for k in range(24)]
    layout = ((0,), (END, 2), (END, 3))
    whole = write(local, layout, seeds, SAMPLING)
    model = Dying(local, alive=0)
    for alive in (10, 20):
        model.alive = alive
        with pytest.raises(ModelError, match="killed"):
            write(Recorded(tmp_path / "journal.jsonl", model), layout, seeds, SAMPLING)
    model.alive = 1000
    assert write(Recorded(tmp_path / "journal.jsonl", model), layout, seeds, SAMPLING) == whole
    assert set(model.paid.values()) == {1}
    assert model.paid.total() == sum(len(text) for text in whole) > 30
