import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metagdpo.preservation.filters import Text, distinct_share, duplicates, loops, reasons, repeated_share

ALL = ("unended", "repeats", "duplicates")
LOOP = (1, 2, 3, 4, 5) * 10
PLAIN = tuple(range(50))

tokens = st.lists(st.integers(0, 3), max_size=40)


def text(*pieces, ended=True):
    return Text(tuple(pieces), ended)


@settings(deadline=None)
@given(tokens)
def test_the_repeated_share_is_its_definition(row):
    """The share of 4-grams that have stood before, counted one by one."""
    grams = [tuple(row[k : k + 4]) for k in range(len(row) - 3)]
    again = [gram in grams[:k] for k, gram in enumerate(grams)]
    assert repeated_share(row) == pytest.approx(sum(again) / len(again) if again else 0)


@pytest.mark.parametrize("row", [(), (7,), (7, 7, 7)])
def test_texts_shorter_than_a_4_gram_repeat_nothing(row):
    assert repeated_share(row) == 0


@pytest.mark.parametrize("phrase", [tuple(range(n)) for n in range(6, 31)])
def test_a_phrase_said_twice_is_no_loop_and_said_three_times_it_is(phrase):
    assert not loops(text(phrase * 2))
    assert loops(text(phrase * 3))


def test_one_token_for_ever_is_a_loop():
    assert loops(text((5,) * 60))


def test_a_short_repetition_is_no_loop():
    assert not loops(text((5,) * 15))
    assert loops(text((5,) * 16))


def test_a_start_before_the_loop_does_not_hide_it():
    assert loops(text((*PLAIN[:20], *LOOP)))


def test_one_looping_turn_makes_a_dialogue_loop():
    assert loops(text(PLAIN, LOOP))
    assert not loops(text(PLAIN, PLAIN))


def test_of_equal_texts_the_first_is_no_duplicate():
    assert duplicates([text((1,)), text((2,)), text((1,)), text((1,))]) == [False, False, True, True]


def test_texts_with_the_same_tokens_in_other_turns_are_not_equal():
    assert duplicates([text((1, 2), (3,)), text((1,), (2, 3))]) == [False, False]


def test_nothing_is_left_out_unless_asked():
    assert reasons([text(LOOP, ended=False), text(LOOP, ended=False)], ()) == [None, None]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (("unended",), [None, "unended", None, None]),
        (("repeats",), [None, None, "repeats", None]),
        (("duplicates",), [None, None, None, "duplicates"]),
        (ALL, [None, "unended", "repeats", "duplicates"]),
    ],
)
def test_each_filter_leaves_out_its_own(wanted, expected):
    texts = [text(PLAIN), text(PLAIN[:30], ended=False), text(LOOP), text(PLAIN)]
    assert reasons(texts, wanted) == expected


def test_the_order_in_which_filters_are_named_changes_nothing():
    texts = [text(LOOP, ended=False), text(LOOP), text(PLAIN), text(PLAIN)]
    assert reasons(texts, ALL) == reasons(texts, ALL[::-1]) == ["unended", "repeats", None, "duplicates"]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), max_size=20).map(tuple), max_size=12))
def test_what_is_left_has_nothing_that_was_to_be_left_out(rows):
    """Every distinct text that passes the others is kept exactly once."""
    texts = [text(row, ended=len(row) % 2 == 0) for row in rows]
    kept = [one for one, reason in zip(texts, reasons(texts, ALL), strict=True) if reason is None]
    assert sorted(kept) == sorted({one for one in texts if one.ended and not loops(one)})


def test_the_distinct_share_counts_4_grams_of_all_texts_together():
    assert distinct_share([text((1, 2, 3, 4)), text((1, 2, 3, 4, 5))]) == 2 / 3


def test_the_distinct_share_of_texts_without_4_grams_is_unknown():
    assert distinct_share([text((1, 2, 3)), text()]) is None
