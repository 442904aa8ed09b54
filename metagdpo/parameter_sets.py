"""Named parameter sets: params.d/<name>.yaml holds only what differs from the committed params.yaml.

`default` is params.yaml as committed. Using a set rewrites params.yaml (comments kept), so `git diff params.yaml`
shows what is on trial, and DVC sees an ordinary parameter change.
"""

import difflib
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from metagdpo.errors import ConfigError
from metagdpo.params import load_yaml
from metagdpo.schema import write_text

DEFAULT = "default"


def available(root: Path) -> list[str]:
    """Names of all sets, `default` first."""
    return [DEFAULT, *sorted(path.stem for path in (root / "params.d").glob("*.yaml"))]


def use(name: str, root: Path, *, discard: bool = False) -> list[str]:
    """Write params.yaml as the named set wants it and return one line for each value that changed.

    Args:
        name: `default` or the stem of a file in params.d/.
        root: The project's root, in a git repository.
        discard: Overwrite edits of params.yaml that are neither committed nor a named set.

    Raises:
        ConfigError: No such set, a path in it that params.yaml does not have, or edits that would be lost.
    """
    if name not in available(root):
        near = difflib.get_close_matches(name, available(root), n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ConfigError(f"there is no parameter set `{name}`; there are {', '.join(available(root))}.{hint}")
    path = root / "params.yaml"
    current = load_yaml(path)
    if not discard and not any(_is(current, other, root) for other in available(root)):
        message = (
            "params.yaml has edits that are neither committed nor a named set, and they would be lost. "
            "Commit them (then they are the default), move them to params.d/, or add --discard."
        )
        raise ConfigError(message)
    text = _rendered(name, root)
    wanted = YAML(typ="safe", pure=True).load(text)
    write_text(path, text)
    return list(_differences(current, wanted, ""))


def overlay(document: Any, changes: dict[str, Any], where: str, prefix: str = "") -> None:
    """Set every leaf of `changes` in `document`; a mapping with a different `kind` replaces as a whole.

    Raises:
        ConfigError: A key that `document` does not have: a misspelt key must not pass in silence.
    """
    for key, value in changes.items():
        if key not in document:
            near = difflib.get_close_matches(key, list(document), n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"{where}: `{prefix}{key}` is not in params.yaml.{hint}")
        same_kind = isinstance(document[key], dict) and isinstance(value, dict)
        if same_kind and value.get("kind", document[key].get("kind")) == document[key].get("kind"):
            overlay(document[key], value, where, f"{prefix}{key}.")
        else:
            document[key] = value


def _rendered(name: str, root: Path) -> str:
    committed = _committed(root)
    if name == DEFAULT:
        return committed
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.preserve_quotes = True
    # Without this, every `null` of the file would turn into nothing.
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(committed)
    overlay(document, load_yaml(root / "params.d" / f"{name}.yaml") or {}, f"params.d/{name}.yaml")
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _committed(root: Path) -> str:
    shown = subprocess.run(
        ["git", "show", "HEAD:./params.yaml"],  # noqa: S607  (git is found like the user finds it)
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if shown.returncode != 0:
        message = "named parameter sets build on the committed params.yaml: run `git add params.yaml && git commit`."
        raise ConfigError(message)
    return shown.stdout


def _is(document: Any, name: str, root: Path) -> bool:
    """Whether a document says what a set says; a set that is broken itself says nothing."""
    try:
        text = _rendered(name, root)
    except ConfigError:
        if name == DEFAULT:
            raise
        return False
    return bool(YAML(typ="safe", pure=True).load(text) == document)


def _differences(old: Any, new: Any, prefix: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif old != new:
        yield f"{prefix}: {old} -> {new}"
