"""Records, digests and durable writes."""

import errno
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metagdpo.errors import DataError, StoreError
from metagdpo.schema import (
    Frozen,
    append_jsonl,
    atomic_path,
    canonical_json,
    digest_directory,
    digest_json,
    digest_text,
    read_journal,
    read_jsonl,
    read_record,
    write_jsonl,
    write_record,
)

# SHA-256 of the empty text, as published with the standard.
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Row(Frozen):
    """A record of these tests."""

    name: str
    value: float = 0.0


def test_digest_of_the_empty_text_is_the_published_one():
    assert digest_text("") == EMPTY


@given(plain)
def test_canonical_json_has_one_spelling_and_reads_back(value):
    """Equal values, equal bytes, whatever the order of the keys."""
    text = canonical_json(value)
    assert value == json.loads(text)
    shuffled = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert text == canonical_json(shuffled)


def test_nan_has_no_spelling():
    with pytest.raises(ValueError, match="Out of range float"):
        digest_json(math.nan)


def test_a_directory_digest_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = digest_directory(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = digest_directory(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, digest_directory(tmp_path)}) == 3


def test_records_round_trip(tmp_path):
    rows = [Row(name="π\n", value=0.1), Row(name="", value=-0.0)]
    assert write_jsonl(tmp_path / "rows.jsonl", rows) == 2
    assert rows == list(read_jsonl(tmp_path / "rows.jsonl", Row))
    write_record(tmp_path / "row.json", rows[0])
    assert rows[0] == read_record(tmp_path / "row.json", Row)


def test_a_bad_line_is_named_with_file_line_field_and_value(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"name": "a"}\n\n{"name": 3, "extra": 1}\n')
    with pytest.raises(DataError, match=r"rows.jsonl, line 3: not a Row: name: .*got '3'.*and 1 more"):
        list(read_jsonl(path, Row))


def test_a_missing_file_names_the_next_command(tmp_path):
    with pytest.raises(DataError, match=r"does not exist.*dvc repro"):
        list(read_jsonl(tmp_path / "none.jsonl", Row))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"name": "\xff"}\n')
    with pytest.raises(DataError, match="is not UTF-8 text"):
        list(read_jsonl(tmp_path / "rows.jsonl", Row))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    """The block raises in the middle: what was there is there, without a temporary file beside it."""
    path = tmp_path / "file"
    path.write_text("old")

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write()
    assert ["old"] == [p.read_text() for p in tmp_path.iterdir()]


def test_a_full_disk_is_a_store_error_with_the_way_out(tmp_path, monkeypatch):
    def full(*_args, **_settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match=r"No space left on device\. Free some space"):
        write_record(tmp_path / "row.json", Row(name="a"))
    assert [] == list(tmp_path.iterdir())


def test_a_torn_line_costs_itself_only(tmp_path):
    """A crash in the middle of an append: the next append starts on a new line, and whole records are read."""
    path = tmp_path / "journal.jsonl"
    append_jsonl(path, [Row(name="a")])
    with path.open("ab") as stream:
        stream.write(b'{"name": "to')
    append_jsonl(path, [Row(name="b")])
    assert ["a", "b"] == [row.name for row in read_journal(path, Row)]


def test_a_journal_that_does_not_exist_is_empty(tmp_path):
    assert [] == list(read_journal(tmp_path / "none", Row))
