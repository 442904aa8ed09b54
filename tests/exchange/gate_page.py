"""docs/gate-anywhere.md with what its commands really print; run as a script to write it anew."""

import contextlib
import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from metagdpo.cli import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/gate-anywhere.md"


def page() -> str:
    """The page, every command run in the project's root."""
    return re.sub(r"```console\n\$ ([^\n]*)\n.*?```", _run, PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def _run(block: re.Match[str]) -> str:
    program, *words = shlex.split(block[1])
    assert program == "metagdpo"
    with contextlib.chdir(ROOT):
        done = CliRunner().invoke(main, words)
    return f"```console\n$ {block[1]}\n{done.output}exit {done.exit_code}\n```"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
