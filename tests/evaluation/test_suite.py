import pytest

from metagdpo.errors import ConfigError
from metagdpo.evaluation.suite import Suite, load_suites, task_digest
from metagdpo.params import validate
from metagdpo.records.item_score import Generation

CHOICE = """
name: {name}
skill: telling birds from fish
tier: required
metric: acc_norm
items:
  kind: asset
  asset: birds
  file: test.jsonl
  prompt: "{{question}}"
  options: {{kind: fields, right: bird, wrong: [fish]}}
n_items: 10
chance: 0.5
licence: CC0
source: made up
"""
WRITTEN = {
    "name": "sums", "skill": "adding", "tier": "watched", "metric": "exact",
    "items": {"kind": "procedural", "family": "chain_sum", "seed": 1, "size": 5},
    "n_items": 5, "max_new_tokens": 8, "chance": 0.0, "licence": "Apache-2.0", "source": "reasoning-gym",
}  # fmt: skip


def written(items=None, **changes):
    return validate({**WRITTEN, **changes, "items": {**WRITTEN["items"], **(items or {})}}, Suite, where="sums.yaml")


def test_suites_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.yaml").write_text(CHOICE.format(name=name))
    assert [(suite.name, suite.form, suite.reference) for suite in load_suites(tmp_path)] == [
        ("a", "choice", "asset:birds"),
        ("b", "choice", "asset:birds"),
    ]


def test_the_problems_of_all_files_are_listed_together(tmp_path):
    (tmp_path / "a.yaml").write_text(CHOICE.format(name="other"))
    (tmp_path / "b.yaml").write_text(CHOICE.format(name="b").replace("0.5", "1.5").replace("required", "needed"))
    (tmp_path / "c.yaml").write_text("name: [")
    with pytest.raises(ConfigError) as caught:
        load_suites(tmp_path)
    text = str(caught.value)
    for expected in (
        "name: must be the file's name",
        "chance: ",
        "tier: ",
        "c.yaml is not valid YAML",
        "metagdpo check",
    ):
        assert expected in text


def test_a_folder_without_suites_compares_nothing(tmp_path):
    with pytest.raises(ConfigError, match="holds no suite"):
        load_suites(tmp_path)


@pytest.mark.parametrize(
    ("changes", "items", "message"),
    [
        ({"max_new_tokens": 0}, {}, "`max_new_tokens` belongs to `metric: exact`"),
        ({"metric": "acc", "max_new_tokens": 0}, {}, "items with options need"),
        ({}, {"options": ["Yes", "No"]}, "items with options need"),
        ({}, {"answer": "boxed", "shots": 2}, "without `shots`"),
        ({}, {"options": ["Yes"]}, "one option is no choice"),
        ({}, {"prompt": "Q:"}, "must contain {question}"),
        ({"metric": "graded", "max_new_tokens": 0}, {}, "`max_new_tokens` belongs to `metric: exact` and `graded`"),
        ({"n_items": 0}, {}, "n_items: "),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, items, message):
    with pytest.raises(ConfigError, match=message):
        written(items, **changes)


def test_an_answer_of_one_line_ends_with_the_line_unless_it_is_a_chat():
    assert written().stop == ("\n",)
    assert written(chat=True).stop == ()
    assert written({"answer": "boxed"}, chat=True).stop == ()


def test_the_task_digest_follows_what_decides_a_score_and_nothing_else():
    assert task_digest(written()) == task_digest(written(tier="required", skill="sums", n_items=3))
    others = [written(chat=True), written(metric="graded"), written({"answer": "boxed"})]
    assert len({task_digest(suite) for suite in [written(), *others]}) == 4


def test_generation_settings_stand_for_themselves():
    assert written().generation == Generation(max_new_tokens=8, stop=("\n",), temperature=0.0)
    assert task_digest(written()) == task_digest(written(max_new_tokens=9))
    choice = {"items": {"kind": "files", "path": "p"}, "metric": "acc", "max_new_tokens": 0}
    assert validate({**WRITTEN, **choice}, Suite, where="s").generation is None


@pytest.mark.parametrize("tier", ["required", "target", "safety", "watched"])
def test_a_suite_has_one_of_four_tiers(tier):
    assert tier == written(tier=tier).tier
