"""Starting a stage again in several processes: `METAGDPO_ACCELERATE=accelerate/eight-gpus.yaml dvc repro`.

The stage stays the command that DVC knows; the variable says where it runs, which is no parameter of the result.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from metagdpo.errors import ConfigError

VARIABLE = "METAGDPO_ACCELERATE"
LAUNCHED = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE"})
"""What torchrun and `accelerate launch` set in each process that they start."""
READY = Path("accelerate")
"""Folder of ready configurations."""


def launch_command(module: str, environment: Mapping[str, str], arguments: Sequence[str] = ()) -> list[str] | None:
    """How to start a module under accelerate; None if that was not asked for, or has been done.

    Args:
        module: As after `python -m`.
        environment: Of this process.
        arguments: The module's own.

    Raises:
        ConfigError: The configuration does not exist.
    """
    file = environment.get(VARIABLE, "")
    if not file or LAUNCHED & set(environment):
        return None
    if not Path(file).is_file():
        ready = ", ".join(path.as_posix() for path in sorted(READY.glob("*.yaml"))) or "none in this folder"
        raise ConfigError(f"{VARIABLE} = {file} is not a file. Ready configurations: {ready} (docs/scale-out.md).")
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, "-m", module, *arguments]


def relaunch(module: str, arguments: Sequence[str] = ()) -> None:
    """Become accelerate's launcher of a module with its arguments, if the environment asks for it.

    Raises:
        ConfigError: The configuration does not exist.
    """
    command = launch_command(module, os.environ, arguments)
    if command is not None:
        # Without the variable: with one process accelerate sets nothing by which it would be seen as launched.
        rest = {name: value for name, value in os.environ.items() if name != VARIABLE}
        os.execve(command[0], command, rest)  # noqa: S606  (no shell)
