"""Strict JSON and flat settings."""

import pytest

from metagdpo.errors import DataError
from metagdpo.exchange.stated import flat, lines, mapping, parse, parse_object, read_object


def test_a_key_that_is_there_twice_is_refused():
    """One of the two values would be lost without a word."""
    with pytest.raises(DataError, match="'score' twice"):
        parse('{"a": [{"score": 1, "score": 0}]}', "here")


@pytest.mark.parametrize("text", ["", "{", "[1,]", "[" * 100_000, b"\xff\xfe", "1" * 5000])
def test_what_is_not_json_is_refused_with_its_place(text):
    with pytest.raises(DataError, match="here"):
        parse_object(text, "here")


def test_another_value_than_an_object_is_refused():
    with pytest.raises(DataError, match="here holds a list, not an object"):
        parse_object("[1]", "here")
    with pytest.raises(DataError, match="here holds a int, not an object"):
        mapping(3, "here")


def test_an_absent_object_is_empty():
    assert {} == mapping(None, "here")


def test_a_byte_order_mark_and_blank_lines_are_passed_over(table):
    path = table("a.jsonl", b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\n')
    assert [("a.jsonl, line 1", {"a": 1}), ("a.jsonl, line 3", {"a": 2})] == list(lines(path))


def test_text_that_is_not_utf8_is_refused(table):
    with pytest.raises(DataError, match="not UTF-8"):
        list(lines(table("a.jsonl", b'{"a": "\xff"}\n')))


def test_a_missing_file_is_named(tmp_path):
    for reads in (read_object, lambda path: list(lines(path))):
        with pytest.raises(DataError, match=r"gone\.json cannot be read"):
            reads(tmp_path / "gone.json")


def test_a_file_beyond_the_limit_is_refused(table, monkeypatch):
    monkeypatch.setattr("metagdpo.exchange.stated.LARGEST", 5)
    with pytest.raises(DataError, match="more than 5 bytes"):
        read_object(table("a.json", '{"a": 1}'))


def test_settings_become_dotted_paths():
    """Null is not stated; numbers and texts of one spelling are one value; lists stay whole."""
    nested = {"a": {"b": 1, "c": None}, "d": "x", "e": [1, {"z": 0, "y": 0}], "f": True, "g": {}}
    assert {"s.a.b": "1", "s.d": "x", "s.e": '[1, {"y": 0, "z": 0}]', "s.f": "true"} == flat("s", nested)
    assert flat("s", {"batch_size": 4}) == flat("s", {"batch_size": "4"})


def test_a_long_text_becomes_its_digest():
    one, other = flat("s", "x" * 5000)["s"], flat("s", "x" * 4999 + "y")["s"]
    assert (True, True, False) == (one.startswith("sha256:"), other.startswith("sha256:"), one == other)


def test_keys_and_passwords_are_never_stated():
    """The report is published."""
    stated = flat("s", {"api_key": "sk-1", "base_url": "https://me:pw@host/v1", "inner": {"token": "t"}})
    assert {"s.base_url": "https://host/v1"} == stated
