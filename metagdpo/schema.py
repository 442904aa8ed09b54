"""The frozen base of every record and parameter section, JSON Lines, content digests, and durable writes.

Digests are SHA-256 over bytes or over canonical JSON (sorted keys, no spaces, UTF-8), written `sha256:<hex>`.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from metagdpo.errors import DataError, StoreError


class Frozen(pydantic.BaseModel):
    """A typed value that cannot change; unknown fields, wrong types and NaN are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


R = TypeVar("R", bound=Frozen)


def canonical_json(value: Any) -> str:
    """JSON with one spelling for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_text(text: str) -> str:
    """`sha256:<hex>` of the UTF-8 bytes of a text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def digest_json(value: Any) -> str:
    """`sha256:<hex>` of the canonical JSON of a plain value."""
    return digest_text(canonical_json(value))


def digest_record(record: Frozen) -> str:
    """`sha256:<hex>` of the canonical JSON of a record."""
    return digest_json(record.model_dump(mode="json"))


def digest_file(path: Path) -> str:
    """`sha256:<hex>` of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def digest_directory(path: Path) -> str:
    """`sha256:<hex>` over the sorted (relative path, file digest) pairs of a directory; dotfiles count too."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return digest_json([[p.relative_to(path).as_posix(), digest_file(p)] for p in files])


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling that replaces `path` when the block ends well, and vanishes when it does not.

    Raises:
        StoreError: The disk is full or the folder cannot be written; `path` still holds what it held before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}. Free some space or fix the permissions, then rerun."
        raise StoreError(message) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_record(path: Path, record: Frozen) -> None:
    """Write one record as indented JSON atomically."""
    write_json(path, record.model_dump(mode="json"))


def read_record(path: Path, kind: type[R]) -> R:
    """Read one record from a JSON file.

    Raises:
        DataError: The file is missing, is not JSON, or does not hold such a record.
    """
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{path} does not exist. Run the stage that writes it: `dvc repro`."
        raise DataError(message) from error
    except (pydantic.ValidationError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a {kind.__name__}: {_first_problem(error)}") from error


def write_jsonl(path: Path, records: Iterable[Frozen]) -> int:
    """Write records as JSON Lines atomically and return how many there were; streams, so memory stays flat."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(canonical_json(record.model_dump(mode="json")) + "\n")
            count += 1
    return count


def read_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """Yield the records of a JSON Lines file one by one; blank lines are skipped.

    Raises:
        DataError: The file is missing, or a line is not such a record; names file, line, field and value.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist. Run the stage that writes it: `dvc repro`.")
    with path.open(encoding="utf-8", errors="strict") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _parse_line(path, number, line, kind)
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error


def append_jsonl(path: Path, records: Iterable[Frozen]) -> None:
    """Append records durably (one write, then fsync): what was paid for survives a crash.

    A line torn by an earlier crash is ended first, so that it cannot swallow the next one.
    """
    text = "".join(canonical_json(record.model_dump(mode="json")) + "\n" for record in records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        message = f"cannot append to {path}: {error.strerror or error}. Free some space, then rerun: nothing is lost."
        raise StoreError(message) from error


def read_journal(path: Path, kind: type[R]) -> Iterator[R]:
    """Yield the whole records of a file written by `append_jsonl`; a line torn by a crash is passed over."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            with contextlib.suppress(pydantic.ValidationError):
                yield kind.model_validate_json(line)


def _parse_line(path: Path, number: int, line: str, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(line)
    except pydantic.ValidationError as error:
        raise DataError(f"{path}, line {number}: not a {kind.__name__}: {_first_problem(error)}") from error


def _first_problem(error: Exception) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole value"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {first['msg']} (got {str(first['input'])[:120]!r}){more}"
