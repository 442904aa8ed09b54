import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from metagdpo.models.chat import render
from metagdpo.models.load import identify, load_tokenizer
from metagdpo.models.local import Local
from metagdpo.models.port import Completion, Message
from metagdpo.params import validate
from metagdpo.preservation.chat_layout import chat_layout
from metagdpo.preservation.self_dialogue import sample_dialogues
from metagdpo.preservation.settings import SelfDialogueParams

SYSTEM = "{{ '<|im_start|>system\nYou are Tiny<|im_end|>\n' }}"

words = st.text("abcXYZ019.,?!()+é中🙂 ", min_size=1, max_size=12).map(str.strip).filter(bool)


def settings(**changes):
    return validate({"n": 1, "max_new_tokens": 16, **changes}, SelfDialogueParams, where="params.yaml")


class Actor:
    """Says what was written down, in order, and ends every turn as a chat model does; remembers what it saw."""

    identity = "actor"

    def __init__(self, tokenizer, said):
        self.tokenizer, self.said, self.seen = tokenizer, said, []

    def complete(self, requests, _):
        (request,) = requests
        text = self.said[len(self.seen)]
        self.seen.append(request.prefix_ids)
        ids = self.tokenizer(text + "<|im_end|>", add_special_tokens=False).input_ids
        yield 0, Completion(text=text, token_ids=tuple(ids), finish_reason="stop")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    tokenizer = load_tokenizer(tiny_model_dir)
    tokenizer.chat_template = SYSTEM + tokenizer.chat_template
    return tokenizer


@pytest.fixture(scope="module")
def model(five_words_dir):
    return Local(five_words_dir, identify("five", five_words_dir), dtype="float32", batch_size=16)


LAYOUT = ((0, 2), (1, 3), (1, 4), (1, 3))
"""For the model of five words, whose end token is 1."""


def sampled(model, n=40, layout=LAYOUT, seed=0, **changes):
    return sample_dialogues(
        model, "sha256:w", layout, settings(max_new_tokens=2, temperature=1.5, **changes), n=n, seed=seed
    )


@example_settings(deadline=None)
@given(said=st.lists(words, min_size=1, max_size=3).flatmap(lambda row: st.just([*row, *row[::-1]])))
def test_what_the_model_sees_is_the_templates_rendering_of_what_was_said(tokenizer, said):
    """For the assistant the whole prompt; for the user the rendering up to where the user's words begin."""
    actor = Actor(tokenizer, said)
    sample_dialogues(actor, "w", chat_layout(tokenizer, len(said)), settings(), n=1, seed=0)
    talk = [Message(role=("user", "assistant")[k % 2], content=text) for k, text in enumerate(said)]
    assert len(actor.seen) == len(said)
    for turn, seen in enumerate(actor.seen):
        if turn % 2:
            assert list(seen) == render(tokenizer, talk[:turn])
        else:
            shown = tokenizer.decode(render(tokenizer, talk[: turn + 1], add_generation_prompt=False))
            opened = tokenizer.decode(seen)
            assert shown == f"{opened}{said[turn]}<|im_end|>\n"


@example_settings(deadline=None)
@given(said=st.lists(words, min_size=2, max_size=2))
def test_a_dialogues_ids_are_the_templates_rendering_of_its_text(tokenizer, said):
    (dialogue,) = sample_dialogues(Actor(tokenizer, said), "w", chat_layout(tokenizer, 2), settings(), n=1, seed=0)
    built = [token for turn in dialogue.turns for token in (*turn.template_ids, *turn.token_ids)]
    talk = [Message(role=turn.role, content=turn.text) for turn in dialogue.turns]
    after_the_end = tokenizer("\n", add_special_tokens=False).input_ids
    assert built + after_the_end == render(tokenizer, talk, add_generation_prompt=False)


def test_roles_alternate_and_the_user_begins(model):
    dialogues = sampled(model)
    assert {len(one.turns) for one in dialogues} == {1, 3, 4}
    for one in dialogues:
        assert [turn.role for turn in one.turns] == ["user", "assistant", "user", "assistant"][: len(one.turns)]


def test_a_cut_turn_ends_its_dialogue_and_stays_in_it(model):
    for one in sampled(model):
        assert all(turn.ended for turn in one.turns[:-1])
        assert one.turns[-1].ended or len(one.turns[-1].token_ids) == 2
        assert len(one.turns) == 4 or not one.turns[-1].ended


def test_every_dialogue_carries_its_provenance(model):
    for index, one in enumerate(sampled(model)):
        assert (one.index, one.model, one.temperature, one.top_p, one.max_new_tokens) == (
            index, "sha256:w", 1.5, 0.9, 2,
        )  # fmt: skip
    seeds = [turn.seed for one in sampled(model) for turn in one.turns]
    assert len(set(seeds)) == len(seeds)


def test_more_dialogues_or_more_turns_leave_those_there_are_as_they_were(model):
    few, many = sampled(model, n=10), sampled(model, n=20)
    assert many[:10] == few
    short = sampled(model, n=10, layout=LAYOUT[:2])
    assert [one.turns[:2] for one in few] == [one.turns for one in short]


def test_another_seed_gives_other_dialogues(model):
    assert sampled(model, seed=1) != sampled(model)


def test_no_dialogues_ask_nothing(model):
    assert sampled(model, n=0) == []
