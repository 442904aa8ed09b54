"""What the installed lm-eval writes today: a real run on a tiny model. About 15 s of CPU, most of it imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_tiny_model

from metagdpo.exchange import lm_eval_samples
from metagdpo.exchange.compare import DEFAULTS, compare
from metagdpo.exchange.lm_eval_samples import read_lm_eval
from metagdpo.exchange.score_set import Reading

TASK = """\
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: capitals.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{options}}"
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1.0}
"""
READ_ELSEWHERE = {
    "results", "group_subtasks", "higher_is_better", "n-samples", "pretty_env_info",
    "chat_template",  # its digest is compared
    "task_hashes",  # made of the items' hashes, which are compared one by one
    "total_evaluation_time_seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The output folder of one run."""
    folder = tmp_path_factory.mktemp("live")
    make_tiny_model(folder / "model")
    (folder / "capitals.yaml").write_text(TASK)
    docs = [
        {"question": f"Where is {i}?", "options": ["here", "there", "nowhere at all"], "gold": i % 3} for i in range(12)
    ]
    (folder / "capitals.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    words = "--model hf --model_args pretrained=model --tasks capitals --include_path . --log_samples --output_path out"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lm_eval")), *words.split(), "--device", "cpu", "--batch_size", "4"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr[-3000:]
    return folder / "out"


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_the_mean_over_items_is_the_accuracy_that_lm_eval_reports(run, metric):
    found = read_lm_eval(run, Reading(metrics={"*": metric}))
    scores = [scored.score for scored in found.suites["capitals"].values()]
    results = json.loads(next(run.rglob("results_*.json")).read_text())["results"]
    assert (12, results["capitals"][f"{metric},none"]) == (len(scores), pytest.approx(sum(scores) / len(scores)))


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_every_answer_is_told_and_fits_its_score(run, metric):
    """The option that the reader names is right exactly where lm-eval says so."""
    found = read_lm_eval(run, Reading(metrics={"*": metric})).suites["capitals"]
    options = ["here", "there", "nowhere at all"]
    assert {i: scored.score for i, scored in found.items()} == {
        i: float(scored.answer == options[int(i) % 3]) for i, scored in found.items()
    }


def test_no_field_that_lm_eval_states_is_overlooked(run):
    """A new version that states more has to be looked at: is it compared, or does it decide nothing?"""
    stated = set(json.loads(next(run.rglob("results_*.json")).read_text()))
    assert set() == stated - set(lm_eval_samples._COMPARED) - set(lm_eval_samples._NOTES) - READ_ELSEWHERE


def test_a_run_against_itself_is_compared(run):
    base = read_lm_eval(run, Reading())
    answer = compare(base, base, None, DEFAULTS)
    assert ((), (), 0.0) == (answer.flips, answer.accepted, answer.findings[0].difference)
    assert pytest.approx(1 / 3) == answer.findings[0].chance
