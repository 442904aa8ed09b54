import json
import shutil

import numpy as np
import pytest

from metagdpo.errors import ConfigError
from metagdpo.knowledge.annotate import (
    AnnotateParams,
    Taxonomy,
    annotate,
    annotate_with_model,
    annotate_with_taxonomy,
    load_taxonomy,
    normalised_name,
    parse_skills,
)
from metagdpo.knowledge.merge import by_stem
from metagdpo.models.port import Completion, Sampling
from metagdpo.params import BaseParams, problems
from metagdpo.records.question import Question, question_id

SAMPLING = Sampling(temperature=0.0, max_new_tokens=64)
TAXONOMY = Taxonomy.model_validate_json(
    '{"version": 3, "skills": [{"name": "east", "description": "E"}, {"name": "north", "description": "N"},'
    ' {"name": "north_east", "description": "NE"}]}'
)
COMPASS = {"E": (1.0, 0.0), "N": (0.0, 1.0), "NE": (2**-0.5, 2**-0.5), "W": (-1.0, 0.0)}


def question(prompt):
    return Question(
        id=question_id(prompt, "1", "numeric"),
        prompt=prompt,
        domain="mathematical",
        reference_answer="1",
        verifier="numeric",
        source="test",
        licence="none",
    )


def embed(texts):
    return np.array([COMPASS[text] for text in texts], dtype=np.float32)


def nearest(prompts, **changes):
    choice = {"top_k": 2, "min_similarity": 0.5, "embedding": "sha256:e", **changes}
    return list(annotate_with_taxonomy([question(p) for p in prompts], embed, TAXONOMY, **choice))


class Replies:
    """A text model that gives prepared replies, last one first."""

    identity = "sha256:m"

    def __init__(self, *replies):
        self.replies = replies
        self.requests = []

    def complete(self, requests, sampling):  # noqa: ARG002  (the port's signature)
        self.requests = requests
        for position in reversed(range(len(requests))):
            yield position, Completion(text=self.replies[position], finish_reason="stop")


def test_the_nearest_skills_are_taken_in_the_order_of_their_similarity():
    (found,) = nearest(["E"])
    assert [(skill.name, skill.reason) for skill in found.skills] == [
        ("east", "cosine 1.0000 to its description"),
        ("north_east", "cosine 0.7071 to its description"),
    ]


def test_raw_keeps_the_similarity_to_every_skill():
    (found,) = nearest(["W"])
    assert found.raw == {"east": -1.0, "north": 0.0, "north_east": -0.7071}
    assert found.skills == ()


def test_equally_near_skills_are_taken_alphabetically():
    (found,) = nearest(["NE"], top_k=3, min_similarity=0.7)
    assert [skill.name for skill in found.skills] == ["north_east", "east", "north"]


def test_the_annotator_names_what_decides_its_labels():
    (found,), (other,) = nearest(["E"]), nearest(["E"], min_similarity=0.4)
    assert "version 3 sha256:" in found.annotator
    assert "embedding sha256:e" in found.annotator
    assert found.annotator != other.annotator


def test_a_model_s_skills_are_read_in_the_order_of_the_questions():
    model = Replies('{"adding": "a sum"}', '```json\n{"Counting Letters": "letters"}\n```')
    found = list(annotate_with_model([question("1 + 1?"), question("count")], model, SAMPLING, 7))
    assert [[skill.name for skill in row.skills] for row in found] == [["adding"], ["counting_letters"]]
    assert found[0].raw == '{"adding": "a sum"}'
    assert "model sha256:m, prompt 1" in found[0].annotator


def test_a_reply_that_is_not_json_gives_no_skills_and_is_kept():
    (found,) = annotate_with_model([question("?")], Replies("I think: addition."), SAMPLING, 7)
    assert (found.skills, found.raw) == ((), "I think: addition.")


def test_requests_ask_the_paper_s_question_with_seeds_of_their_own():
    model = Replies("{}", "{}")
    list(annotate_with_model([question("1 + 1?"), question("2 + 2?")], model, SAMPLING, 7))
    assert "mathematical domain" in model.requests[0].messages[0].content
    assert len({request.seed for request in model.requests}) == 2


