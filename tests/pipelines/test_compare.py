"""The real `metagdpo compare` in a real git + DVC repository: what runs, what is made again, and what survives."""

import json
import shutil

import pytest
import toy
from closure import ROOT

from metagdpo.records.comparison import Comparison, RunResult
from metagdpo.schema import read_jsonl, read_record

COMPARISON = """# what is compared
compare: [sft, sft-cfs]
seeds: [1, 2]
shared:
  train: {objective: {kind: sft}, anchors: [], learning_rate: 1e-6, max_tokens: 3000, checkpoint_every: 1}
  evaluate: {max_items: 100}  # of each suite
methods:
  sft: {label: SFT}
  sft-cfs:
    label: SFT + CFS
    changes: {train: {anchors: [{kind: context_free, weight: 1.0, per_step: 2}]}}
  sft-half: {label: SFT half, changes: {interpolate: {alphas: [0.5]}}}
  sft-poor: {label: SFT without budget, changes: {train: {max_tokens: 1}}}
"""
RUNS = ["sft-1", "sft-2", "sft-cfs-1", "sft-cfs-2"]
MAIN_ONLY = {"train", "interpolate", "champion", "evaluate_candidate", "gate", "release", "plan", "evaluate_base"}


@pytest.fixture(scope="module")
def compared(fresh_project, tmp_path_factory):
    """A project whose comparison has run, and what the command printed."""
    root = tmp_path_factory.mktemp("compared") / "project"
    shutil.copytree(fresh_project, root)
    prepare(root)
    output = compare(root)
    return root, output


@pytest.fixture
def project(compared, tmp_path):
    """A copy to do with as a test likes."""
    root = tmp_path / "project"
    shutil.copytree(compared[0], root, symlinks=True)
    return root


