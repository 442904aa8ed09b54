"""The command line: help, errors without traceback, exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from metagdpo import errors
from metagdpo.cli import main
from metagdpo.records.release import LedgerEntry
from metagdpo.schema import digest_text, write_jsonl

ROOT = Path(__file__).parents[1]
METAGDPO = str(Path(sys.executable).with_name("metagdpo"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The committed configuration, in a folder of its own."""
    shutil.copytree(ROOT / "registry", tmp_path / "registry")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "registry/ledger.jsonl").unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "registry/scores", ignore_errors=True)  # both are there after a release in this checkout
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*words):
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["check"],
        ["compare"],
        ["use"],
        ["explain"],
        ["gate"],
        ["gate", "check"],
        ["gate", "compare"],
        ["ui"],
        ["knowledge"],
        ["knowledge", "why"],
        ["knowledge", "units"],
        ["knowledge", "agreement"],
    ],
)
def test_every_command_has_help(words):
    found = command(*words, "--help")
    assert found.exit_code == 0
    assert "Usage:" in found.output


@pytest.mark.usefixtures("root")
def test_the_committed_configuration_is_valid():
    found = command("check")
    assert (0, True) == (found.exit_code, "are valid" in found.output)


def test_problems_of_several_files_come_together(root):
    """One look, all problems: parameters, a suite, the policy."""
    params = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(params.replace("format: 0.5", "format: half"))
    suite = root / "registry/suites/piqa.yaml"
    suite.write_text(suite.read_text().replace("n_items: 400", "n_items: none"))
    policy = root / "registry/policy.yaml"
    policy.write_text(policy.read_text().replace("alpha: 0.05", "alpha: 5"))
    found = command("check")
    assert found.exit_code == 3
    for words in ("reward.format", "piqa.yaml", "n_items", "policy.yaml", "alpha"):
        assert words in found.output


def test_looks_and_batches_of_different_size_are_a_problem(root):
    policy = root / "registry/policy.yaml"
    policy.write_text(policy.read_text().replace("sequential: null", "sequential: {items_per_look: 50}"))
    found = command("check")
    assert found.exit_code == 3
    assert "looks every 50 items and params.yaml scores 32 at a time" in found.output


