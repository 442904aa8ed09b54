"""registry/ledger.jsonl: every release decision ever made, append-only, each line chained to the one before it.

A line that was changed, removed or moved breaks the chain of the lines after it. The last line has none after it: git
guards that one, which is why the ledger is a tracked file.
"""

from collections.abc import Callable
from pathlib import Path

import pydantic
from pydantic import JsonValue

from metagdpo.errors import EvidenceError
from metagdpo.records.release import LedgerEntry
from metagdpo.schema import canonical_json, digest_json, digest_text, write_text


def read(path: Path) -> tuple[LedgerEntry, ...]:
    """All entries, the whole chain verified; none when there is no file yet.

    Raises:
        EvidenceError: A line is not an entry or does not follow from the one before it; names the line.
    """
    if not path.exists():
        return ()
    entries: list[LedgerEntry] = []
    # Bytes: an entry may hold characters that end a line for Python but not for JSON Lines.
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), start=1):
        entries.append(_parse(path, number, line))
        broken = _break(entries)
        if broken:
            message = (
                f"{path}, line {number}: {broken}. A line was changed, removed or moved. "
                f"Compare with `git log -p {path}` and restore it with `git checkout {path}`."
            )
            raise EvidenceError(message)
    return tuple(entries)


def head(path: Path) -> str:
    """Digest that the next entry must carry: of the last entry, or of the empty text.

    Raises:
        EvidenceError: The chain is broken.
    """
    return _head(read(path))


def append(path: Path, make: Callable[[int, str], LedgerEntry]) -> LedgerEntry:
    """Add one entry durably: the file is replaced as a whole, so it never holds half a line.

    The caller holds the release lock; two writers without it could overwrite each other.

    Args:
        path: The ledger.
        make: Builds the entry from its sequence number and the head before it.

    Raises:
        EvidenceError: The chain is broken, or the new entry does not follow from it.
        StoreError: The disk refused; the ledger is as it was.
    """
    entries = read(path)
    entry = make(len(entries), _head(entries))
    broken = _break([*entries, entry])
    if broken:
        raise EvidenceError(f"refusing to append to {path}: {broken}.")
    write_text(path, "".join(f"{canonical_json(_written(line))}\n" for line in (*entries, entry)))
    return entry


def registered(entries: tuple[LedgerEntry, ...], model_name: str) -> tuple[LedgerEntry, ...]:
    """The releases of one model, oldest first; the last one is its champion."""
    return tuple(entry for entry in entries if entry.action == "registered" and entry.model_name == model_name)


def digest(entry: LedgerEntry) -> str:
    """Digest of an entry as it was written, which the next entry carries."""
    return digest_json(_written(entry))


def _written(entry: LedgerEntry) -> dict[str, JsonValue]:
    """The fields that the entry was written with: a field that came later does not change older entries."""
    return entry.model_dump(mode="json", exclude_unset=True)


def _head(entries: tuple[LedgerEntry, ...]) -> str:
    return digest(entries[-1]) if entries else digest_text("")


def _break(entries: list[LedgerEntry]) -> str | None:
    """Why the last entry does not follow from those before it."""
    last, before = entries[-1], tuple(entries[:-1])
    if last.sequence != len(before):
        return f"sequence is {last.sequence}, expected {len(before)}"
    if last.previous != _head(before):
        return f"previous is {last.previous}, but the entry before has {_head(before)}"
    return None


def _parse(path: Path, number: int, line: bytes) -> LedgerEntry:
    try:
        return LedgerEntry.model_validate_json(line)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole line"
        message = (
            f"{path}, line {number}: not a ledger entry: {where}: {first['msg']}. Restore it: `git checkout {path}`."
        )
        raise EvidenceError(message) from error
