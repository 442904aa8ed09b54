"""The release on a real SQLite store: idempotent, repaired after a crash anywhere, closed to what is not proven."""

import dataclasses
import re
import shutil

import filelock
import pytest
from releases import PROVENANCE, fresh_client, project

from metagdpo.errors import Blocked, EvidenceError, Inconclusive, ModelError, StoreError
from metagdpo.lineage.store import open_client
from metagdpo.release import ledger
from metagdpo.schema import digest_file, digest_record, digest_text

WRITES = (
    "create_registered_model",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_model_version",
    "delete_model_version",
    "log_batch",
    "log_outputs",
    "set_registered_model_alias",
    "set_model_version_tag",
    "update_model_version",
)


class Killed(BaseException):
    """Stands for kill -9: nothing in the code may catch it."""


class DyingClient:
    """An MlflowClient whose process dies right after its n-th write."""

    def __init__(self, client, lives, writes=WRITES):
        self._client = client
        self._writes = writes
        self.lives = lives

    def __getattr__(self, name):  # noqa: D105  (explained by its class)
        real = getattr(self._client, name)
        if name not in self._writes:
            return real

        def write(*args, **kwargs):
            result = real(*args, **kwargs)
            self.lives -= 1
            if self.lives == 0:
                raise Killed(name)
            return result

        return write


def state(case):
    """Everything a person can see of the registry and the ledger, without times and random ids."""
    versions = [
        (v.version, {k: t for k, t in v.tags.items() if k != "metagdpo.run_id"}, v.description, sorted(v.aliases))
        for v in case.client.search_model_versions("name = 'unit'")
    ]
    return versions, case.ledger.read_text()


