"""The comparison before it runs: which methods there are, which runs are done, what the others will take."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from metagdpo.comparison.evidence import current_candidate
from metagdpo.comparison.pace import StageTime, seconds_left
from metagdpo.errors import ConfigError, MetagdpoError
from metagdpo.params import validate
from metagdpo.runs import COMPARISON, ComparisonParams, Run, runs_of, unknown_method
from metagdpo.schema import canonical_json, write_text

SHOWN = 6
"""Runs that are named one by one."""


class RunState(NamedTuple):
    """A declared run, as its files are."""

    run: Run
    why: str | None
    """What it lacks; None when it is done."""


def states(declared: ComparisonParams) -> list[RunState]:
    """Every declared run. Code that has changed is not seen here: DVC sees it."""
    return [RunState(run, _lacks(run)) for run in runs_of(declared)]


def plan(declared: ComparisonParams, found: Sequence[RunState], times: Sequence[StageTime]) -> list[str]:
    """What there is to do, in lines for people.

    Args:
        declared: comparison.yaml.
        found: State of every run.
        times: How long stages took so far.
    """
    left = [state.run for state in found if state.why is not None]
    methods, seeds = len(declared.compare), len(declared.seeds)
    lines = [f"{methods} methods x {seeds} seeds = {len(found)} runs: {len(found) - len(left)} done, {len(left)} to do"]
    if left:
        seconds = seconds_left([(run.method or "", run.seed or 0) for run in left], times)
        lines.append(
            "time left: unknown, no run has ended on this machine yet"
            if seconds is None
            else f"time left: about {max(1, round(seconds / 60))} minutes, as runs took so far"
        )
    return lines


def to_do(found: Sequence[RunState]) -> list[str]:
    """The runs that are not done, each with its reason."""
    return [f"  {state.run.name}: {state.why}" for state in found if state.why is not None]


def method_lines(declared: ComparisonParams) -> list[str]:
    """Every method with its label and what it changes; those that are compared are marked."""
    width = max(map(len, declared.methods))
    lines = ["shared: " + _told(declared.shared)]
    for name, method in declared.methods.items():
        mark = "*" if name in declared.compare else " "
        lines.append(f"{mark} {name:<{width}}  {method.label}: {_told(method.changes)}")
    return [*lines, f"* compared, with seeds {', '.join(map(str, declared.seeds))}; `compare` and `seeds` say so"]


def chosen(declared: ComparisonParams, methods: Sequence[str] | None, seeds: Sequence[int] | None) -> ComparisonParams:
    """The comparison with other methods and seeds; None keeps what is declared.

    Raises:
        ConfigError: A method is not known, or something is named twice.
    """
    unknown = [name for name in methods or () if name not in declared.methods]
    if unknown:
        raise ConfigError(f"--methods names {unknown[0]}{unknown_method(unknown[0], declared.methods)}.")
    value = declared.model_dump(mode="json")
    value |= {"compare": list(methods)} if methods is not None else {}
    value |= {"seeds": list(seeds)} if seeds is not None else {}
    return validate(value, ComparisonParams, where="the comparison that was asked for")


def write_choice(declared: ComparisonParams, path: Path = COMPARISON) -> bool:
    """Write `compare` and `seeds` into comparison.yaml, all else and its comments kept; say whether they changed.

    Raises:
        ConfigError: The file cannot be read.
        StoreError: It cannot be written.
    """
    yaml = YAML()
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.preserve_quotes = True
    # Without this, every `null` of the file would turn into nothing.
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(path.read_text(encoding="utf-8"))
    wanted = {"compare": list(declared.compare), "seeds": list(declared.seeds)}
    changed = {key: value for key, value in wanted.items() if list(document[key]) != value}
    for key, value in changed.items():
        old = document[key]
        old.clear()
        old.extend(value)
        if isinstance(old, CommentedSeq):
            old.fa.set_flow_style()
    if changed:
        stream = io.StringIO()
        yaml.dump(document, stream)
        write_text(path, stream.getvalue())
    return bool(changed)


def _lacks(run: Run) -> str | None:
    try:
        current_candidate(run)
    except MetagdpoError as error:
        return str(error)
    return None


def _told(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in _leaves(changes, "")) or "nothing changed"


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and "kind" not in value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", canonical_json(value)
