"""comparison/dvc.yaml tells the truth: each stage depends on all that it reads, by digests that inputs/ makes."""

import ast

import pytest
from closure import COMPARISON, DIGESTS, ROOT, closure, code_dependencies, script, stages

from metagdpo.comparison.settings import SECTIONS, STAGES
from metagdpo.runs import read_comparison

RUNS, INPUTS, MAIN = stages(COMPARISON), stages("comparison/inputs/dvc.yaml"), stages("dvc.yaml")
DIGESTED = {name: stage for name, stage in INPUTS.items() if stage["cmd"].split()[2] == DIGESTS}


def sections_read(path):
    """Sections of params.yaml that a script names."""
    return {
        node.args[0].value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "section"
    }


@pytest.mark.parametrize("name", INPUTS)
def test_code_is_listed_where_its_digests_are_made(name):
    """Changed code reruns exactly the stages that load it."""
    listed = sorted(dep for dep in INPUTS[name]["deps"] if dep.endswith(".py"))
    assert code_dependencies(INPUTS[name]) == listed, "write them with `python tests/architecture/update_dvc_yaml.py`"


@pytest.mark.parametrize("name", RUNS)
def test_every_stage_of_the_comparison_depends_on_its_digests(name):
    assert name in DIGESTED
    assert f"comparison/inputs/{name}.json" in RUNS[name]["deps"]
    assert [f"comparison/inputs/{name}.json"] == DIGESTED[name]["outs"]
    assert name == DIGESTED[name]["cmd"].split()[3]


def test_no_stage_of_a_run_lists_code_or_parameters_itself():
    """DVC would write them into dvc.lock once for each run."""
    assert [] == [dep for stage in RUNS.values() for dep in stage["deps"] if dep.endswith(".py")]
    assert [] == [name for name, stage in RUNS.items() if "params" in stage]


@pytest.mark.parametrize(("name", "main"), [("train", "train"), ("interpolate", "interpolate"), ("evaluate_base",) * 2])
def test_a_run_reads_the_data_that_the_main_jobs_stage_reads(name, main):
    """All but what it makes of its own: weights."""
    mine = {dep for dep in DIGESTED[name]["deps"] if not dep.endswith(".py")}
    theirs = {dep for dep in MAIN[main]["deps"] if not dep.endswith(".py") and not dep.startswith("models/")}
    assert theirs == mine


def test_an_evaluation_reads_what_the_main_jobs_does_but_neither_champion_nor_policy():
    mine = {dep for dep in DIGESTED["evaluate"]["deps"] if not dep.endswith(".py")}
    theirs = {dep for dep in MAIN["evaluate_candidate"]["deps"] if not dep.endswith(".py")}
    stopping = {"data/champion.json", "evaluations/base", "evaluations/champion", "registry/policy.yaml"}
    assert theirs - stopping - {"models/candidate"} == mine


@pytest.mark.parametrize("name", STAGES)
def test_the_settings_of_a_stage_are_the_sections_that_its_script_reads(name):
    assert sections_read(script(RUNS[name])) == set(STAGES[name])
    assert any(dep.endswith(f"/{name}.json") and "/settings/" in dep for dep in RUNS[name]["deps"])


def test_the_settings_depend_on_every_section_and_on_the_whole_comparison():
    plain = [entry for entry in INPUTS["settings"]["params"] if isinstance(entry, str)]
    assert set(SECTIONS) == set(plain)
    assert {"comparison.yaml": None} in INPUTS["settings"]["params"]


@pytest.mark.parametrize("name", INPUTS)
def test_every_data_dependency_is_made_or_committed(name):
    outs = [out if isinstance(out, str) else next(iter(out)) for s in MAIN.values() for out in s.get("outs", [])]
    for dep in INPUTS[name]["deps"]:
        assert any(dep == out or dep.startswith(out + "/") for out in outs) or (ROOT / dep).exists(), dep


def test_each_method_and_seed_has_its_own_stages():
    for name in ("train", "interpolate", "evaluate"):
        assert {"method": "${compare}", "seed": "${seeds}"} == RUNS[name]["matrix"]
        assert "${item.method} ${item.seed}" in RUNS[name]["cmd"]
    assert read_comparison(ROOT / "comparison.yaml").compare


def test_the_table_reads_every_text_that_a_training_may_have_read():
    """It looks for the suites in them, as the gate does."""
    from metagdpo.trained_on import TEXTS

    assert set(TEXTS) <= set(DIGESTED["table"]["deps"])


def test_closures_reach_what_is_imported_inside_functions():
    assert ROOT / "metagdpo/cli_compare.py" not in closure(ROOT / "pipelines/compare.py")
    assert ROOT / "metagdpo/comparison/settings.py" in closure(ROOT / "pipelines/compare_settings.py")
