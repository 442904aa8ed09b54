"""`metagdpo compare`: methods side by side, on the same data and token budget, each gated."""

import os
import subprocess
import sys
from pathlib import Path

import click

from metagdpo.errors import ConfigError, EvidenceError

PIPELINE = "comparison/dvc.yaml"


@click.command()
@click.option("--methods", metavar="A,B", help="Compare these; written into comparison.yaml.")
@click.option("--seeds", metavar="1,2", help="Train each with these seeds; written into comparison.yaml.")
@click.option("--list", "list_methods", is_flag=True, help="Show all methods and what they change; run nothing.")
@click.option("--plan", "plan_only", is_flag=True, help="Show what would run and how long it takes; run nothing.")
@click.option("--show", is_flag=True, help="Print the last table; run nothing.")
def compare(
    methods: str | None,
    seeds: str | None,
    list_methods: bool,  # noqa: FBT001  (click passes flags as they are)
    plan_only: bool,  # noqa: FBT001
    show: bool,  # noqa: FBT001
) -> None:
    """Train, evaluate and gate every method of comparison.yaml with every seed; print one table.

    What is there already is not made again, and after a kill or Ctrl-C the same command goes on. A run that fails does
    not stop the others: the table then names it as missing, and the command leaves with 7. docs/compare.md says how to
    read the table, and how to add a method.

    \b
    Examples:
      metagdpo compare
      metagdpo compare --list
      metagdpo compare --methods sft,sft-cfs --seeds 1 --plan
      metagdpo compare --methods sft,sft-cfs --seeds 1
      metagdpo compare --show
    """
    from metagdpo.comparison import outlook, settings
    from metagdpo.comparison.pace import read_times
    from metagdpo.runs import read_comparison

    if list_methods + plan_only + show > 1:
        raise click.UsageError("give one of --list, --plan and --show.")
    if show:
        _show()
        return
    declared = outlook.chosen(read_comparison(), _names(methods), _numbers(seeds))
    if list_methods:
        print("\n".join(outlook.method_lines(declared)))
        return
    problems = settings.check(declared, Path())
    if problems:
        raise ConfigError("\n".join(problems))
    found = outlook.states(declared)
    print("\n".join(outlook.plan(declared, found, read_times())), flush=True)
    if plan_only:
        print("\n".join(outlook.to_do(found)))
        return
    if outlook.write_choice(declared):
        print(f"comparison.yaml: compare {', '.join(declared.compare)}; seeds {', '.join(map(str, declared.seeds))}")
    code = _dvc("--keep-going", PIPELINE)
    if code != 0:
        # DVC leaves out what depends on a failure; the table of the others is wanted all the same.
        code = _dvc("--single-item", f"{PIPELINE}:table") or code
    left = [state for state in outlook.states(declared) if state.why is not None]
    if code != 0 or left:
        lines = "\n".join(outlook.to_do(left))
        message = f"{len(left)} of {len(found)} runs have no result"
        reasons = f":\n{lines}\n" if lines else ", but DVC could not finish. "
        raise EvidenceError(
            f"{message}{reasons}What stopped them stands above. Run `metagdpo compare` again to go on with what is "
            "missing; `metagdpo compare --show` prints the table of the others."
        )
    _show()


def _show() -> None:
    from metagdpo.comparison.table import summary
    from metagdpo.records.comparison import Comparison
    from metagdpo.runs import RESULTS
    from metagdpo.schema import read_record

    path = RESULTS / "comparison.json"
    if not path.is_file():
        raise EvidenceError(f"{path} does not exist: nothing was compared yet. Run `metagdpo compare`.")
    print("\n".join([*summary(read_record(path, Comparison)), "", f"page: {RESULTS}/index.html"]))


def _dvc(*words: str) -> int:
    """`dvc repro` of this environment, on this terminal."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", "repro", *words]
    return subprocess.run(command, env={**os.environ, "PATH": path}, check=False).returncode  # noqa: S603  (no shell)


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("name at least one method, such as sft,gdpo.", param_hint="--methods")
    return names


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise click.BadParameter(f"write whole numbers such as 1,2,3 (got {text}).", param_hint="--seeds")
    return [int(word) for word in words]
