"""How long the stages of a run took on this machine: what is left can then be estimated; no result depends on it."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from metagdpo.runs import Run
from metagdpo.schema import Frozen, append_jsonl, read_journal

JOURNAL = Path(".work/compare/seconds.jsonl")
_LOADED = time.perf_counter()  # scripts import this module first: what loads after it takes seconds as well


class StageTime(Frozen):
    """One stage of one run, from start to end."""

    method: str
    seed: int
    stage: str
    seconds: float


def keep_time(run: Run, stage: str) -> None:
    """Keep how long this process took for a stage that has ended well; of the main job nothing is kept.

    Raises:
        StoreError: The journal cannot be written.
    """
    if run.method is not None and run.seed is not None:
        seconds = time.perf_counter() - _LOADED
        append_jsonl(JOURNAL, [StageTime(method=run.method, seed=run.seed, stage=stage, seconds=seconds)])


def read_times(path: Path = JOURNAL) -> list[StageTime]:
    """What has been kept; nothing where no run has ended yet."""
    return list(read_journal(path, StageTime))


def seconds_left(left: Sequence[tuple[str, int]], times: Iterable[StageTime]) -> float | None:
    """Seconds that runs will take, from those that were timed; None when none was.

    A run is taken to last as long as its method's runs did on average, or all runs where its method has none. A stage
    that went on after a kill was timed twice, and the longer time counts: it is nearer to that of a whole one.

    Args:
        left: Method and seed of each run.
        times: Of stages that ended.
    """
    longest: dict[tuple[str, int], dict[str, float]] = {}
    for found in times:
        stages = longest.setdefault((found.method, found.seed), {})
        stages[found.stage] = max(found.seconds, stages.get(found.stage, 0.0))
    # A run that did not get to its last stage would make runs look short.
    n_stages = max((len(stages) for stages in longest.values()), default=0)
    whole = {key: sum(stages.values()) for key, stages in longest.items() if len(stages) == n_stages}
    if not whole:
        return None
    total = 0.0
    for method, _ in left:
        mine = [seconds for (name, _), seconds in whole.items() if name == method] or list(whole.values())
        total += sum(mine) / len(mine)
    return total
