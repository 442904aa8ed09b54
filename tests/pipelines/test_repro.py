"""The real `dvc repro`, from questions to a registered version, and everything that may come between."""

import json
import re
import shutil

import pytest
import toy

from metagdpo.release import ledger

N_STEPS = 48  # 24 groups, 2 a step, 4 epochs


@pytest.fixture(scope="module")
def promoted(fresh_project, tmp_path_factory):
    """A project whose run ended with PROMOTE, for tests to copy, and the output of the run."""
    root = tmp_path_factory.mktemp("promoted") / "project"
    shutil.copytree(fresh_project, root)
    output = toy.run(root, "dvc", "repro")
    return root, output


@pytest.fixture
def project(promoted, tmp_path):
    """A copy of the promoted project to do with as a test likes."""
    root = tmp_path / "project"
    shutil.copytree(promoted[0], root, symlinks=True)
    return root


def verdict(root):
    return json.loads((root / "reports/verdict.json").read_text())


def versions(root):
    from metagdpo.lineage.store import open_client

    client = open_client(f"sqlite:///{root / 'mlflow.db'}")
    found = client.search_model_versions("name = 'toy'")
    champion = client.get_registered_model("toy").aliases.get("champion")
    return sorted(int(version.version) for version in found), champion and int(champion)


def test_unchanged_skill_is_promoted_to_champion(promoted):
    """Raw questions end in version 1 with the alias champion, one ledger line and a report with pictures."""
    root, output = promoted
    assert "PROMOTE" == verdict(root)["decision"]
    assert ([1], 1) == versions(root)
    (entry,) = ledger.read(root / "registry/ledger.jsonl")
    assert ("registered", 1) == (entry.action, entry.version)
    assert (root / "reports/report.html").read_text().count("<svg") >= 3
    for stage in toy.executed(output):
        assert f"[{stage}] wrote" in output, f"{stage} does not say what it wrote"
        assert f"[{stage}] next:" in output, f"{stage} does not say what to look at next"


def test_explain_prints_the_chain(promoted):
    """`metagdpo explain` names every link with its count."""
    text = toy.run(promoted[0], "metagdpo", "explain")
    for word in (f"{toy.N_QUESTIONS} questions", "MetaKL", "groups", "candidate", "PROMOTE", "version 1"):
        assert word in text


def test_a_second_run_does_nothing_but_the_release_check(project):
    """Nothing is computed, registered or written again."""
    before = (project / "registry/ledger.jsonl").read_bytes()
    output = toy.run(project, "dvc", "repro")
    assert ["champion", "release"] == toy.executed(output)
    assert "[release] next:" in output
    assert before == (project / "registry/ledger.jsonl").read_bytes()
    assert ([1], 1) == versions(project)


def test_a_changed_training_parameter_can_be_refused(project):
    """A ruinous learning rate reruns what depends on the candidate; compared with the champion too, it is refused."""
    toy.set_params(project, "learning_rate: 1e-7", "learning_rate: 0.3")
    output = toy.run(project, "dvc", "repro", code=255)
    judged = ["champion", "evaluate_champion", "evaluate_candidate", "gate", "release"]
    assert ["train", "interpolate", *judged] == toy.executed(output)
    assert "BLOCK" == verdict(project)["decision"]
    assert {"base", "champion"} == {finding["against"] for finding in verdict(project)["findings"]}
    assert 1 == verdict(project)["champion"]["version"]
    assert ([1], 1) == versions(project), "a refusal must not touch the champion"
    assert "refused" == ledger.read(project / "registry/ledger.jsonl")[-1].action
    assert (project / "models/candidate/candidate.json").exists(), "evidence is kept"
    assert (project / "evaluations/candidate/scores.jsonl").exists()
    assert "lost" in (project / "reports/report.md").read_text()
    toy.run(project, "metagdpo", "gate", "check", code=1)
    toy.run(project, "python", "-m", "pipelines.release", code=1)
    assert 2 == len(ledger.read(project / "registry/ledger.jsonl")), "the same refusal is recorded once"
    toy.set_params(project, "learning_rate: 0.3", "learning_rate: 1e-7")
    back = toy.run(project, "dvc", "repro")
    assert ([1], 1) == versions(project), "going back finds the release that is there"
    assert "is cached" in back


