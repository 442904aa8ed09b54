"""Settings of runs: what each stage has, and every problem before anything is paid for."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from metagdpo.comparison.settings import check, stage_settings
from metagdpo.runs import base_run, read_comparison, run_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """The committed configuration, in a folder of its own."""
    for name in ("params.yaml", "comparison.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def declared(project, old, new):
    text = (project / "comparison.yaml").read_text()
    assert old in text
    (project / "comparison.yaml").write_text(text.replace(old, new, 1))
    return read_comparison()


def test_the_committed_comparison_is_valid(project):
    assert [] == check(read_comparison(), project)


def test_every_problem_of_every_method_is_told_also_of_those_that_are_not_compared(project):
    comparison = declared(project, "{alphas: [", "{alphas: [0, ")
    comparison = declared(project, "perplexity: 2.5", "perplexity: 0.5")
    assert "sft-stm" not in comparison.compare
    text = "\n".join(check(comparison, project))
    for words in ("method sft-wise", "interpolate.alphas", "method sft-stm", "train.token_mask.perplexity"):
        assert words in text


def test_what_params_itself_has_wrong_is_told_for_the_methods(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("\nevaluate:", "\nevaluat:"))
    assert any("no such section" in line for line in check(read_comparison(), project))


def test_grpo_without_trl_is_told_only_where_it_is_compared(project, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "trl" else found(name))
    assert [] == check(read_comparison(), project)
    (line,) = check(declared(project, "compare: [", "compare: [grpo, "), project)
    assert "method grpo needs TRL" in line
    assert "pip install '.[grpo]'" in line


def test_a_stage_has_the_sections_that_it_reads():
    run = run_of("sft", 2, read_comparison())
    assert {"base", "reference", "train"} == stage_settings(run, "train").keys()
    assert {"base", "interpolate", "evaluate"} == stage_settings(run, "interpolate").keys()
    assert {"base", "evaluate", "reference"} == stage_settings(run, "evaluate").keys()
    assert 2 == stage_settings(run, "train")["base"]["seed"]


def test_rewards_decide_only_a_training_that_samples():
    assert "reward" in stage_settings(run_of("grpo", 1, read_comparison()), "train")


def test_another_training_of_one_method_leaves_the_settings_of_the_others_alone(project):
    before, after = read_comparison(), declared(project, "weight: 1.0, per_step: 2", "weight: 0.5, per_step: 2")
    assert stage_settings(run_of("sft", 1, before), "train") == stage_settings(run_of("sft", 1, after), "train")
    one, other = (stage_settings(run_of("sft-cfs", 1, each), "train") for each in (before, after))
    assert one != other


def test_other_items_for_all_leave_trainings_alone(project):
    before = stage_settings(run_of("sft", 1, read_comparison()), "train")
    comparison = declared(project, "evaluate:\n", "evaluate:\n    items_per_look: 16\n")
    assert before == stage_settings(run_of("sft", 1, comparison), "train")
    evaluate = stage_settings(run_of("sft", 1, comparison), "evaluate")["evaluate"]
    assert 16 == evaluate["items_per_look"]
    assert evaluate == stage_settings(base_run(comparison), "evaluate")["evaluate"]


def test_labels_and_unused_methods_are_no_setting(project):
    before = stage_settings(run_of("sft", 1, read_comparison()), "train")
    assert before == stage_settings(run_of("sft", 1, declared(project, "label: SFT\n", "label: Plain\n")), "train")