def test_a_released_skill_whose_suite_is_gone_is_a_problem(root):
    entry = LedgerEntry(
        sequence=0, previous=digest_text(""), decision="PROMOTE", action="registered", model_name="metagdpo",
        version=1, candidate="c", base="b", verdict="v", trained=("rhymes",), run_key="r", git_commit="g",
        dvc_lock="d", recorded_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    write_jsonl(root / "registry/ledger.jsonl", [entry])
    found = command("check")
    assert (3, True) == (found.exit_code, "earlier releases were trained for rhymes" in found.output)


@pytest.mark.usefixtures("root")
def test_the_plan_needs_no_run(root):
    found = command("gate", "plan", "--flip-rate", "0.1", "--markdown", "plan.md")
    assert found.exit_code == 0
    assert "nothing is measured yet" in found.output
    assert "piqa" in (root / "plan.md").read_text()


@pytest.mark.usefixtures("root")
def test_a_history_of_nothing_says_what_to_run():
    found = command("gate", "history")
    assert (4, True) == (found.exit_code, "nothing was released yet" in found.output)


@pytest.mark.usefixtures("root")
def test_a_gate_that_never_ran_says_what_to_run():
    found = command("gate", "check")
    assert found.exit_code == 4
    assert "dvc repro" in found.output
    assert "Traceback" not in found.output


@pytest.mark.usefixtures("root")
def test_explain_works_before_anything_ran():
    assert command("explain").exit_code == 0


@pytest.mark.usefixtures("root")
def test_a_server_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow.example:5000")
    found = command("ui")
    assert found.exit_code == 0
    assert "mlflow.example:5000" in found.output
    assert "secret" not in found.output


def leaves(*words, cwd=None):
    """Exit code, standard output and standard error of the installed command in a process of its own."""
    done = subprocess.run([METAGDPO, *words], capture_output=True, text=True, cwd=cwd, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Tables of 500 items of which the base has 400 right: by name, what the candidate has right."""
    folder = tmp_path_factory.mktemp("pairs")
    for name, right in {"equal": 400, "lost": 200, "unclear": 384}.items():
        rows = [f"arithmetic,{i},{int(i < 400)},{int(i < right)}" for i in range(500)]
        (folder / f"{name}.csv").write_text("\n".join(["suite,item,base,candidate", *rows, ""]))
    (folder / "nan.csv").write_text("suite,item,base,candidate\narithmetic,0,1,nan\n")
    (folder / "other.csv").write_text("suite,item,score\narithmetic,0,1\n")
    (folder / "another.csv").write_text("suite,item,score\narithmetic,1,1\n")
    return folder


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["equal.csv"], 0, "PROMOTE"),
        (["lost.csv"], 1, "BLOCK"),
        (["unclear.csv"], 2, "INCONCLUSIVE"),
        (["equal.csv", "--margin", "5"], 3, "Invalid value for '--margin'"),
        (["equal.csv", "--policy", "gone.yaml"], 3, "ConfigError: gone.yaml does not exist"),
        (["gone.csv"], 4, "DataError: gone.csv cannot be read"),
        (["equal.csv", "--json", "."], 6, "StoreError: cannot replace ."),
        (["nan.csv"], 7, "EvidenceError: suite arithmetic, item 0: column candidate is 'nan'"),
        (["other.csv", "another.csv"], 7, "0 (only base), 1 (only candidate)"),
    ],
)
def test_gate_compare_leaves_with_the_code_of_its_answer(pairs, words, code, says):
    left, out, err = leaves("gate", "compare", *words, cwd=pairs)
    assert (code, True, False) == (left, says in out + err, "Traceback" in err)


@pytest.mark.parametrize("words", [["gate", "compare"], ["gate", "nonsense"], ["--nonsense"], ["use", "a", "b"], []])
def test_a_wrong_command_line_never_looks_like_a_verdict(words):
    """click's own code is 2, which is INCONCLUSIVE."""
    left, _, err = leaves(*words)
    assert (3, True) == (left, "Usage:" in err)


def test_an_unexpected_exception_never_looks_like_a_verdict(monkeypatch):
    """Python's own code is 1, which is BLOCK; the traceback stays."""
    monkeypatch.setattr("metagdpo.configuration.check", lambda _: 1 / 0)
    found = command("check")
    assert (70, True) == (found.exit_code, "ZeroDivisionError" in found.output)


@pytest.mark.parametrize("words", [["--help"], ["use"]])
def test_a_reader_that_left_never_looks_like_a_verdict(words):
    """click's own code for a broken pipe is 1."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([METAGDPO, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.close()
    _, err = process.communicate()
    assert (70, b"") == (process.returncode, err)


def test_only_verdicts_have_the_codes_of_verdicts():
    """Every error of the tree has a code, and 0, 1 and 2 belong to the verdict alone."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MetagdpoError)
    ]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert {"Blocked": 1, "Inconclusive": 2} == {name: code for name, code in codes.items() if code < 3}


def test_json_and_markdown_hold_the_answer(pairs, tmp_path):
    out, page = tmp_path / "a.json", tmp_path / "a.md"
    assert 1 == leaves("gate", "compare", "lost.csv", "--json", str(out), "--markdown", str(page), cwd=pairs)[0]
    assert "BLOCK" == json.loads(out.read_text())["decision"]
    assert page.read_text().startswith("## 🔴 Forgetting gate: BLOCK")


def test_an_older_answer_does_not_outlive_a_refusal(pairs, tmp_path):
    """Whoever posts the report must not post that of another candidate."""
    page = tmp_path / "a.md"
    page.write_text("PROMOTE")
    assert 7 == leaves("gate", "compare", "nan.csv", "--markdown", str(page), cwd=pairs)[0]
    assert not page.exists()


def test_options_on_the_command_line_go_before_the_policy(pairs, tmp_path):
    (tmp_path / "gate.yaml").write_text("alpha: 0.05\npower: 0.8\ndefault_margin: 0.04\nmin_items: 1\n")
    words = ["gate", "compare", str(pairs / "lost.csv"), "--policy", str(tmp_path / "gate.yaml"), "--margin", "0.6"]
    found = command(*words)
    assert (0, True) == (
        found.exit_code,
        "gate.yaml and command line: alpha 0.05, power 0.8, margin 0.6" in found.output,
    )


def test_suites_are_pooled_and_left_out_by_pattern(tmp_path):
    rows = [f"mmlu_{k},{i},1,1" for k in "ab" for i in range(100)] + ["wiki,0,1,0"]
    (tmp_path / "p.csv").write_text("\n".join(["suite,item,base,candidate", *rows]))
    found = command("gate", "compare", str(tmp_path / "p.csv"), "--pool", "mmlu=mmlu_*", "--skip", "wiki")
    assert (0, True, True) == (
        found.exit_code,
        "mmlu   required  base     200" in found.output,
        "LEFT OUT wiki" in found.output,
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--pool", "mmlu"], "write NAME=PATTERN"),
        (["--pool", "mmlu=x_*"], "fits no suite"),
        (["--chance", "s=2"], "write a share"),
        (["--chance", "much"], "write a share"),
    ],
)
def test_a_choice_of_another_form_is_refused(pairs, words, problem):
    found = command("gate", "compare", str(pairs / "equal.csv"), *words)
    assert (3, True) == (found.exit_code, problem in found.output)