def test_a_second_release_stands_up_to_the_first(project):
    """It is compared with base and champion, becomes the champion, and the matrix of all releases has three rows."""
    toy.set_params(project, "learning_rate: 1e-7", "learning_rate: 2e-7")
    toy.run(project, "dvc", "repro")
    found = verdict(project)
    assert {"base", "champion"} == {finding["against"] for finding in found["findings"]}
    assert ("PROMOTE", 1) == (found["decision"], found["champion"]["version"])
    assert ([1, 2], 2) == versions(project)
    scores = sorted(path.name for path in (project / "registry/scores").iterdir())
    assert ["toy-v0.json", "toy-v1.json", "toy-v2.json"] == scores
    history = toy.run(project, "metagdpo", "gate", "history", "--figure", "history.png")
    assert "average accuracy" in history.lower()
    assert (project / "history.svg").exists()
    assert ["champion", "release"] == toy.executed(toy.run(project, "dvc", "repro"))
    assert ([1, 2], 2) == versions(project)


def test_too_little_evidence_is_inconclusive(project):
    """A margin that the items cannot show: warned about before training, nothing released, nothing called lost."""
    toy.set_params(project, ", noise: {batch_size: 8}", "")
    toy.set_policy(project, margin=0.001)
    output = toy.run(project, "dvc", "repro", code=255)
    ran = toy.executed(output)
    assert {"train", "tag_suites"} & set(ran) == set()
    assert "An unchanged model passes a margin of 0.1 points" in output
    assert "INCONCLUSIVE" == verdict(project)["decision"]
    assert all(finding["items_needed"] for finding in verdict(project)["findings"])
    toy.run(project, "metagdpo", "gate", "check", code=2)
    toy.run(project, "python", "-m", "pipelines.release", code=2)
    assert ([1], 1) == versions(project)


def test_a_margin_below_the_noise_floor_stops_the_run_before_training(project):
    """The base, measured twice, could not pass it either."""
    toy.set_policy(project, margin=0.001)
    toy.set_params(project, "learning_rate: 1e-7", "learning_rate: 0.3")
    output = toy.run(project, "dvc", "repro", code=255)
    assert ["plan"] == [stage for stage in toy.executed(output) if stage != "ingest"], "ingest reads `overlap` there"
    assert "sets margins below the noise floor" in output
    assert "exited with 3" in output


def test_an_evaluation_may_stop_when_the_verdict_is_certain(project):
    """The policy allows it: fewer items, the same decision."""
    toy.set_policy(project, margin=0.05, sequential="{}")
    output = toy.run(project, "dvc", "repro")
    assert ["plan", "champion", "evaluate_candidate", "gate", "release"] == [
        stage for stage in toy.executed(output) if stage != "ingest"
    ]
    found = verdict(project)
    assert "PROMOTE" == found["decision"]
    assert all(finding["n_items"] < finding["n_planned"] == toy.N_ITEMS for finding in found["findings"])
    assert f"of {2 * toy.N_ITEMS}, the verdict is certain" in output


def test_a_candidate_that_was_trained_on_a_suite_is_refused(project):
    """Ingest would have dropped the question; the gate looks by itself, and nothing is released."""
    path = project / "data/suites/letters.jsonl"
    lines = path.read_text().splitlines()
    path.unlink()  # a link into DVC's cache
    path.write_text("\n".join([*lines, json.dumps({**json.loads(lines[0]), "id": "planted", "prompt": "1 + 3 ="})]))
    toy.run(project, "python", "-m", "pipelines.gate")
    assert ("BLOCK", {"letters": 1}) == (verdict(project)["decision"], verdict(project)["overlaps"]["suites"])
    text = toy.run(project, "python", "-m", "pipelines.release", code=1)
    assert "The training data repeats items of the suites: 1 text of letters" in text
    assert ([1], 1) == versions(project)


