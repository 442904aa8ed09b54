"""Plain tables, .csv or .jsonl, for scores that no known harness wrote.

    one file      suite, item, base, candidate [, cluster, base_answer, candidate_answer]
    two files     suite, item, score [, cluster, answer, doc, prompt, target]

`doc`, `prompt` and `target` (digests or texts) must be equal on both sides. An unknown column is refused: a misspelt
`cluster` would change the test without a word. A table says nothing about how its scores were measured.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metagdpo.errors import DataError, EvidenceError
from metagdpo.exchange.score_set import LONGEST_ANSWER, Reading, Scored, ScoreSet, add, as_score
from metagdpo.exchange.stated import lines, refuse
from metagdpo.schema import digest_file, digest_text

SUFFIXES = {".csv", ".jsonl"}
_CONTENT = ("doc", "prompt", "target")
_SCORES = ({"suite", "item", "score"}, {"cluster", "answer", *_CONTENT})
_PAIRS = ({"suite", "item", "base", "candidate"}, {"cluster", "base_answer", "candidate_answer"})
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # float() also takes 0_1 and words


def read_scores(path: Path, reading: Reading) -> ScoreSet:
    """Read the scores of one model.

    Raises:
        DataError: The file is no such table.
        EvidenceError: A score is missing, there twice, or not in 0..1.
    """
    return _read(path, reading, _SCORES, {"": "score"}, (path.name,))[0]


def read_pairs(path: Path, reading: Reading) -> tuple[ScoreSet, ScoreSet]:
    """Read the scores of base and candidate out of one table.

    Raises:
        DataError: The file is no such table.
        EvidenceError: A score is missing, there twice, or not in 0..1.
    """
    if path.suffix not in SUFFIXES:
        refuse(str(path), "is no table of pairs (.csv or .jsonl), and without a CANDIDATE it has to be one")
    base, candidate = _read(path, reading, _PAIRS, {"base_": "base", "candidate_": "candidate"}, (path.name,) * 2)
    return base, candidate


def _read(
    path: Path, reading: Reading, columns: tuple[set[str], set[str]], scores: dict[str, str], names: tuple[str, ...]
) -> list[ScoreSet]:
    """One score set for each score column; its answers are in the column of the same prefix."""
    files = {names[0]: digest_file(path)} if path.is_file() else {}
    sets = [ScoreSet("table", {}, files=files) for _ in scores]
    for where, row in _rows(path, columns):
        suite, item = (_word(where, row, key) for key in ("suite", "item"))
        if reading.skips(suite):
            continue
        content = tuple((key, digest_text(str(row[key]))) for key in _CONTENT if not _empty(row.get(key)))
        cluster = None if _empty(row.get("cluster")) else str(row["cluster"])
        for found, (prefix, key) in zip(sets, scores.items(), strict=True):
            answer = row.get(f"{prefix}answer")
            score = as_score(_number(row[key]), suite=suite, item=item, what=f"column {key}")
            kept = None if answer is None else str(answer)[:LONGEST_ANSWER]
            add(found.suites.setdefault(suite, {}), suite, item, Scored(score, content, cluster, kept))
    if not sets[0].suites:
        raise EvidenceError(f"{path.name} holds no scores; without items nothing can be compared.")
    return sets


def _rows(path: Path, columns: tuple[set[str], set[str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    read = _csv_rows(path) if path.suffix == ".csv" else lines(path)
    for where, found in read:
        row = {("item" if key == "item_id" else key): value for key, value in found.items()}
        required, optional = columns
        missing, unknown = sorted(required - set(row)), sorted(set(row) - required - optional)
        if missing or unknown:
            problem = f"has no column {', '.join(missing)}" if missing else f"has unknown columns {', '.join(unknown)}"
            wanted = f"{', '.join(sorted(required))}; may be there: {', '.join(sorted(optional))}"
            refuse(where, f"{problem}. Columns of such a table: {wanted}")
        yield where, row


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", errors="strict", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) < len(header):
                refuse(path.name, f"has two columns of one name: {', '.join(header)}")
            for values in reader:
                where = f"{path.name}, line {reader.line_num}"
                if not values:
                    continue
                if len(values) != len(header):
                    refuse(where, f"has {len(values)} values for {len(header)} columns; quote values that hold commas")
                yield where, dict(zip(header, values, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} is not UTF-8 CSV: {error}.") from error
    except OSError as error:
        refuse(str(path), f"cannot be read: {error.strerror or error}")


def _word(where: str, row: dict[str, Any], key: str) -> str:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, (str, int)) or str(value).strip() == "":
        refuse(where, f"has no {key} (got {value!r})")
    return str(value)


def _empty(value: Any) -> bool:
    return value is None or value == ""


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value.strip()) else value
