"""Which of our own files a module loads, read from its source: DVC does not follow Python imports."""

import ast
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
OURS = ("metagdpo", "pipelines")
PIPELINES = ("dvc.yaml", "comparison/inputs/dvc.yaml")
"""Where stages list code. Those of comparison/dvc.yaml list the digests that comparison/inputs makes of theirs."""
COMPARISON = "comparison/dvc.yaml"
DIGESTS = "pipelines.compare_inputs"


def module_file(name: str) -> Path | None:
    """File of one of our modules or packages, or None when the name is something else (a class, a function)."""
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def closure(start: Path) -> set[Path]:
    """Every non-empty file of ours that a file loads, directly or not, itself included."""
    found: set[Path] = set()
    queue = [start]
    while queue:
        path = queue.pop()
        if path in found:
            continue
        found.add(path)
        for name in imports(path):
            if name.split(".")[0] in OURS:
                parts = name.split(".")
                loaded = [module_file(".".join(parts[: end + 1])) for end in range(len(parts))]
                queue.extend(file for file in loaded if file is not None)
    return {path for path in found if path.stat().st_size > 0}


def relative(paths: set[Path]) -> list[str]:
    """Sorted paths as dvc.yaml writes them."""
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def stages(path: str) -> dict[str, Any]:
    """The stages of one dvc.yaml."""
    return dict(YAML(typ="safe").load((ROOT / path).read_text(encoding="utf-8"))["stages"])


def script(stage: dict[str, Any]) -> Path:
    """The script that a stage runs."""
    return ROOT / (stage["cmd"].split()[2].replace(".", "/") + ".py")


def code_dependencies(stage: dict[str, Any]) -> list[str]:
    """The `.py` files that a stage has to list: those that it loads, or that another one loads and it digests."""
    words = stage["cmd"].split()
    return relative(closure(script(stages(COMPARISON)[words[3]] if words[2] == DIGESTS else stage)))
