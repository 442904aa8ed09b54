"""Questions in a JSON Lines file, one object a line, columns named by the parameters.

Left out: other formats; convert them to JSON Lines first.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue

from metagdpo.answers import boxed, final_answers
from metagdpo.errors import DataError
from metagdpo.records.question import Question, question_id
from metagdpo.schema import Frozen

_PROBLEMS_SHOWN = 20


class Columns(Frozen):
    """Which key of a line holds what."""

    question: str = Field(default="question", min_length=1)
    answer: str = Field(default="answer", min_length=1)
    solution: str | None = None
    """A worked solution; may be the same column as the answer. A box is added where it has none."""
    metadata: str | None = None
    """An object that the verifier needs besides the reference answer."""


class FilesSource(Frozen):
    """Questions of one JSON Lines file."""

    kind: Literal["files"]
    name: str = Field(min_length=1)
    """Name in reports; each source has its own."""
    path: str = Field(min_length=1)
    """Relative to the project's root, or absolute."""
    fields: Columns = Field(default_factory=Columns)
    answer_after: str | None = Field(default=None, min_length=1)
    """The answer is what follows the last occurrence of this marker, such as `####` in GSM8K."""
    verifier: str = Field(pattern=r"^(numeric|exact|choice|reasoning_gym:\w+)$")
    """`numeric`, `exact`, `choice` (the options stand in the question's text) or `reasoning_gym:<family>`."""
    domain: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    limit: int | None = Field(default=None, gt=0)
    """Read the first so many lines that are not blank; null reads all."""

    def questions(self) -> Iterator[Question]:
        """Yield the questions in the order of the file, after all of it has been found valid.

        Raises:
            DataError: The file is missing or is not UTF-8, or lines are malformed; lists them with their numbers.
        """
        questions, found = [], []
        for number, line in _numbered_lines(self):
            try:
                questions.append(_question(line, number, self))
            except ValueError as error:
                found.append(f"  line {number}: {error}")
        if found:
            more = f"\n  and {len(found) - _PROBLEMS_SHOWN} more" if len(found) > _PROBLEMS_SHOWN else ""
            message = (
                f"ingest source `{self.name}`: {self.path} has {len(found)} lines that are not questions:\n"
                + "\n".join(found[:_PROBLEMS_SHOWN])
                + f"{more}\nCorrect these lines, or the `fields` of the source in params.yaml."
            )
            raise DataError(message)
        yield from questions


def _numbered_lines(source: FilesSource) -> Iterator[tuple[int, str]]:
    path = Path(source.path)
    if not path.is_file():
        message = (
            f"ingest source `{source.name}`: there is no file {path}. Correct `path` in params.yaml (it is relative to "
            "the project's root), or fetch the file with `dvc pull`."
        )
        raise DataError(message)
    read = 0
    with path.open(encoding="utf-8") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if read == source.limit:
                    return
                if line.strip():
                    read += 1
                    yield number, line
        except UnicodeDecodeError as error:
            message = f"ingest source `{source.name}`: {path} is not UTF-8 text: {error.reason} at byte {error.start}."
            raise DataError(message) from error


def _question(line: str, number: int, source: FilesSource) -> Question:
    """The question of one line.

    Raises:
        ValueError: Says what is wrong with the line.
    """
    row = _row(line)
    fields = source.fields
    prompt = _text(row, fields.question)
    answer = _text(row, fields.answer)
    if source.answer_after is not None:
        _, marker, answer = answer.rpartition(source.answer_after)
        answer = answer.strip()
        if not marker or not answer:
            raise ValueError(f"`{fields.answer}` has no answer after {source.answer_after!r}")
    return Question(
        id=question_id(prompt, answer, source.verifier),
        prompt=prompt,
        domain=source.domain,
        reference_answer=answer,
        solution=None if fields.solution is None else _solution(_text(row, fields.solution), answer, source),
        verifier=source.verifier,
        metadata={} if fields.metadata is None else _object(row, fields.metadata),
        source=f"{source.path}:{number}",
        licence=source.licence,
    )


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, got {type(row).__name__}")  # noqa: TRY004  (one kind of error for a line)
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _text(row: dict[str, Any], key: str) -> str:
    if key not in row:
        raise ValueError(f"no field `{key}` (it has {', '.join(sorted(row)) or 'none'})")
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"`{key}` must be a text or a number, got {json.dumps(value)[:80]}")  # noqa: TRY004  (as above)
    text = value if isinstance(value, str) else json.dumps(value)
    if not text.strip():
        raise ValueError(f"`{key}` is empty")
    return text.strip()


def _object(row: dict[str, Any], key: str) -> dict[str, JsonValue]:
    value: dict[str, JsonValue] | None = row.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"`{key}` must be an object, got {json.dumps(value)[:80]}")  # noqa: TRY004  (as above)
    return value


def _solution(text: str, answer: str, source: FilesSource) -> str:
    """The worked text with its answer in a box; the marker and what follows it make room for the box."""
    if final_answers(text):
        return text
    if source.answer_after is not None and source.answer_after in text:
        text = text.rpartition(source.answer_after)[0].rstrip()
    return f"{text}\nThe final answer is {boxed(answer)}".lstrip()
