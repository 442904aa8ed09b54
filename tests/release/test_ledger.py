import json

import pytest

from metagdpo.errors import EvidenceError, StoreError
from metagdpo.records.release import LedgerEntry
from metagdpo.release import ledger
from metagdpo.schema import digest_text


def entry(sequence, previous, version=1, name="unit"):
    return LedgerEntry(
        sequence=sequence,
        previous=previous,
        decision="PROMOTE" if version else "BLOCK",
        action="registered" if version else "refused",
        model_name=name,
        version=version,
        candidate="c",
        base="b",
        verdict=f"v{sequence}",
        run_key="r",
        git_commit="g",
        dvc_lock="d",
        recorded_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "registry" / "ledger.jsonl"
    for version in (1, None, 2):
        ledger.append(path, lambda sequence, previous, version=version: entry(sequence, previous, version))
    return path


def test_no_file_is_an_empty_ledger_whose_head_is_the_empty_texts_digest(tmp_path):
    assert ledger.read(tmp_path / "ledger.jsonl") == ()
    assert ledger.head(tmp_path / "ledger.jsonl") == digest_text("")


def test_each_entry_carries_the_digest_of_the_one_before(path):
    first, second, third = ledger.read(path)
    assert (first.previous, second.previous) == (digest_text(""), ledger.digest(first))
    assert (third.previous, ledger.head(path)) == (ledger.digest(second), ledger.digest(third))


def test_registered_leaves_refusals_and_other_models_out(path):
    ledger.append(path, lambda sequence, previous: entry(sequence, previous, 1, "other"))
    assert [found.version for found in ledger.registered(ledger.read(path), "unit")] == [1, 2]


def test_a_changed_entry_breaks_the_chain_at_the_line_after_it(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1].replace("BLOCK", "PROMOTE") + lines[2])
    with pytest.raises(EvidenceError, match=r"ledger.jsonl, line 3: previous is sha256:"):
        ledger.read(path)


def test_a_removed_entry_is_noticed_at_its_line(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    with pytest.raises(EvidenceError, match="line 2: sequence is 2, expected 1"):
        ledger.read(path)


def test_a_line_that_is_no_entry_is_named_with_its_field(path):
    lines = path.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), "version": "two"})
    path.write_text("\n".join(lines))
    with pytest.raises(EvidenceError, match="line 2: not a ledger entry: version"):
        ledger.read(path)


def test_bytes_that_are_no_text_are_an_error_with_the_way_out(path):
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EvidenceError, match="git checkout"):
        ledger.read(path)


def test_an_entry_that_does_not_follow_is_never_appended(path):
    before = path.read_text()
    with pytest.raises(EvidenceError, match="refusing to append"):
        ledger.append(path, lambda sequence, _: entry(sequence, "sha256:other"))
    assert path.read_text() == before


def test_a_full_disk_leaves_the_ledger_as_it_was(path, monkeypatch):
    before = path.read_text()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metagdpo.schema.os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        ledger.append(path, entry)
    assert path.read_text() == before
