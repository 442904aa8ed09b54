import pytest

from metagdpo.errors import ConfigError
from metagdpo.params import validate
from metagdpo.preservation.settings import PreserveParams

FREE = {"ratio": 0.5, "n_held_out": 2, "max_new_tokens": 8}
CHAT = {"ratio": 0.5, "max_new_tokens": 8}


def preserve(free=None, chat=None):
    section = {"context_free": {**FREE, **(free or {})}, "self_dialogue": None if chat is None else {**CHAT, **chat}}
    return validate(section, PreserveParams, where="params.yaml", prefix="preserve")


def test_the_defaults_sample_from_the_models_own_distribution_and_leave_nothing_out():
    free = preserve().context_free
    assert (free.prefix, free.temperature, free.top_p, free.filters) == ("bos", 1.0, 1.0, ())


def test_self_dialogues_default_to_the_papers_sampling():
    chat = preserve(chat={}).self_dialogue
    assert (chat.temperature, chat.top_p, chat.n_turns, chat.filters) == (0.7, 0.9, 2, ())


@pytest.mark.parametrize(
    ("ratio", "n_questions", "amount"), [(0.667, 96, 64), (0.333, 96, 32), (0, 96, 0), (2, 5, 10), (0.5, 0, 0)]
)
def test_a_ratio_counts_the_selected_questions_and_is_rounded(ratio, n_questions, amount):
    settings = preserve({"ratio": ratio}, {"ratio": ratio})
    assert settings.context_free.amount(n_questions) == amount
    assert settings.self_dialogue.amount(n_questions) == amount


def test_a_number_stands_whatever_the_number_of_questions():
    settings = preserve({"ratio": None, "n_train": 7}, {"ratio": None, "n": 3})
    assert [settings.context_free.amount(n) for n in (0, 1000)] == [7, 7]
    assert [settings.self_dialogue.amount(n) for n in (0, 1000)] == [3, 3]


@pytest.mark.parametrize(
    ("free", "chat", "message"),
    [
        ({"n_train": 3}, None, r"preserve\.context_free: .*exactly one of ratio .* and n_train"),
        ({"ratio": None}, None, r"exactly one of ratio .* and n_train"),
        ({}, {"n": 3}, r"preserve\.self_dialogue: .*exactly one of ratio .* and n "),
        ({}, {"ratio": None}, r"exactly one of ratio .* and n "),
        ({"prefix": "custom"}, None, r"if and only if prefix is `custom`"),
        ({"prefix_ids": [1]}, None, r"if and only if prefix is `custom`"),
        ({"prefix": "eos"}, None, r"context_free\.prefix: .*'chat_user_prefix'"),
        ({"temperature": 0}, None, r"context_free\.temperature"),
        ({"top_p": 0}, None, r"context_free\.top_p"),
        ({"ratio": -0.1}, None, r"context_free\.ratio"),
        ({"filters": ["loops"]}, None, r"context_free\.filters\.0: .*'repeats'"),
        ({}, {"n_turns": 3}, r"self_dialogue\.n_turns: .*multiple of 2"),
        ({}, {"n_turns": 0}, r"self_dialogue\.n_turns"),
        ({}, {"max_new_tokens": 0}, r"self_dialogue\.max_new_tokens"),
        ({"n_train": 3, "ratio": 0}, None, r"exactly one"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_path(free, chat, message):
    with pytest.raises(ConfigError, match=message):
        preserve(free, chat)


@pytest.mark.parametrize("n", [0, 1, -1])
def test_an_empty_held_out_part_is_refused_with_the_reason(n):
    with pytest.raises(ConfigError, match=rf"n_held_out: .*drift is measured .*at least 2 samples.*\(got {n}\)"):
        preserve({"n_held_out": n})


def test_a_held_out_count_of_another_type_is_refused():
    with pytest.raises(ConfigError, match=r"n_held_out: .*valid integer"):
        preserve({"n_held_out": True})