@pytest.mark.parametrize(
    ("reply", "names"),
    [
        ('{"a": "x", "b_c": "y"}', ["a", "b_c"]),
        ('Here you are:\n```json\n{"a": "x"}\n```\nDone.', ["a"]),
        ('Sets like {1, 2} matter. {"a": "x"}', ["a"]),
        ('<think>maybe {"wrong": "x"}</think>{"a": "x"}', ["a"]),
        ('{} {"a": "x"}', ["a"]),
        ('{"A  b!": "x", "a_b": "y"}', ["a_b"]),
        ('{"a": ["not a reason"], "b": "y", "": "z", "?!": "z"}', ["b"]),
        ('{"a": "cut of', []),
        ("[1, 2]", []),
        ("", []),
    ],
)
def test_skills_are_read_from_whatever_surrounds_them(reply, names):
    assert [skill.name for skill in parse_skills(reply)] == names


def test_of_names_that_become_equal_the_first_reason_stays():
    assert [skill.reason for skill in parse_skills('{"A b": "first", "a_b": "second"}')] == ["first"]


def test_names_become_lower_case_words_joined_by_underscores():
    assert normalised_name("Adding  Two-Digit numbers!") == "adding_two_digit_numbers"


def test_the_taxonomy_is_broad_and_its_names_are_already_normal():
    names = [skill.name for skill in load_taxonomy().skills]
    assert len(names) >= 100
    assert [normalised_name(name) for name in names] == names


def test_merging_by_stem_never_joins_two_skills_of_the_taxonomy():
    names = [skill.name for skill in load_taxonomy().skills]
    assert [group for group in by_stem(names) if len(group) > 1] == []


def test_a_taxonomy_with_a_skill_listed_twice_is_refused(tmp_path):
    path = tmp_path / "taxonomy.yaml"
    path.write_text("version: 1\nskills:\n  - {name: a, description: x}\n  - {name: a, description: y}\n")
    with pytest.raises(ConfigError, match=r"taxonomy.yaml is not valid:\n  skills: .*listed twice: a"):
        load_taxonomy(path)


def annotate_params(annotator):
    found, lines = problems({"annotator": annotator}, AnnotateParams)
    assert lines == []
    return found


TAXONOMY_KIND = {"kind": "taxonomy", "embedding": "asset:mini", "top_k": 2, "min_similarity": -1.0}
ENDPOINT = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "model": "big"}


@pytest.mark.parametrize(
    ("annotator", "references"),
    [
        (TAXONOMY_KIND, ("asset:mini",)),
        ({"kind": "chat", "model": ENDPOINT}, ()),
        ({"kind": "chat", "model": {"kind": "local", "model": "base"}}, ()),
        ({"kind": "chat", "model": {"kind": "local", "model": "asset:other"}}, ("asset:other",)),
    ],
)
def test_the_parameters_name_the_models_that_must_be_there(annotator, references):
    assert annotate_params(annotator).references() == references


def base_params(model):
    return BaseParams(model=str(model), dtype="float32", seed=1, experiment="test")


def test_the_stage_annotates_with_a_real_encoder(tiny_model_dir, tmp_path):
    params = annotate_params({**TAXONOMY_KIND, "embedding": str(tiny_model_dir)})
    found = annotate([question("1 + 1?"), question("Who?")], params, base_params(tiny_model_dir), tmp_path)
    assert [len(row.skills) for row in found] == [2, 2]
    assert set(found[0].raw) == {skill.name for skill in load_taxonomy().skills}


def test_the_stage_annotates_with_a_local_model(tiny_model_dir, tmp_path):
    model = shutil.copytree(tiny_model_dir, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    params = annotate_params({"kind": "chat", "model": {"kind": "local", "model": "base"}, "max_new_tokens": 4})
    (found,) = annotate([question("1 + 1?")], params, base_params(model), tmp_path / "work")
    assert found.annotator.startswith("chat: model sha256:")
    assert isinstance(found.raw, str)
