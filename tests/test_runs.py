"""Runs: which files and parameters the main job and each run of the comparison have."""

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metagdpo.errors import ConfigError
from metagdpo.params import BaseParams, load_yaml
from metagdpo.runs import (
    OF_A_METHOD,
    Run,
    base_run,
    merged,
    read_comparison,
    run_from,
    run_of,
    runs_of,
)
from metagdpo.training.settings import TrainParams

PARAMS = """base: {model: m, dtype: float32, seed: 5, experiment: toy}
train:
  method: lora
  learning_rate: 1e-4
  lora: {r: 16, alpha: 32}
  objective: {kind: gdpo, beta: 0.5, nll: 1.0}
  anchors: [{kind: context_free, weight: 1.0, per_step: 4}]
interpolate: {alphas: [1.0]}
evaluate: {batch_size: 32, max_items: null}
"""
COMPARISON = """compare: [gdpo, sft]
seeds: [1, 2]
shared:
  train: {objective: {kind: sft}, anchors: [], lora: {r: 4}}
  evaluate: {max_items: 100}
methods:
  sft: {label: SFT}
  gdpo: {label: GDPO, changes: {train: {objective: {kind: gdpo}}}}
  fast: {label: Fast, changes: {train: {learning_rate: 2e-4}, interpolate: {alphas: [0.5, 1.0]}}}
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "comparison.yaml").write_text(COMPARISON)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def declared(project, old="", new=""):
    assert old in COMPARISON
    (project / "comparison.yaml").write_text(COMPARISON.replace(old, new))
    return read_comparison()


def train(run):
    return run.section("train", TrainParams)


def test_without_arguments_it_is_the_main_job_with_params_as_they_are():
    run = run_from([])
    assert Run() == run
    assert load_yaml(Path("params.yaml")) == run.document()
    assert ("", "models/candidate") == (run.name, str(run.candidate))


def test_a_run_has_a_folder_of_its_own_for_everything_that_it_writes():
    one, other = run_from(["sft", "1"]), run_from(["sft", "2"])
    mine = {str(path) for path in vars(one).values() if hasattr(path, "parts")}
    theirs = {str(path) for path in vars(other).values() if hasattr(path, "parts")}
    assert 5 == len(mine)
    assert all(path.startswith("comparison/runs/sft-1/") for path in mine)
    assert set() == mine & theirs


@pytest.mark.parametrize("words", [["sft"], ["sft", "x"], ["sft", "-1"], ["sft", "1", "2"], ["sft", "²"]])
def test_other_arguments_are_a_mistake_of_the_command_and_never_a_verdict(words, capsys):
    with pytest.raises(SystemExit) as caught:
        run_from(words)
    assert ConfigError.exit_code == caught.value.code
    assert "[METHOD SEED]" in capsys.readouterr().out


def test_an_unknown_method_is_named_beside_the_one_that_was_perhaps_meant():
    with pytest.raises(ConfigError, match=r"no method gdop \(did you mean gdpo\?\), .* sft, gdpo, fast"):
        run_from(["gdop", "1"])


def test_the_seed_and_an_experiment_beside_the_main_jobs_are_the_runs():
    base = run_from(["sft", "2"]).section("base", BaseParams)
    assert (2, "toy-comparison", "m") == (base.seed, base.experiment, base.model)


def test_a_seed_that_is_not_declared_can_be_run_by_hand():
    assert 99 == run_from(["sft", "99"]).section("base", BaseParams).seed


def test_shared_values_are_laid_over_params_and_the_methods_over_those():
    sft, fast = train(run_from(["sft", "1"])), train(run_from(["fast", "1"]))
    assert ("sft", (), 1e-4) == (sft.objective.kind, sft.anchors, sft.learning_rate)
    assert ("sft", (), 2e-4) == (fast.objective.kind, fast.anchors, fast.learning_rate)
    assert (4, 32) == (sft.lora.r, sft.lora.alpha), "a mapping without a kind is changed leaf by leaf"


def test_a_method_never_inherits_from_an_objective_that_shared_values_replaced():
    """params.yaml: gdpo with nll 1; shared: sft; the method: gdpo. Its nll is the type's own, not params.yaml's."""
    objective = train(run_from(["gdpo", "1"])).objective
    assert ("gdpo", 0.0, 0.1) == (objective.kind, objective.nll, objective.beta)


def test_making_runs_changes_nothing_that_was_declared(project):
    comparison = declared(project)
    before = comparison.model_dump()
    for run in runs_of(comparison):
        train(run)
    assert before == comparison.model_dump()


def test_all_runs_come_method_by_method_in_the_declared_order(project):
    names = [run.name for run in runs_of(declared(project))]
    assert ["gdpo-1", "gdpo-2", "sft-1", "sft-2"] == names


def test_the_base_is_measured_like_the_runs(project):
    comparison = declared(project)
    run = base_run(comparison)
    assert run.document()["evaluate"] == run_of("sft", 1, comparison).document()["evaluate"]
    assert 5 == run.section("base", BaseParams).seed


def test_a_misspelt_parameter_is_named_with_its_path_file_and_method(project):
    declared(project, "learning_rate: 2e-4", "lerning_rate: 2e-4")
    with pytest.raises(ConfigError, match=r"(?s)comparison\.yaml \(method fast\).*train\.lerning_rate"):
        train(run_from(["fast", "1"]))


def test_a_changed_section_must_be_in_params(project):
    (project / "params.yaml").write_text(PARAMS.replace("interpolate: {alphas: [1.0]}\n", ""))
    with pytest.raises(ConfigError, match=r"changes `interpolate`, and params\.yaml has no such section"):
        train(run_from(["fast", "1"]))


@pytest.mark.parametrize("section", ["base", "reference", "reward", "evaluate", "preserve"])
def test_a_method_may_not_have_other_data_or_another_measurement(project, section):
    with pytest.raises(ConfigError, match=rf"methods\.sft\.changes\.{section}: all methods have the same data"):
        declared(project, "{label: SFT}", f"{{label: SFT, changes: {{{section}: {{x: 1}}}}}}")


def test_shared_values_may_say_how_everything_is_measured_but_not_on_what_it_trains(project):
    assert 100 == declared(project).shared["evaluate"]["max_items"]
    with pytest.raises(ConfigError, match=r"shared\.respond: all methods have the same data"):
        declared(project, "shared:\n", "shared:\n  respond: {}\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[gdpo, sft]", "[gdpo, sftt]", r"compare names sftt \(did you mean sft\?\)"),
        ("[gdpo, sft]", "[]", "compare"),
        ("[gdpo, sft]", "[sft, sft]", "name everything once"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "name everything once"),
        ("seeds: [1, 2]", "seeds: [-1]", "seeds are 0 or more"),
        ("seeds: [1, 2]", "seeds: []", "seeds"),
        ("  sft: {label: SFT}", "  a/b: {label: SFT}", "letters, digits, - and _"),
        ("  sft: {label: SFT}", "  ../x: {label: SFT}", "letters, digits, - and _"),
        ("  sft: {label: SFT}", "  é: {label: SFT}", "letters, digits, - and _"),
        ("{label: SFT}", "{label: ''}", "label"),
        ("{label: SFT}", "{lable: SFT}", "lable"),
    ],
)
def test_a_wrong_comparison_is_refused_with_its_reason(project, old, new, message):
    with pytest.raises(ConfigError, match=message):
        declared(project, old, new)


def test_params_without_an_experiment_are_named(project):
    (project / "params.yaml").write_text("train: {}\n")
    with pytest.raises(ConfigError, match=r"no `base\.experiment`"):
        run_from(["sft", "1"])


leaves = st.one_of(st.none(), st.integers(), st.lists(st.integers(), max_size=2))
trees = st.dictionaries(
    st.sampled_from("abk"), st.recursive(leaves, lambda t: st.dictionaries(st.sampled_from("abc"), t))
)


@given(trees, trees)
def test_merging_leaves_both_sides_alone_and_has_every_leaf_of_the_new(old, new):
    before = copy.deepcopy((old, new))
    found = merged(old, new)
    assert before == (old, new)
    assert found == merged(found, new), "laid over twice is laid over once"
    assert {**old, **new}.keys() == found.keys()
    assert all(found[key] == value for key, value in new.items() if not isinstance(value, dict))
    assert all(found[key] == value for key, value in old.items() if key not in new)


def test_what_is_merged_shares_no_part_with_the_changes():
    new = {"a": {"b": [1]}}
    found = merged({}, new)
    found["a"]["b"].append(2)
    assert {"a": {"b": [1]}} == new


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"kind": "x", "p": 1}, {"kind": "y"}, {"kind": "y"}),
        ({"kind": "x", "p": 1}, {"kind": "x", "q": 2}, {"kind": "x", "p": 1, "q": 2}),
        ({"kind": "x", "p": 1}, {"q": 2}, {"kind": "x", "p": 1, "q": 2}),
        ({"p": 1}, {"kind": "x"}, {"kind": "x"}),
        ([1, 2], [3], [3]),
        ({"p": 1}, None, None),
        (None, {"p": 1}, {"p": 1}),
    ],
)
def test_another_kind_and_a_list_replace_as_a_whole(old, new, expected):
    assert expected == merged(old, new)


def test_only_sections_that_make_a_method_may_be_a_methods():
    assert ("train", "interpolate") == OF_A_METHOD
