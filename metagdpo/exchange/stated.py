"""Reading what others wrote: strict JSON of bounded size, and nested settings as flat `path = value` lines."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from metagdpo.errors import DataError
from metagdpo.schema import digest_text

LARGEST = 1 << 30
"""Bytes of a JSON text that is read as a whole."""
_LONGEST_VALUE = 200
_SECRET = {"api_key", "token", "auth_token", "hf_token", "password", "secret", "headers", "default_headers"}
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def parse(text: str | bytes, where: str) -> Any:
    """A JSON value; a key that is there twice is refused, since one of its values would be lost.

    Raises:
        DataError: It is not JSON; names where.
    """
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, where))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {str(error)[:200]}.") from error


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: It is another value, or not JSON.
    """
    value = parse(text, where)
    return value if isinstance(value, dict) else refuse(where, f"holds a {type(value).__name__}, not an object")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        DataError: The file cannot be read, is too large, or holds something else.
    """
    try:
        if path.stat().st_size > LARGEST:
            refuse(path.name, f"has more than {LARGEST:,} bytes")
        return parse_object(path.read_bytes(), path.name)
    except OSError as error:
        refuse(str(path), f"cannot be read: {error.strerror or error}")


def lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of each line of a JSON Lines file that is not blank.

    Raises:
        DataError: The file cannot be read, or a line holds something else.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="strict") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    where = f"{path.name}, line {number}"
                    yield where, parse_object(line, where)
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        refuse(str(path), f"cannot be read: {error.strerror or error}")


def flat(prefix: str, value: Any) -> dict[str, str]:
    """Settings as `path = text`: objects by dotted path, null as not stated, long texts as their digest.

    Keys and passwords are left out: what is stated is published with the report.
    """
    if isinstance(value, dict):
        shown = {key: inner for key, inner in value.items() if key.lower() not in _SECRET}
        return {name: text for key, inner in shown.items() for name, text in flat(f"{prefix}.{key}", inner).items()}
    if value is None:
        return {}
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    text = _CREDENTIALS.sub("", text)
    return {prefix: text if len(text) <= _LONGEST_VALUE else digest_text(text)}


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A JSON object inside another; an absent one is empty.

    Raises:
        DataError: It is something else.
    """
    if value is None:
        return {}
    return value if isinstance(value, dict) else refuse(where, f"holds a {type(value).__name__}, not an object")


def refuse(where: str, problem: str) -> NoReturn:
    """Raise a DataError."""
    raise DataError(f"{where} {problem}.")


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = sorted({key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1})
        refuse(where, f"has the key {twice[0]!r} twice in one object")
    return found
