"""Every file that a training reads is known: to its key, and to the gate, which looks for the suites in it."""

import typing

import pytest

from metagdpo.objectives import Anchor
from metagdpo.trained_on import TEXTS
from metagdpo.training.anchoring import _wanted
from metagdpo.training.on_policy_settings import Grpo
from metagdpo.training.settings import TrainParams
from pipelines import train

FILE_OF = {"context_free": train.CONTEXT_FREE, "self_dialogue": train.DIALOGUES, "groups": train.GROUPS}
"""Kind of text -> the file it comes from."""


def variants():
    """Every anchor of the union, on every kind of text that it can take."""
    for kind in typing.get_args(typing.get_args(Anchor)[0]):
        required = {name: 2 if name == "per_step" else 1.0 for name, f in kind.model_fields.items() if f.is_required()}
        texts = typing.get_args(kind.model_fields["texts"].annotation) if "texts" in kind.model_fields else ()
        yield from [kind(**required, texts=text) for text in texts] or [kind(**required)]


ANCHORS = list(variants())


def settings(*anchors, **changes):
    return TrainParams(method="lora", learning_rate=1e-4, anchors=anchors, **changes)


@pytest.mark.parametrize("anchor", ANCHORS, ids=lambda anchor: f"{anchor.kind} {getattr(anchor, 'texts', '')}")
def test_the_key_of_a_training_names_the_file_of_every_text_that_its_anchors_want(anchor):
    params = settings(anchor)
    wanted = {FILE_OF[name.partition("/")[0]] for name in _wanted(params)}
    assert {train.GROUPS, train.REFERENCE} | wanted == set(train.files_read(params))


def test_a_training_without_anchors_has_the_same_key_whatever_the_base_wrote():
    assert [train.GROUPS, train.REFERENCE] == train.files_read(settings())


def test_files_are_named_once_and_in_one_order():
    names = train.files_read(settings(*ANCHORS))
    assert sorted(set(names)) == names


def test_an_on_policy_training_asks_questions():
    on_policy = Grpo(
        start="base", steps=1, questions_per_step=1, responses_per_question=2, max_new_tokens=4, learning_rate=1e-5
    )
    assert {train.QUESTIONS} == set(train.files_read(settings(on_policy=on_policy))) - set(train.files_read(settings()))


def test_the_gate_knows_how_to_read_every_file():
    on_policy = Grpo(
        start="offline", steps=1, questions_per_step=1, responses_per_question=2, max_new_tokens=4, learning_rate=1e-5
    )
    assert set(train.files_read(settings(*ANCHORS, on_policy=on_policy))) <= set(TEXTS)


def test_what_only_measures_decides_nothing():
    assert train.HELD_OUT not in train.files_read(settings(*ANCHORS))
