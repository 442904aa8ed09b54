"""Which release a candidate has to stand up to, and fetching it from a real store."""

import json
import shutil
from pathlib import Path

import pytest
from releases import fresh_client, project

from metagdpo.errors import EvidenceError, StoreError
from metagdpo.records.champion import Champion
from metagdpo.records.release import LedgerEntry
from metagdpo.release import ledger
from metagdpo.release.incumbent import champion_for, fetch
from metagdpo.schema import digest_record


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return fresh_client(tmp_path_factory.mktemp("store"))


@pytest.fixture
def released(tmp_path, store):
    """A project with one release, and the champion of whatever comes next."""
    work = project(tmp_path, store)
    work.release()
    return work, champion_for(ledger.read(work.ledger), "unit", "sha256:another")


def entry(sequence, previous, candidate, version, trained=()):
    return LedgerEntry(
        sequence=sequence, previous=previous, decision="PROMOTE", action="registered", model_name="unit",
        version=version, candidate=candidate, base="b", verdict=f"v{sequence}", trained=trained, run_key="r",
        git_commit="g", dvc_lock="d", recorded_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def history(tmp_path):
    path = tmp_path / "ledger.jsonl"
    for candidate, version, trained in (("a", 1, ("sums",)), ("b", 2, ("rhymes", "sums")), ("c", 3, ())):
        ledger.append(path, lambda s, p, c=candidate, v=version, t=trained: entry(s, p, c, v, t))
    return ledger.read(path)


def test_the_champion_is_the_newest_release_and_skills_add_up_once_each(tmp_path):
    found = champion_for(history(tmp_path), "unit", "new")
    assert (found.version, found.manifest, found.retained) == (3, "c", ("sums", "rhymes"))


def test_a_candidate_that_was_released_keeps_the_champion_of_its_time(tmp_path):
    entries = history(tmp_path)
    assert champion_for(entries, "unit", "b") == champion_for(entries[:1], "unit", "b")
    assert champion_for(entries, "unit", "a") == Champion()


def test_other_models_do_not_count(tmp_path):
    assert champion_for(history(tmp_path), "other", "new") == Champion()


def test_a_line_written_before_trained_existed_keeps_its_digest(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, lambda s, p: entry(s, p, "a", 1))
    line = json.loads(path.read_text())
    del line["trained"]
    path.write_text(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n")
    old = ledger.read(path)[0]
    ledger.append(path, lambda s, p: entry(s, p, "b", 2))
    assert [found.previous for found in ledger.read(path)][1] == ledger.digest(old)
    assert "trained" not in json.loads(path.read_text().splitlines()[0])


def test_a_release_is_fetched_byte_for_byte(released, tmp_path):
    work, champion = released
    directory = fetch(champion, work.registry(), tmp_path / "champions")
    original = work.root / "models/candidate"
    assert {p.name: p.read_bytes() for p in directory.iterdir()} == {p.name: p.read_bytes() for p in original.iterdir()}


def test_what_was_fetched_is_not_fetched_again(released, tmp_path):
    work, champion = released
    first = fetch(champion, work.registry(), tmp_path / "champions")
    assert fetch(champion, None, tmp_path / "champions") == first


def test_bytes_that_were_changed_in_the_folder_are_fetched_anew(released, tmp_path):
    work, champion = released
    directory = fetch(champion, work.registry(), tmp_path / "champions")
    (directory / "adapter_config.json").write_text("{}")
    assert fetch(champion, work.registry(), tmp_path / "champions") == directory
    assert (directory / "adapter_config.json").read_text() != "{}"


def test_a_store_that_holds_other_bytes_is_refused_by_file(released, tmp_path):
    work, champion = released
    source = work.client.get_model_version("unit", str(champion.version)).source.removeprefix("models:/")
    location = work.client.get_logged_model(source).artifact_location.removeprefix("file://")
    (Path(location) / "adapter_config.json").write_text("{}")
    with pytest.raises(EvidenceError, match=r"adapter_config.json was changed"):
        fetch(champion, work.registry(), tmp_path / "champions")


def test_a_store_without_the_version_says_how_to_go_on(released, tmp_path):
    work, champion = released
    empty = fresh_client(tmp_path / "empty")
    with pytest.raises(StoreError, match="is in the ledger but not in this MLflow store"):
        fetch(champion, work.registry(empty), tmp_path / "champions")


def test_a_verdict_of_yesterdays_champion_replaces_nothing(tmp_path, store):
    """B was judged when there was no release; meanwhile A was released."""
    work_b = project(tmp_path / "b", store, seed=2)
    work_a = project(tmp_path / "a", store, seed=3)
    work_a.release()
    (work_b.root / "registry").mkdir(exist_ok=True)
    shutil.copy(work_a.ledger, work_b.ledger)
    with pytest.raises(EvidenceError, match=r"measured against no release, and the champion is now version"):
        work_b.release()
    assert len(ledger.read(work_b.ledger)) == 1
    assert work_b.verdict.champion == Champion()
    assert digest_record(work_b.candidate) != digest_record(work_a.candidate)