def test_a_promoted_candidate_becomes_the_champion_with_its_whole_lineage_in_tags(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    outcome = case.release()
    version = case.client.get_model_version_by_alias("unit", "champion")
    assert (outcome.action, outcome.version, outcome.champion, outcome.previous) == ("registered", 1, 1, None)
    assert version.tags["git.commit"] == PROVENANCE.git_commit
    assert version.tags["dvc.lock"] == PROVENANCE.dvc_lock
    assert version.tags["data.groups.jsonl"] == case.candidate.data["data/groups.jsonl"]
    assert version.tags["base.weights"] == case.candidate.base.weights
    assert version.tags["metagdpo.verdict"] == digest_record(case.verdict)
    assert version.tags["metagdpo.run_id"] == version.run_id
    assert version.run_id == case.sync()
    assert "school science (arc_easy, required) | base | 500 | 50.0% | 51.0% | +1.0 [-1.0, +3.0]" in version.description


def test_the_stored_files_are_the_candidates_files(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    case.release()
    source = case.client.get_model_version("unit", "1").source.removeprefix("models:/")
    stored = {entry.path for entry in case.client.list_logged_model_artifacts(source)}
    assert stored == {"adapter_config.json", "adapter_model.safetensors", "candidate.json"}


def test_the_run_names_its_model_and_the_model_its_gate_metrics(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    case.release()
    run = case.client.get_run(case.sync())
    (output,) = run.outputs.model_outputs
    found = {metric.key for metric in case.client.get_logged_model(output.model_id).metrics}
    assert "gate/arc_easy/difference" in found
    assert len(case.client.get_metric_history(run.info.run_id, "gate/arc_easy/low")) == 1


def test_an_identical_rerun_adds_nothing_even_at_a_later_commit(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    case.release()
    before = state(case)
    later = PROVENANCE.model_copy(update={"git_commit": "d" * 40})
    outcome = case.release(provenance=later, recorded_at="2027-01-01T00:00:00+00:00")
    assert outcome.action == "unchanged"
    assert outcome.text == "unit is already released as version 1; nothing new; it is the champion."
    assert state(case) == before


def test_the_former_champion_becomes_previous(tmp_path):
    client = fresh_client(tmp_path)
    project(tmp_path, client, seed=1).release()
    outcome = project(tmp_path, client, seed=2).release()
    assert (outcome.version, outcome.champion, outcome.previous) == (2, 2, 1)


def test_two_alphas_of_one_training_are_two_versions_with_runs_and_gate_metrics_of_their_own(tmp_path):
    client = fresh_client(tmp_path)
    project(tmp_path, client).release()
    half = project(tmp_path, client, alpha=0.5)
    findings = (half.verdict.findings[0].model_copy(update={"low": 0.005}),)
    half = dataclasses.replace(half, verdict=half.verdict.model_copy(update={"findings": findings}))
    outcome = half.release()
    assert (outcome.action, outcome.version, outcome.previous) == ("registered", 2, 1)
    assert half.release().action == "unchanged"
    versions = {v.version: v for v in client.search_model_versions("name = 'unit'")}
    low = [client.get_run(versions[n].run_id).data.metrics["gate/arc_easy/low"] for n in (1, 2)]
    assert low == [-0.01, 0.005]
    assert [versions[n].tags.get("metagdpo.alpha") for n in (1, 2)] == [None, "0.5"]
    assert versions[1].tags["metagdpo.run_key"] == versions[2].tags["metagdpo.run_key"]


def test_rerunning_an_older_verdict_does_not_move_the_champion_back(tmp_path):
    client = fresh_client(tmp_path)
    project(tmp_path, client, seed=1).release()
    project(tmp_path, client, seed=2).release()
    outcome = project(tmp_path, client, seed=1).release()
    assert (outcome.action, outcome.version, outcome.champion) == ("unchanged", 1, 2)
    assert outcome.text.endswith("The champion is version 2, released later.")


@pytest.mark.parametrize(("decision", "error", "code"), [("BLOCK", Blocked, 1), ("INCONCLUSIVE", Inconclusive, 2)])
def test_a_refusal_is_recorded_once_and_never_alters_the_champion(tmp_path, decision, error, code):
    client = fresh_client(tmp_path)
    project(tmp_path, client, seed=1).release()
    refused = project(tmp_path, client, seed=2, decision=decision)
    for _ in range(2):
        with pytest.raises(
            error, match=r"school science \(arc_easy, against the base\)(.|\n)*Evidence: reports/report.html"
        ) as caught:
            refused.release()
    entries = ledger.read(refused.ledger)
    assert caught.value.exit_code == code
    assert [(entry.action, entry.version) for entry in entries] == [("registered", 1), ("refused", None)]
    assert client.get_model_version_by_alias("unit", "champion").version == 1
    assert len(client.search_model_versions("name = 'unit'")) == 1


def test_a_release_killed_after_any_of_its_writes_is_repeated_to_the_same_end(tmp_path):
    """Second release of a store, so that the alias `previous` is among the writes."""
    expected = None
    project(tmp_path / "first", fresh_client(tmp_path / "first"), seed=1).release()
    for death in range(20):
        root = tmp_path / str(death)
        shutil.copytree(tmp_path / "first", root)
        client = open_client(f"sqlite:///{root / 'mlflow.db'}")
        case = project(root, client, seed=2)
        dying = DyingClient(client, lives=death)
        if death > 0:
            run_id = case.sync()
            try:
                case.release(dying, run_id=run_id)
            except Killed:
                assert len(ledger.read(case.ledger)) in {1, 2}
            else:
                break
        case.release()
        expected = expected or state(case)
        assert state(case) == expected
    assert death > 7


def test_a_release_killed_around_its_ledger_entry_is_repeated_to_the_same_end(tmp_path, monkeypatch):
    real = ledger.append
    outcomes = []
    for when in ("before", "after", "never"):
        case = project(tmp_path / when, fresh_client(tmp_path / when))

        def append(path, make, when=when):
            if when == "before":
                raise Killed
            entry = real(path, make)
            if when == "after":
                raise Killed
            return entry

        monkeypatch.setattr(ledger, "append", append)
        if when != "never":
            with pytest.raises(Killed):
                case.release()
        monkeypatch.setattr(ledger, "append", real)
        case.release()
        outcomes.append(state(case))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_deleted_store_gets_the_version_back_under_its_old_number(tmp_path):
    client = fresh_client(tmp_path / "old")
    project(tmp_path, client, seed=1).release()
    case = project(tmp_path, client, seed=2)
    case.release()
    tags, text = client.get_model_version("unit", "2").tags, case.ledger.read_text()
    case = project(tmp_path, fresh_client(tmp_path / "new"), seed=2)
    outcome = case.release()
    restored = case.client.get_model_version_by_alias("unit", "champion")
    assert (outcome.action, outcome.version) == ("restored", 2)
    assert {**restored.tags, "metagdpo.run_id": ""} == {**tags, "metagdpo.run_id": ""}
    assert [v.version for v in case.client.search_model_versions("name = 'unit'")] == [restored.version]
    assert case.ledger.read_text() == text
    assert case.release().action == "unchanged"


def test_a_new_release_into_an_emptied_store_never_reuses_a_number_of_the_ledger(tmp_path):
    project(tmp_path, fresh_client(tmp_path / "old"), seed=1).release()
    outcome = project(tmp_path, fresh_client(tmp_path / "new"), seed=2).release()
    assert (outcome.version, outcome.champion, outcome.previous) == (2, 2, None)


@pytest.mark.parametrize("lives", [1, 2, 3])
def test_a_release_killed_while_it_uses_up_low_numbers_is_repeated_to_the_same_end(tmp_path, lives):
    """Writes in an emptied store: version 1 made, version 1 deleted, version 2 made."""
    project(tmp_path, fresh_client(tmp_path / "old"), seed=1).release()
    case = project(tmp_path, fresh_client(tmp_path / "new"), seed=2)
    dying = DyingClient(case.client, lives, writes=("create_model_version", "delete_model_version"))
    with pytest.raises(Killed):
        case.release(dying)
    outcome = case.release()
    assert (outcome.version, outcome.champion) == (2, 2)
    assert [version.version for version in case.client.search_model_versions("name = 'unit'")] == [2]


def test_deleted_artifacts_are_stored_again(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    case.release()
    shutil.rmtree(tmp_path / "mlartifacts")
    assert case.release().action == "restored"
    assert case.release().action == "unchanged"


def test_a_tampered_candidate_file_is_named_and_nothing_is_released(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    weights = tmp_path / "models/candidate/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(EvidenceError, match=r"adapter_model.safetensors was changed after training"):
        case.release()
    assert not case.ledger.exists()


def test_every_digest_that_does_not_hold_is_named_at_once(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    (tmp_path / "models/candidate/extra.json").write_text("{}")
    (tmp_path / "models/candidate/adapter_config.json").unlink()
    (tmp_path / "evaluations/base/scores.jsonl").write_text("better scores\n")
    (tmp_path / "evaluations/candidate/scores.jsonl").unlink()
    altered = case.candidate.identity.model_copy(update={"adapter": digest_text("other")})
    with pytest.raises(EvidenceError) as caught:
        case.release(identity=altered, policy=digest_text("laxer"))
    for line in (
        r"the weights in the directory is not that of .*candidate.json \(adapter: sha256:",
        r"adapter_config.json is missing",
        r"extra.json is not in the manifest",
        r"evidence evaluations/base/scores.jsonl was changed after the gate",
        r"evidence evaluations/candidate/scores.jsonl is missing",
        r"registry/policy.yaml is sha256:.*, but the verdict was reached under",
    ):
        assert re.search(line, str(caught.value)), line


def test_a_verdict_on_another_candidate_is_refused(tmp_path):
    client = fresh_client(tmp_path)
    old = project(tmp_path, client, seed=1)
    new = project(tmp_path, client, seed=2)
    mixed = type(new)(tmp_path, client, new.candidate, old.verdict)
    with pytest.raises(EvidenceError, match=r"the verdict's candidate is not that of(.|\n)*the verdict's run key"):
        mixed.release(run_id="none")


def test_a_pickle_is_never_registered(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    directory = tmp_path / "models/candidate"
    (directory / "optimizer.pt").write_bytes(b"\x80\x04.")
    files = {**case.candidate.files, "optimizer.pt": digest_file(directory / "optimizer.pt")}
    candidate = case.candidate.model_copy(update={"files": files})
    (directory / "candidate.json").write_text(candidate.model_dump_json())
    with pytest.raises(ModelError, match=r"optimizer.pt: a type that is not on the allow-list"):
        case.release()


def test_a_second_releaser_waits_and_then_is_told(tmp_path, monkeypatch):
    case = project(tmp_path, fresh_client(tmp_path))
    run_id = case.sync()
    monkeypatch.setattr("metagdpo.release.promote.LOCK_SECONDS", 0.1)
    lock = tmp_path / ".work" / "release.lock"
    lock.parent.mkdir()
    with filelock.FileLock(lock, is_singleton=False), pytest.raises(StoreError, match="another release has held"):
        case.release(run_id=run_id)


def test_an_alias_moved_by_hand_follows_the_ledger_again(tmp_path):
    client = fresh_client(tmp_path)
    project(tmp_path, client, seed=1).release()
    case = project(tmp_path, client, seed=2)
    case.release()
    client.set_registered_model_alias("unit", "champion", "1")
    outcome = case.release()
    assert (outcome.action, outcome.champion) == ("restored", 2)
