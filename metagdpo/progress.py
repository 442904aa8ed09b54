"""What people see while they wait: one bar for long work, one closing line for each stage."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from metagdpo.errors import MetagdpoError

T = TypeVar("T")


def bar(items: Iterable[T], *, total: int | None, what: str, unit: str) -> Iterator[T]:
    """Yield items while a bar shows count, rate and time left on standard error."""
    from tqdm import tqdm

    yield from tqdm(items, total=total, desc=what, unit=f" {unit}", dynamic_ncols=True, mininterval=1.0)


def done(stage: str, wrote: str, look_next: str) -> None:
    """Print the stage's closing line: what it wrote and what to look at next."""
    print(f"[{stage}] wrote {wrote}\n[{stage}] next: {look_next}", flush=True)


def run_stage(stage: str, main: Callable[[], None]) -> None:
    """Run a stage; an expected error becomes one message and its exit code, without a traceback.

    A killed `dvc repro` may leave its stage running; the rerun waits for it here instead of working beside it.
    """
    import filelock

    work = Path(".work")
    work.mkdir(exist_ok=True)
    lock = filelock.FileLock(work / f"{stage}.running")
    try:
        try:
            held = lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"[{stage}] waiting: this stage is still running in another process", flush=True)
            held = lock.acquire()
        with held:
            main()
    except MetagdpoError as error:
        print(f"[{stage}] {type(error).__name__}: {error}", flush=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print(f"[{stage}] interrupted; finished work is kept. Run `dvc repro` to go on.", flush=True)
        raise SystemExit(130) from None
