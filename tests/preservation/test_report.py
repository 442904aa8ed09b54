import pytest

from metagdpo.preservation.report import context_free_part, dialogue_part, preservation_report
from metagdpo.records.preservation_report import Provenance
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue, SelfTurn

LOOP = (5,) * 40
PLAIN = tuple(range(20))


def origin(**changes):
    value = {
        "model": "sha256:w", "prefix": "bos", "prefix_ids": (1,), "prefix_text": "<s>", "n_turns": 1,
        "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 40, "seed": 7,
    }  # fmt: skip
    return Provenance(**{**value, **changes})


def samples(*rows, ended=True):
    return [
        ContextFreeSample(
            index=index, prefix="bos", prefix_ids=(1,), token_ids=row, text="", ended=ended, model="sha256:w",
            temperature=1.0, top_p=1.0, max_new_tokens=40, seed=index,
        )
        for index, row in enumerate(rows)
    ]  # fmt: skip


def dialogue(*turns, ended=True, index=0):
    """Turns as token ids; `ended` is of the last one."""
    return SelfDialogue(
        index=index,
        turns=tuple(
            SelfTurn(
                role=("user", "assistant")[k % 2], template_ids=(1,), token_ids=row, text="",
                ended=ended or k + 1 < len(turns), seed=k,
            )
            for k, row in enumerate(turns)
        ),
        model="sha256:w", temperature=0.7, top_p=0.9, max_new_tokens=40,
    )  # fmt: skip


def chat(**changes):
    return origin(**{"prefix": "chat_user_prefix", "n_turns": 2, "temperature": 0.7, "top_p": 0.9, **changes})


def test_counts_are_of_all_samples_and_lengths_of_those_kept():
    rows = [*samples(PLAIN, LOOP, PLAIN), *samples((1, 2), ended=False)]
    kept, part = context_free_part(rows, "train", ("repeats", "duplicates"), origin())
    assert [row.token_ids for row in kept] == [PLAIN, (1, 2)]
    assert (part.asked, part.kept, part.ended, part.cut, part.looping, part.duplicates) == (4, 2, 3, 1, 1, 1)
    assert part.dropped == {"repeats": 1, "duplicates": 1}
    assert (part.tokens, part.mean_tokens, part.median_tokens, part.kept_cut) == (22, 11, 11, 1)


def test_loops_and_duplicates_are_counted_when_nothing_is_left_out():
    kept, part = context_free_part(samples(LOOP, LOOP), "train", (), origin())
    assert (len(kept), part.looping, part.duplicates, part.dropped) == (2, 2, 1, {})


def test_the_held_out_part_is_never_filtered():
    rows = samples(LOOP, LOOP, ended=False)
    kept, part = context_free_part(rows, "held_out", ("repeats", "duplicates", "unended"), origin())
    assert kept == rows
    assert part.unbiased


def test_samples_of_the_models_own_distribution_are_unbiased():
    _, part = context_free_part(samples(PLAIN), "train", ("repeats",), origin())
    assert (part.unbiased, part.why_biased) == (True, ())


@pytest.mark.parametrize(
    ("rows", "changes", "why"),
    [
        ((PLAIN,), {"temperature": 0.7}, "temperature 0.7 instead of 1"),
        ((PLAIN,), {"temperature": 1.2}, "temperature 1.2 instead of 1"),
        ((PLAIN,), {"top_p": 0.9}, "top_p 0.9 instead of 1"),
        ((PLAIN, LOOP), {}, "1 left out (repeats)"),
    ],
)
def test_what_makes_the_mean_another_number_is_said(rows, changes, why):
    _, part = context_free_part(samples(*rows), "train", ("repeats",), origin(**changes))
    assert (part.unbiased, part.why_biased) == (False, (why,))


def test_an_empty_part_has_no_lengths():
    _, part = context_free_part([], "train", (), origin())
    assert (part.asked, part.tokens, part.mean_tokens, part.median_tokens, part.distinct_share) == (
        0,
        0,
        None,
        None,
        None,
    )


