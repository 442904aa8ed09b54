"""The example workflow: sound as YAML, safe as a workflow, and its shell steps do what they say."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from metagdpo.gate.policy import read_policy

EXAMPLE = Path(__file__).parents[2] / "examples/github-actions"
TEXT = (EXAMPLE / "forgetting-gate.yml").read_text(encoding="utf-8")
WORKFLOW = YAML(typ="safe", pure=True).load(TEXT)
JOB = WORKFLOW["jobs"]["gate"]
STEPS = {step.get("name", step.get("uses")): step for step in JOB["steps"]}


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Run a step's script as a runner does, in a folder of its own; returns the exit code."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin")
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    shutil.copy(EXAMPLE / "gate.yaml", tmp_path)

    def run(name, **environment):
        for key, value in {**{k: v for k, v in JOB["env"].items() if "${{" not in v}, **environment}.items():
            monkeypatch.setenv(key, value)
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]]
        return subprocess.run(words, cwd=tmp_path, check=False).returncode

    return run


@pytest.fixture
def program(tmp_path):
    """Put a program in front of the real one."""

    def make(name, script):
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return make


def test_permissions_are_the_least_that_works():
    assert {"contents": "read", "pull-requests": "write"} == WORKFLOW["permissions"]


def test_actions_are_pinned_by_version():
    assert [] == [step["uses"] for step in JOB["steps"] if "uses" in step and not re.search(r"@v\d+$", step["uses"])]


def test_nothing_of_a_pull_request_becomes_text_of_a_script():
    """`${{ }}` inside a script is filled in before the shell reads it; values come through the environment."""
    assert [] == [name for name, step in STEPS.items() if "${{" in step.get("run", "")]


def test_a_pull_request_starts_it_with_its_own_rights():
    """`pull_request_target` would run a fork's code with a token that writes."""
    assert ["pull_request"] == list(WORKFLOW["on"])


def test_nothing_is_left_to_fill_in_but_settings():
    assert [] == re.findall(r"TODO|FIXME|XXX|<[a-z-]+>|your-|OWNER", TEXT.replace("<!-- forgetting-gate -->", ""))


def test_its_policy_is_valid():
    assert 0.04 == read_policy(EXAMPLE / "gate.yaml").default_margin


def test_both_models_are_measured_by_the_same_command():
    base, candidate = (STEPS[f"Measure the {who}"]["run"] for who in ("base", "candidate"))
    assert base.replace("BASE_MODEL", "CANDIDATE_MODEL").replace("/base", "/candidate") == candidate


def test_a_missing_variable_says_what_to_set(shell, capfd):
    assert 3 == shell("Install", METAGDPO="")
    assert "Set the repository variable METAGDPO" in capfd.readouterr().out


def test_the_gate_answers_and_the_comment_is_its_report(shell, lm_eval_run, tmp_path):
    """Four items decide nothing, whatever the models."""
    for who, model in (("base", "base"), ("candidate", "tuned")):
        run = lm_eval_run(model, results=lambda d: d["configs"].pop("sums"))
        shutil.copytree(run, tmp_path / "scores" / who)
    assert 0 == shell("Ask the gate")
    comment = (tmp_path / "comment.md").read_text()
    assert ["<!-- forgetting-gate -->", "## 🟡 Forgetting gate: INCONCLUSIVE"] == comment.splitlines()[:2]
    assert "code=2\n" == (tmp_path / "GITHUB_OUTPUT").read_text()
    assert comment == (tmp_path / "GITHUB_STEP_SUMMARY").read_text()


@pytest.mark.parametrize(("code", "kept"), [(7, 7), (1, 70), (0, 70), (137, 137)])
def test_without_a_report_there_is_no_verdict(shell, program, tmp_path, code, kept):
    """Whatever made the program leave with 0 or 1: without a report it decided nothing."""
    program("metagdpo", f"echo 'EvidenceError: `@team` differs'; exit {code}")
    assert 0 == shell("Ask the gate")
    assert f"code={kept}\n" == (tmp_path / "GITHUB_OUTPUT").read_text()
    comment = (tmp_path / "comment.md").read_text()
    assert f"no answer (exit code {kept})\n\n    EvidenceError: `@team` differs\n" in comment


@pytest.mark.parametrize(
    ("found", "expected"), [("", "POST repos/o/r/issues/7/comments"), ("5\n9", "PATCH repos/o/r/issues/comments/9")]
)
def test_one_comment_is_made_and_later_replaced(shell, program, tmp_path, found, expected):
    program("gh", f'if [ "$2" = --paginate ]; then printf "%s" "{found}"; else echo "$3 $4 $6" >> calls; fi')
    where = {"COMMENTS": "repos/o/r/issues/7/comments", "COMMENT": "repos/o/r/issues/comments"}
    assert 0 == shell("Comment on the pull request", **where)
    assert f"{expected} body=@comment.md\n" == (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    ("code", "says"), [("0", "PROMOTE"), ("1", "BLOCK"), ("2", "INCONCLUSIVE"), ("7", "could not answer")]
)
def test_the_job_ends_with_the_answer(shell, capfd, code, says):
    assert int(code) == shell("Pass the answer on", CODE=code)
    assert says in capfd.readouterr().out