def test_kill_in_respond_pays_for_nothing_twice(project):
    """kill -9 while teachers answer; the rerun ends with the same responses and asks only for what is missing."""
    expected = (project / "data/responses.jsonl").read_bytes()
    journal = project / ".work/respond/completions.jsonl"
    journal.unlink()
    toy.kill_when(
        project,
        ["dvc", "repro", "-f", "-s", "respond"],
        lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 4,
    )
    paid = journal.read_bytes().count(b"\n")
    assert paid < 2 * toy.N_QUESTIONS
    # Forced: DVC's own cache would hand back the outputs of the run before, and nothing would be shown.
    toy.run(project, "dvc", "repro", "-f", "-s", "respond")
    assert expected == (project / "data/responses.jsonl").read_bytes()
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert len(keys) == len(set(keys)), "a completion was paid for twice"


def test_kill_in_train_ends_with_the_same_weights(project):
    """kill -9 between two checkpoints; the rerun goes on and ends with bit-identical weights."""
    expected = (project / "models/trained/model.safetensors").read_bytes()
    (work,) = (project / ".work/train").iterdir()
    shutil.rmtree(work)
    steps = work / "metrics.jsonl"
    toy.kill_when(
        project,
        ["dvc", "repro", "-f", "-s", "train"],
        lambda: (work / "checkpoints").exists() and steps.read_bytes().count(b"\n") >= 5,
    )
    output = toy.run(project, "dvc", "repro", "-f", "-s", "train")
    left = int(re.search(r"train:\s+0%.*?\| 0/(\d+)", output)[1])
    assert 0 < left < N_STEPS, "it went on from a checkpoint"
    assert expected == (project / "models/trained/model.safetensors").read_bytes()
    assert ["champion", "release"] == toy.executed(toy.run(project, "dvc", "repro"))
    assert ([1], 1) == versions(project)


@pytest.mark.parametrize("moment", ["before_version", "after_version"])
def test_kill_in_release_leaves_one_version_and_one_line(project, moment):
    """kill -9 in the release; the rerun ends as if nothing had happened."""
    ledger_path = project / "registry/ledger.jsonl"
    expected = ledger.read(ledger_path)[0]
    ledger_path.unlink()
    for state in ("mlflow.db", "mlflow.db-wal", "mlflow.db-shm"):
        (project / state).unlink(missing_ok=True)
    shutil.rmtree(project / "mlartifacts")

    def ready():
        if moment == "before_version":
            return (project / "mlartifacts").exists()
        return (project / ".work/release.lock").exists() and any((project / "mlartifacts").rglob("candidate.json"))

    (project / ".work/release.lock").unlink(missing_ok=True)
    toy.kill_when(project, ["dvc", "repro"], ready)
    toy.run(project, "dvc", "repro")
    (entry,) = ledger.read(ledger_path)
    assert (expected.verdict, expected.candidate, 1) == (entry.verdict, entry.candidate, entry.version)
    assert ([1], 1) == versions(project)


def test_unreachable_store_stops_before_training_is_paid(project, monkeypatch):
    """The store is asked before the first step; nothing is trained, and the message says how to go on."""
    shutil.rmtree(project / ".work/train")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    output = toy.run(project, "python", "-m", "pipelines.train", code=6)
    assert "StoreError" in output
    assert "MLFLOW_TRACKING_URI" in output
    assert "Traceback" not in output
    assert not (project / ".work/train").exists()


def test_a_deleted_store_is_written_again_from_files(project):
    """MLflow's state is gone, the files are there: `dvc repro` restores the run, the version and the alias."""
    for state in project.glob("mlflow.db*"):
        state.unlink()
    shutil.rmtree(project / "mlartifacts")
    assert ["champion", "release"] == toy.executed(toy.run(project, "dvc", "repro"))
    assert ([1], 1) == versions(project)
    assert 1 == len(ledger.read(project / "registry/ledger.jsonl"))
