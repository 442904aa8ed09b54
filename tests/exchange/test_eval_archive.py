"""Members of .eval files: every compression that Inspect wrote, and damage."""

import json
import zipfile
from pathlib import Path

import pytest

from metagdpo.errors import DataError
from metagdpo.exchange.eval_archive import members, read_member

LOG = next((Path(__file__).parent / "fixtures/inspect/base-eval").glob("*_sums_*.eval"))


def archive(path, compression, text='{"a": 1}'):
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("header.json", text)
    return path, members(path)[0]


def test_members_compressed_by_zstd_are_read():
    """What inspect-ai 0.3.285 writes; length and checksum are those of the archive's index."""
    found = {member.filename: read_member(LOG, member) for member in members(LOG) if "header" in member.filename}
    assert ({93}, "sums") == ({m.compress_type for m in members(LOG)}, found["header.json"]["eval"]["task"])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_and_deflated_members_are_read(tmp_path, compression):
    assert {"a": 1} == read_member(*archive(tmp_path / "a.eval", compression))


def test_a_compression_that_is_unknown_says_how_to_convert(tmp_path):
    path, member = archive(tmp_path / "a.eval", zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    # the method stands at byte 8 of the local header and at byte 10 of the entry in the index
    index = data.index(b"PK\x01\x02")
    path.write_bytes(data[:8] + b"\x63\x00" + data[10 : index + 10] + b"\x63\x00" + data[index + 12 :])
    with pytest.raises(DataError, match="inspect log convert FILE --to json"):
        read_member(path, members(path)[0])
    assert member.compress_type != members(path)[0].compress_type


def test_without_a_library_for_zstd_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install pyarrow.*inspect log convert"):
        read_member(LOG, members(LOG)[0])


def test_a_damaged_member_is_refused(tmp_path):
    """Every byte of the packed member is flipped in turn; none of the damage gets through."""
    member = next(m for m in members(LOG) if m.filename == "reductions.json")
    data = LOG.read_bytes()
    start = member.header_offset + 30 + len(member.filename)
    path = tmp_path / "a.eval"
    for place in range(start, start + member.compress_size, 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with pytest.raises(DataError, match="damaged"):
            read_member(path, member)


def test_a_member_beyond_the_limit_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("metagdpo.exchange.eval_archive.LARGEST", 3)
    with pytest.raises(DataError, match="says it has 8 bytes, more than 3"):
        read_member(*archive(tmp_path / "a.eval", zipfile.ZIP_DEFLATED))


def test_a_member_that_unpacks_to_more_than_its_index_says_is_refused():
    member = next(m for m in members(LOG) if m.filename == "header.json")
    member.file_size = 10
    with pytest.raises(DataError, match="length or checksum differ"):
        read_member(LOG, member)


def test_a_member_that_is_no_object_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds a list"):
        read_member(*archive(tmp_path / "a.eval", zipfile.ZIP_STORED, json.dumps([1])))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b'{"version": 2}'])
def test_what_is_no_archive_is_refused(tmp_path, data):
    (tmp_path / "a.eval").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.eval is no \.eval archive"):
        members(tmp_path / "a.eval")


def test_two_members_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.eval"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("header.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate name"):
            out.writestr("header.json", "{}")
    with pytest.raises(DataError, match="two members of one name"):
        members(path)
