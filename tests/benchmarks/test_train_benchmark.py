"""benchmarks/train.py end to end on the tiny model: both sides run, agree, and leave what the tables are made of."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POINT = ["--points", "12,8,4", "--repeats", "1", "--threads", "1", "--sides", "streamed", "trl_cached"]


@pytest.fixture(scope="module")
def measured(tiny_model_dir, tmp_path_factory):
    """Output and results file of one run, with responses of different lengths."""
    pytest.importorskip("trl")
    file = tmp_path_factory.mktemp("benchmark") / "train.json"
    command = [
        sys.executable,
        "benchmarks/train.py",
        "--model",
        str(tiny_model_dir),
        "--ragged",
        "--results",
        str(file),
    ]
    done = subprocess.run([*command, *POINT], cwd=ROOT, capture_output=True, text=True, check=False)
    again = subprocess.run([*command, *POINT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, 0) == (done.returncode, again.returncode), done.stdout + done.stderr + again.stderr
    return {"first": done.stdout, "again": again.stdout, "runs": json.loads(file.read_text())["runs"]}


def by_side(measured):
    return {run["side"]: run for run in measured["runs"]}


def test_both_sides_compute_the_same_loss(measured):
    sides = by_side(measured)
    assert sides["streamed"]["loss"] == pytest.approx(sides["trl_cached"]["loss"], rel=1e-5)


def test_both_sides_compute_the_same_gradient(measured):
    sides = by_side(measured)
    largest = max(map(abs, sides["trl_cached"]["gradient"]))
    assert sides["streamed"]["gradient"] == pytest.approx(sides["trl_cached"]["gradient"], abs=1e-4 * largest)


def test_a_streamed_side_was_streamed(measured):
    assert "streamed" == by_side(measured)["streamed"]["way"]


def test_every_run_holds_what_the_tables_need(measured):
    needed = {"side", "setting", "repeat", "loss", "gradient", "wall_s", "cpu_s", "peak_gb", "loaded_gb", "once_s"}
    needed |= {"flops", "useful_tokens", "matmul", "load_average"}
    assert [] == [name for run in measured["runs"] for name in needed if name not in run]


def test_useful_tokens_are_the_prompt_once_and_every_response(measured):
    """12 for the prompt, and 4 responses of 4 to 8 tokens; the same on both sides."""
    ours, theirs = (by_side(measured)[side]["useful_tokens"] for side in ("streamed", "trl_cached"))
    assert ours == theirs
    assert 12 + 4 * 4 <= ours <= 12 + 4 * 8


def test_tables_show_every_target(measured):
    assert measured["first"].count("reached") >= 3  # speed, memory, arithmetic


def test_a_finished_measurement_is_not_repeated(measured):
    assert "2 measurements, 2 of them known" in measured["again"]
