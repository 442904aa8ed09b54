"""docs/parameters.md, written from the types: every section, every field, with its docstring, type and default.

Rewrite with `python tests/docs/parameters.py`; a test fails when the page is stale.
"""

import ast
import inspect
import itertools
import sys
import types
import typing
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "parameters.md"
HEAD = """# Parameters

Written from the types by `python tests/docs/parameters.py`; do not edit. `params.yaml` has one section for each stage.
`metagdpo check` validates all of it and lists every problem with its path.
"""


def field_docs(kind):
    """Field name -> the string under it in the source of the class."""
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind))).body[0].body
    docs = {}
    for before, after in itertools.pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docs[before.target.id] = " ".join(str(after.value.value).split())
    return docs


def members(annotation):
    """Every record type inside an annotation, unions and tuples opened."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if hasattr(annotation, "model_fields") else []
    return [found for part in typing.get_args(annotation) for found in members(part)]


def spelled(annotation):  # noqa: PLR0911  (one line a kind of type)
    """A type as people would say it."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return (
            f"[{annotation.__name__}](#{annotation.__name__.lower()})" if members(annotation) else annotation.__name__
        )
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return spelled(parts[0])
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        return f"list of {spelled(parts[0])}"
    if origin is dict:
        return "mapping"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if part is type(None) else spelled(part) for part in parts)
    return "any JSON"


def table(kind, queue):
    """The Markdown table of one type; types met on the way join the queue."""
    docs = {}
    for base in reversed(kind.__mro__):
        if "model_fields" in dir(base) and base.__module__.startswith("metagdpo") and base.__name__ != "Frozen":
            docs |= field_docs(base)
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in kind.model_fields.items():
        queue.extend(found for found in members(field.annotation) if found not in queue)
        if field.is_required():
            default = "required"
        elif field.default_factory is not None:
            made = field.default_factory()
            default = "its defaults" if hasattr(made, "model_dump") else f"`{made}`"
        else:
            default = "its defaults" if hasattr(field.default, "model_dump") else f"`{field.default}`"
        row = (f"`{name}`", spelled(field.annotation), default, docs.get(name, ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return lines


def page():
    """The whole page."""
    from metagdpo.configuration import SECTIONS

    lines, queue = [HEAD], []
    for name, kind in SECTIONS.items():
        lines += [f"## {name}", "", " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split()), ""]
        lines += [*table(kind, queue), ""]
    lines += ["# Types used above", ""]
    done = 0
    while done < len(queue):
        kind = queue[done]
        lines += [f"## {kind.__name__}", "", " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split()), ""]
        lines += [*table(kind, queue), ""]
        done += 1
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(), encoding="utf-8")