def test_a_dialogue_without_a_word_of_the_assistant_is_left_out_and_counted():
    rows = [
        dialogue(PLAIN, PLAIN),
        dialogue(PLAIN, ended=False, index=1),
        dialogue((9, 9), index=2),
    ]
    kept, part = dialogue_part(rows, (), chat())
    assert [row.index for row in kept] == [0]
    assert part.dropped == {"user_unended": 1, "user_ended_document": 1}
    assert (part.asked, part.kept, part.cut, part.tokens) == (3, 1, 1, 40)


def test_a_cut_turn_of_the_assistant_stays_and_is_counted():
    kept, part = dialogue_part([dialogue(PLAIN, PLAIN, ended=False)], (), chat())
    assert (len(kept), part.cut, part.kept_cut, part.dropped) == (1, 1, 1, {})


def test_dialogues_are_filtered_when_asked():
    rows = [dialogue(PLAIN, LOOP), dialogue(PLAIN, PLAIN), dialogue(PLAIN, PLAIN), dialogue(PLAIN, PLAIN, ended=False)]
    kept, part = dialogue_part(rows, ("repeats", "duplicates", "unended"), chat())
    assert kept == [rows[1]]
    assert part.dropped == {"unended": 1, "repeats": 1, "duplicates": 1}


def warnings(*parts):
    return preservation_report(parts, 10).warnings


def test_ordinary_samples_are_worth_no_warning():
    _, train = context_free_part(samples(PLAIN, PLAIN[1:], ended=False), "train", (), origin())
    _, held_out = context_free_part(samples(PLAIN, PLAIN[2:]), "held_out", (), origin())
    _, dialogues = dialogue_part([dialogue(PLAIN, PLAIN)], (), chat())
    assert warnings(train, held_out, dialogues) == ()


def test_a_drift_that_is_no_kl_divergence_is_warned_of():
    _, part = context_free_part(samples(PLAIN, PLAIN), "held_out", (), origin(temperature=0.7, top_p=0.9))
    (warning,) = warnings(part)
    assert "no unbiased estimate of KL(base || candidate): temperature 0.7 instead of 1; top_p 0.9" in warning


def test_loops_are_warned_of_with_what_can_be_done():
    _, train = context_free_part(samples(LOOP, PLAIN), "train", (), origin())
    _, sifted = context_free_part(samples(LOOP, PLAIN), "train", ("repeats",), origin())
    _, held_out = context_free_part(samples(LOOP, PLAIN), "held_out", (), origin())
    of_train, of_held_out = warnings(train, held_out)
    assert of_train.startswith("1 of 2 context-free training samples repeat themselves; preserve.context_free.filters:")
    assert of_held_out.startswith("1 of 2 held-out context-free samples repeat themselves; all are kept, because")
    assert warnings(sifted) == ("1 of 2 context-free training samples repeat themselves; 1 left out.",)


def test_dialogues_that_came_to_nothing_are_warned_of():
    _, part = dialogue_part([dialogue(PLAIN, ended=False), dialogue((3,))], (), chat())
    (warning,) = warnings(part)
    assert warning.startswith("0 of 2 self-dialogues are kept: in 1 the user's turn never ended")
    assert "in 1 the model ended the document instead" in warning


def test_dialogues_of_which_filters_left_nothing_are_warned_of():
    _, part = dialogue_part([dialogue(PLAIN, PLAIN, ended=False)], ("unended",), chat())
    assert warnings(part) == ("0 of 1 self-dialogues are kept: 1 did not pass preserve.self_dialogue.filters.",)


def test_answers_that_never_end_are_warned_of():
    _, part = dialogue_part([dialogue(PLAIN, PLAIN, ended=False)] * 2, (), chat())
    (warning,) = warnings(part)
    assert warning.startswith("2 of 2 kept self-dialogues were cut at 40 tokens a turn")