def prepare(root):
    """Add the comparison to the toy project."""
    for name in ("comparison/dvc.yaml", "comparison/inputs/dvc.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "comparison.yaml").write_text(COMPARISON)


def compare(root, *words, code=0):
    return toy.run(root, "metagdpo", "compare", *words, code=code)


def change(root, old, new):
    text = (root / "comparison.yaml").read_text()
    assert old in text
    (root / "comparison.yaml").write_text(text.replace(old, new))


def ran(output):
    """Stages of the comparison that were carried out."""
    own = "comparison/dvc.yaml:"
    return [stage.removeprefix(own) for stage in toy.executed(output) if stage.startswith(own)]


def table(root):
    return read_record(root / "comparison/results/comparison.json", Comparison)


def results(root):
    return {(row.method, row.seed): row for row in read_jsonl(root / "comparison/results/runs.jsonl", RunResult)}


def test_every_method_is_trained_and_gated_with_every_seed(compared):
    root, output = compared
    assert [("sft", 1), ("sft", 2), ("sft-cfs", 1), ("sft-cfs", 2)] == list(results(root))
    assert () == table(root).missing
    assert {100} == {finding.n_items for row in results(root).values() for finding in row.findings}
    assert {"base"} == {finding.against for row in results(root).values() for finding in row.findings}
    assert "2 methods x 2 seeds = 4 runs: 0 done, 4 to do" in output
    assert "time left: unknown" in output
    assert "SFT + CFS" in output
    assert "comparison/results/index.html" in output
    assert (root / "comparison/results/index.html").is_file()


def test_seeds_differ_and_the_budget_holds(compared):
    found = results(compared[0])
    assert 4 == len({row.run_key for row in found.values()})
    assert all(0 < row.cost.n_tokens <= 3000 for row in found.values())


def test_the_main_job_is_left_alone(compared):
    """Data stages of the main job come first; nothing else of it runs, and nothing is released."""
    root, output = compared
    main = {stage for stage in toy.executed(output) if ":" not in stage}
    assert {"select_metakl", "preserve", "reference"} <= main
    assert set() == main & MAIN_ONLY
    assert not (root / "models").exists()
    assert not (root / "registry/ledger.jsonl").exists()


def test_mlflow_has_the_runs_in_an_experiment_of_their_own(compared):
    from metagdpo.lineage.store import open_client

    client = open_client(f"sqlite:///{compared[0] / 'mlflow.db'}")
    assert client.get_experiment_by_name("toy") is None
    experiment = client.get_experiment_by_name("toy-comparison")
    names = {run.info.run_name.split()[0] for run in client.search_runs([experiment.experiment_id])}
    assert set(RUNS) == names


def test_a_second_time_nothing_runs_and_the_table_is_shown(project):
    before = (project / "comparison/results/comparison.json").read_bytes()
    output = compare(project)
    assert [] == toy.executed(output)
    assert "4 done, 0 to do" in output
    assert "SFT + CFS" in output
    assert before == (project / "comparison/results/comparison.json").read_bytes()
    assert "SFT + CFS" in compare(project, "--show")


def test_a_changed_method_is_made_again_and_no_other(project):
    change(project, "weight: 1.0", "weight: 0.5")
    assert "2 done, 2 to do" in compare(project, "--plan")
    output = compare(project)
    expected = {f"{stage}@sft-cfs-{seed}" for stage in ("train", "interpolate", "evaluate") for seed in (1, 2)}
    assert {"table"} | expected == set(ran(output))


def test_other_items_for_all_are_measured_without_another_training(project):
    change(project, "max_items: 100", "max_items: 120")
    output = compare(project)
    assert not [stage for stage in ran(output) if stage.startswith("train@")]
    assert {120} == {finding.n_items for row in results(project).values() for finding in row.findings}


def test_methods_that_differ_after_training_share_it(project):
    """Wise-FT of a training that is there: same run key, no second training, another candidate."""
    before = sorted(path.name for path in (project / ".work/train").iterdir())
    output = compare(project, "--methods", "sft,sft-half", "--seeds", "1")
    assert {"train@sft-half-1", "evaluate@sft-half-1"} <= set(ran(output))
    assert before == sorted(path.name for path in (project / ".work/train").iterdir())
    found = results(project)
    assert [("sft", 1), ("sft-half", 1)] == list(found)
    assert found["sft", 1].run_key == found["sft-half", 1].run_key
    assert (1.0, 0.5) == (found["sft", 1].alpha, found["sft-half", 1].alpha)
    text = (project / "comparison.yaml").read_text()
    assert "compare: [sft, sft-half]\nseeds: [1]\n" in text
    assert "# what is compared" in text
    assert "# of each suite" in text


def test_a_run_that_fails_does_not_cost_the_table_of_the_others(project):
    """Named in the table and on the screen; the command leaves with 7, and goes on once the method is repaired."""
    change(project, "compare: [sft, sft-cfs]", "compare: [sft-poor, sft]")
    output = compare(project, code=7)
    assert "train.max_tokens = 1 does not suffice for one step" in output
    assert "2 of 4 runs have no result" in output
    assert "Traceback" not in output
    assert {("sft-poor", 1), ("sft-poor", 2)} == {(row.method, row.seed) for row in table(project).missing}
    assert [("sft", 1), ("sft", 2)] == list(results(project))
    change(project, "max_tokens: 1}", "max_tokens: 3000}")
    compare(project)
    assert () == table(project).missing


def test_files_of_an_earlier_version_are_not_taken_for_a_result(project):
    """DVC leaves the evaluation of before where a training fails: the table must not show it as the new method's."""
    change(project, "per_step: 2", "per_step: 2000")
    compare(project, code=7)
    assert {"sft-cfs"} == {row.method for row in table(project).missing}
    assert (project / "comparison/runs/sft-cfs-1/evaluation/scores.jsonl").exists()


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(project):
    """kill -9 of `metagdpo compare` in the middle of a training; the same command ends as if nothing had happened."""
    weights = project / "comparison/runs/sft-cfs-2/trained/model.safetensors"
    expected = weights.read_bytes()
    shutil.rmtree(project / ".work/train")
    shutil.rmtree(project / ".dvc/cache/runs")
    shutil.rmtree(project / "comparison/runs")
    shutil.rmtree(project / "comparison/results")
    (project / "comparison/dvc.lock").unlink()
    work = project / ".work/train"
    toy.kill_when(
        project,
        ["metagdpo", "compare"],
        lambda: any(path.read_bytes().count(b"\n") >= 2 for path in work.glob("*/metrics.jsonl")),
        seconds=240,
    )
    (begun,) = work.iterdir()
    kept = [json.loads(line)["step"] for line in (begun / "metrics.jsonl").read_text().splitlines()]
    output = compare(project)
    assert f"train@{RUNS[0]}" in ran(output)
    after = [json.loads(line)["step"] for line in (begun / "metrics.jsonl").read_text().splitlines()]
    assert 1 <= max(kept) < max(after)
    assert list(range(len(after))) == after
    assert expected == weights.read_bytes()
    assert () == table(project).missing


def test_what_is_wrong_is_said_before_anything_is_paid_for(project):
    change(project, "max_tokens: 3000", "max_tokens: -3")
    output = compare(project, code=3)
    assert "train.max_tokens" in output
    assert "method sft" in output
    assert [] == toy.executed(output)
    text = compare(project, "--methods", "stf", code=3)
    assert "did you mean sft?" in text
