"""What people see while they wait: one bar for long work, one closing line for each stage."""

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from metagdpo.errors import MetagdpoError

T = TypeVar("T")

SAID_ONCE = 3.0
"""Seconds that other processes of one stage leave the first to say what is wrong, and to end them all."""


def bar(items: Iterable[T], *, total: int | None, what: str, unit: str, show: bool = True) -> Iterator[T]:
    """Yield items while a bar shows count, rate and time left on standard error."""
    from tqdm import tqdm

    yield from tqdm(
        items, total=total, desc=what, unit=f" {unit}", dynamic_ncols=True, mininterval=1.0, disable=not show
    )


def note(stage: str, text: str) -> None:
    """Print one line about how a stage goes on."""
    print(f"[{stage}] {text}", flush=True)


def done(stage: str, wrote: str, look_next: str) -> None:
    """Print the stage's closing line: what it wrote and what to look at next."""
    print(f"[{stage}] wrote {wrote}\n[{stage}] next: {look_next}", flush=True)


def run_stage(stage: str, main: Callable[[], None], *, of: Sequence[str] = ()) -> None:
    """Run a stage; an expected error becomes one message and its exit code, without a traceback.

    Args:
        stage: Its name.
        main: What it does.
        of: Which of the stage's runs it is; different ones may work side by side.

    A killed `dvc repro` may leave its stage running; the rerun waits for it here instead of working beside it. Of
    several processes that work on a stage together, only the first holds the stage.
    """
    first = int(os.environ.get("RANK", "0")) == 0
    try:
        with _held("-".join((stage, *of))) if first else contextlib.nullcontext():
            main()
    except MetagdpoError as error:
        if not first:
            time.sleep(SAID_ONCE)
        print(f"[{stage}] {type(error).__name__}: {error}", flush=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        if first:
            print(f"[{stage}] interrupted; finished work is kept. Run `dvc repro` to go on.", flush=True)
        raise SystemExit(130) from None
    except Exception:  # noqa: BLE001  (the last border: Python's own code, 1, would be taken for a BLOCK)
        traceback.print_exc()
        raise SystemExit(MetagdpoError.exit_code) from None


def _held(stage: str) -> "contextlib.AbstractContextManager[object]":
    import filelock

    work = Path(".work")
    work.mkdir(exist_ok=True)
    lock = filelock.FileLock(work / f"{Path(stage).name}.running")
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"[{stage}] waiting: this stage is still running in another process", flush=True)
        return lock.acquire()
