"""What a stage says, and how it ends."""

import subprocess
import sys
import time

import pytest

from metagdpo.errors import Blocked
from metagdpo.progress import bar, done, run_stage


def test_a_stage_says_what_it_wrote_and_what_comes_next(capsys):
    done("probe", "3 answers to data/probe.jsonl", "measure_proficiency scores them")
    assert capsys.readouterr().out.splitlines() == [
        "[probe] wrote 3 answers to data/probe.jsonl",
        "[probe] next: measure_proficiency scores them",
    ]


def test_a_bar_shows_count_rate_and_unit(capsys):
    assert list(bar(range(3), total=3, what="train", unit="step")) == [0, 1, 2]
    shown = capsys.readouterr().err
    assert "train: 100%" in shown
    assert "step/s" in shown


def test_an_expected_error_is_one_message_and_its_exit_code(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refuse():
        raise Blocked("the verdict is BLOCK")

    with pytest.raises(SystemExit) as left:
        run_stage("release", refuse)
    assert left.value.code == Blocked.exit_code == 1
    assert capsys.readouterr().out == "[release] Blocked: the verdict is BLOCK\n"


def test_an_unexpected_error_shows_its_traceback_and_never_looks_like_a_verdict(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        run_stage("gate", lambda: {}["nowhere"])
    assert left.value.code == 70
    assert "KeyError: 'nowhere'" in capsys.readouterr().err


def test_a_stage_waits_for_itself_in_another_process(tmp_path):
    """Two of one stage never work side by side; the second says that it waits."""
    code = "import sys, time; from metagdpo.progress import run_stage; run_stage('s', lambda: time.sleep(1.5))"
    first = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    while not (tmp_path / ".work/s.running").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    second = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert first.wait() == 0
    assert "[s] waiting" in second.stdout
