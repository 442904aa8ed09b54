"""The command line: help, errors without traceback, exit codes."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from metagdpo.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The committed configuration, in a folder of its own."""
    shutil.copytree(ROOT / "registry", tmp_path / "registry")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "registry/ledger.jsonl").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*words):
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("words", [[], ["check"], ["use"], ["explain"], ["gate"], ["gate", "check"], ["ui"]])
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
    assert found.exit_code == 2
    for words in ("reward.format", "piqa.yaml", "n_items", "policy.yaml", "alpha"):
        assert words in found.output


@pytest.mark.usefixtures("root")
def test_a_gate_that_never_ran_says_what_to_run():
    found = command("gate", "check")
    assert found.exit_code == 3
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
