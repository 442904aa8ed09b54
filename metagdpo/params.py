"""Sections of params.yaml as frozen typed objects, or every problem at once with its path.

Read with ruamel.yaml like DVC does: PyYAML reads `2e-6` as a text.
"""

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from metagdpo.errors import ConfigError
from metagdpo.schema import Frozen

P = TypeVar("P", bound=Frozen)


class BaseParams(Frozen):
    """Section `base`: the model everything starts from."""

    model: str = pydantic.Field(min_length=1)
    """`asset:<name>`, `hub:<owner>/<name>@<40-hex revision>`, or a local directory."""
    dtype: Literal["float32", "bfloat16"]
    seed: int = pydantic.Field(ge=0)
    """Every generator in the pipeline is derived from this seed and from what it is used for."""
    experiment: str = pydantic.Field(min_length=1)
    """Name of the MLflow experiment and of the registered model."""


def load_yaml(path: Path) -> Any:
    """Read a YAML file into plain lists, dictionaries and scalars.

    Raises:
        ConfigError: The file is missing or is not YAML; names line and column.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{path} does not exist. Run the command in the project's root, or restore it with `git checkout`."
        raise ConfigError(message) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error


def validate(value: Any, kind: type[P], *, where: str, prefix: str = "") -> P:
    """Turn a plain value into a frozen object.

    Args:
        value: Plain value as read from YAML.
        kind: The type wanted.
        where: File name for the message.
        prefix: Path of the value inside the file.

    Raises:
        ConfigError: Lists every problem with its path, the value found and what would be accepted.
    """
    found, lines = problems(value, kind, prefix=prefix)
    if found is None:
        raise ConfigError("\n".join([f"{where} is not valid:", *lines, f"Correct {where}, then run `metagdpo check`."]))
    return found


def problems(value: Any, kind: type[P], *, prefix: str = "") -> tuple[P | None, list[str]]:
    """Validate without raising: the object and no lines, or None and one line for each problem."""
    try:
        # JSON mode: in Python mode `strict` would refuse a YAML list for a tuple.
        return kind.model_validate_json(json.dumps(value)), []
    except (TypeError, ValueError) as error:
        if not isinstance(error, pydantic.ValidationError):
            return None, [f"  {prefix or 'the file'}: {error}"]
        return None, [_line(prefix, problem) for problem in error.errors(include_url=False)]


def section(name: str, kind: type[P], path: Path = Path("params.yaml")) -> P:
    """Read one section of params.yaml.

    Raises:
        ConfigError: The file or the section is missing, or the section has problems (all are listed).
    """
    document = load_yaml(path)
    if not isinstance(document, dict) or name not in document:
        message = f"{path} has no section `{name}`. Every stage has one; see docs/parameters.md."
        raise ConfigError(message)
    return validate(document[name], kind, where=str(path), prefix=name)


def _line(prefix: str, problem: Any) -> str:
    where = ".".join(part for part in (prefix, *(str(p) for p in problem["loc"])) if part)
    got = "" if problem["type"] == "missing" else f" (got {json.dumps(problem['input'])[:100]})"
    return f"  {where}: {problem['msg']}{got}"
