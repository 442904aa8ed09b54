"""Scores batch by batch: what was paid for survives a kill, and a suite may end before its last item.

A batch is the next `items_per_look` items in the suite's fixed random order, longer by the rest of a cluster: every
look sees whole clusters. Every finished batch is appended to a journal of its suite, under everything that decides its
scores and nothing else: a rerun, or a full evaluation after one that stopped early, pays only for what is missing.

Without a stopping rule the suites follow each other; with one they advance by one batch in turn, so that each has
evidence early.

Left out: several processes on one journal (a stage runs alone).
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metagdpo.evaluation.items import Item
from metagdpo.evaluation.suite import Suite
from metagdpo.records.item_score import ItemScore
from metagdpo.schema import Frozen, append_jsonl, read_journal

Stop = Callable[[Mapping[str, Sequence[ItemScore]]], frozenset[str]]
"""From the scores so far, by suite, to the suites that need no more."""


class ScoredBatch(Frozen):
    """One line of a suite's journal."""

    key: str
    """Digest of everything that decides the scores."""
    start: int
    """Position of the first item."""
    seconds: float
    scores: tuple[ItemScore, ...]


class Asked(NamedTuple):
    """A suite that is to be scored."""

    suite: Suite
    items: Sequence[Item]
    key: str
    """Digest of everything that decides its scores."""


def score_in_rounds(
    asked: Sequence[Asked],
    score: Callable[[Suite, Sequence[Item]], Sequence[ItemScore]],
    *,
    items_per_look: int,
    work: Path,
    stop: Stop | None = None,
) -> dict[str, list[ItemScore]]:
    """Score suites until all items are scored or the stopping rule has had enough.

    Args:
        asked: The suites with their items.
        score: Scores a batch of a suite's items; called only for batches that the journal lacks.
        items_per_look: Items of a batch.
        work: Folder of the journals.
        stop: The stopping rule, asked after every round; None to score every item.

    Returns:
        For each suite the scores of its first items, in order; of all of them where it was not stopped.
    """
    streams = [_Stream(each, score, items_per_look, work) for each in asked]
    try:
        if stop is None:
            for stream in streams:
                while not stream.complete:
                    stream.advance()
                stream.finish()
        else:
            _take_turns(streams, stop)
    finally:
        for stream in streams:
            stream.bar.close()  # also of one that failed
    return {stream.name: stream.scores for stream in streams}


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Cut items into runs of `size`, each as much longer as the cluster that it ends in."""
    start = 0
    while start < len(items):
        end = min(start + size, len(items))
        while end < len(items) and items[end].cluster is not None and items[end].cluster == items[end - 1].cluster:
            end += 1
        yield items[start:end]
        start = end


def _take_turns(streams: "Sequence[_Stream]", stop: Stop) -> None:
    going = list(streams)
    while going:
        for stream in going:
            stream.advance()
        enough = stop({stream.name: tuple(stream.scores) for stream in streams})
        over = [stream for stream in going if stream.complete or stream.name in enough]
        going = [stream for stream in going if stream not in over]
        for stream in over:
            stream.finish()


class _Stream:
    """One suite under way, with its bar."""

    def __init__(
        self,
        asked: Asked,
        score: Callable[[Suite, Sequence[Item]], Sequence[ItemScore]],
        items_per_look: int,
        work: Path,
    ) -> None:
        self.name = asked.suite.name
        self.scores: list[ItemScore] = []
        self._asked, self._score = asked, score
        self._left = list(batches(asked.items, items_per_look))[::-1]
        self._path = work / f"{self.name}-{asked.key.removeprefix('sha256:')[:16]}.jsonl"
        self._kept = {batch.start: batch for batch in read_journal(self._path, ScoredBatch) if batch.key == asked.key}
        self._n_kept, self._seconds = 0, 0.0

    @property
    def complete(self) -> bool:
        """Whether every item is scored."""
        return not self._left

    @functools.cached_property
    def bar(self) -> Any:
        """Of the whole suite; it appears with the first batch."""
        from tqdm import tqdm

        total = len(self._asked.items)
        return tqdm(total=total, desc=self.name, unit=" items", dynamic_ncols=True, mininterval=1.0)

    def advance(self) -> None:
        """Score the next batch, or take it from the journal."""
        items = self._left.pop()
        progress = self.bar
        batch = self._kept.get(len(self.scores))
        if batch is None:
            start = time.perf_counter()
            scores = tuple(self._score(self._asked.suite, items))
            seconds = time.perf_counter() - start
            batch = ScoredBatch(key=self._asked.key, start=len(self.scores), seconds=seconds, scores=scores)
            append_jsonl(self._path, [batch])
            self._seconds += seconds
        else:
            self._n_kept += len(items)
        self.scores += batch.scores
        progress.update(len(items))

    def finish(self) -> None:
        """Close the bar and say what was done."""
        self.bar.close()
        n, total = len(self.scores), len(self._asked.items)
        reached = f"{n} items" if n == total else f"the first {n} of {total} items"
        kept = f", {self._n_kept} of them kept from before" if self._n_kept else ""
        self.bar.write(f"{self.name}: {reached} in {self._seconds:.0f} s{kept}")
