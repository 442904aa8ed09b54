"""From runs and their paired scores to arrays: the items that all runs answered, in one order, checked.

A difference between methods is a difference of the same items. So items that any run lacks are left out of all (an
evaluation that stopped early has fewer) and counted in a note; a base score that differs between runs is an error.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metagdpo.comparison.crossed import Block, Floats, Indices
from metagdpo.errors import EvidenceError
from metagdpo.records.comparison import RunResult
from metagdpo.records.paired import PairedScore
from metagdpo.records.verdict import SuiteFinding, Tier

Key = tuple[str, int]
"""Method and seed."""
Pairs = Mapping[Key, Mapping[str, Sequence[PairedScore]]]
"""(method, seed) -> suite -> paired scores of candidate and base."""


class Suite(NamedTuple):
    """One suite as all runs answered it."""

    suite: str
    tier: Tier
    skill: str
    margin: float
    before: Floats
    """[items]: the base's scores."""
    units: Indices
    """[items]: number of the item's cluster, or its own."""
    candidates: Mapping[Key, Floats]
    """[items] for every run."""

    def changes(self, method: str, seeds: Sequence[int]) -> Block:
        """Candidate - base of one method."""
        return Block(np.stack([self.candidates[method, seed] - self.before for seed in seeds]), self.units)

    def difference(self, first: str, second: str, seeds: Sequence[int]) -> Block:
        """First - second, seed by seed."""
        rows = [self.candidates[first, seed] - self.candidates[second, seed] for seed in seeds]
        return Block(np.stack(rows), self.units)


def align(runs: Sequence[RunResult], pairs: Pairs) -> tuple[tuple[Suite, ...], tuple[str, ...]]:
    """Every suite of the runs in the order of the first run's findings, and notes on what was left out.

    Raises:
        EvidenceError: A run has no paired scores, other suites or tiers than the first run, another score of the base,
            a score outside 0..1, an item twice, or no item in common with the others.
    """
    expected = _against_base(runs[0])
    for run in runs:
        _check_suites(run, runs[0], expected, pairs)
    suites, notes = [], []
    for finding in expected:
        by_run = {(run.method, run.seed): _by_item(run, finding.suite, pairs) for run in runs}
        suite, left_out = _suite(finding, by_run)
        suites.append(suite)
        if left_out:
            notes.append(
                f"Suite {finding.suite}: {left_out} of {left_out + len(suite.before)} items are left out, because not "
                "every run answered them. An evaluation that stops early compares fewer items."
            )
    return tuple(suites), tuple(notes)


def _against_base(run: RunResult) -> tuple[SuiteFinding, ...]:
    return tuple(finding for finding in run.findings if finding.against == "base")


def _name(run: RunResult) -> str:
    return f"{run.method} with seed {run.seed}"


def _check_suites(run: RunResult, first: RunResult, expected: Sequence[SuiteFinding], pairs: Pairs) -> None:
    known = {finding.suite: finding.tier for finding in expected}
    mine = {finding.suite: finding.tier for finding in _against_base(run)}
    if mine != known:
        differ = sorted(suite for suite in known.keys() | mine.keys() if known.get(suite) != mine.get(suite))
        message = (
            f"{_name(run)} was measured on other suites or tiers than {_name(first)}: {', '.join(differ)}. All methods "
            "are compared on the same suites: rerun `metagdpo compare`, which measures again what has changed."
        )
        raise EvidenceError(message)
    lacking = sorted(known.keys() - pairs.get((run.method, run.seed), {}).keys())
    if lacking:
        message = f"{_name(run)} has no paired scores of {', '.join(lacking)}. Rerun `metagdpo compare`."
        raise EvidenceError(message)


def _by_item(run: RunResult, suite: str, pairs: Pairs) -> dict[str, PairedScore]:
    scores = pairs[run.method, run.seed][suite]
    found = {score.item_id: score for score in scores}
    if len(found) < len(scores):
        twice = next(s.item_id for i, s in enumerate(scores) if any(s.item_id == t.item_id for t in scores[:i]))
        raise EvidenceError(f"{_name(run)}, suite {suite}: item {twice!r} is there twice. Score the suite again.")
    for score in scores:
        if not (0 <= score.before <= 1 and 0 <= score.candidate <= 1):
            message = (
                f"{_name(run)}, suite {suite}: item {score.item_id!r} has the scores {score.before} and "
                f"{score.candidate}; a score is a number in 0..1. Score the suite again."
            )
            raise EvidenceError(message)
    return found


def _suite(finding: SuiteFinding, by_run: Mapping[Key, Mapping[str, PairedScore]]) -> tuple[Suite, int]:
    """One suite from the items that every run has, and how many others there are."""
    first = next(iter(by_run.values()))
    common = [item for item in first if all(item in scores for scores in by_run.values())]
    every = {item for scores in by_run.values() for item in scores}
    if not common:
        message = f"suite {finding.suite}: no item was answered by all {len(by_run)} runs. Rerun `metagdpo compare`."
        raise EvidenceError(message)
    before = np.array([first[item].before for item in common], dtype=np.float64)
    for (method, seed), scores in by_run.items():
        other = next((item for item in common if scores[item].before != first[item].before), None)
        if other is not None:
            message = (
                f"suite {finding.suite}, item {other!r}: {method} with seed {seed} was compared with another score of "
                f"the base ({scores[other].before}, others {first[other].before}). Rerun `metagdpo compare`: all "
                "methods start from one base."
            )
            raise EvidenceError(message)
    suite = Suite(
        suite=finding.suite,
        tier=finding.tier,
        skill=finding.skill,
        margin=finding.margin,
        before=before,
        units=_units([first[item] for item in common]),
        candidates={
            key: np.array([scores[item].candidate for item in common], dtype=np.float64)
            for key, scores in by_run.items()
        },
    )
    return suite, len(every) - len(common)


def _units(scores: Sequence[PairedScore]) -> Indices:
    """Numbers of the clusters; an item without one is its own."""
    places: dict[tuple[bool, str], int] = {}
    names = [(score.cluster is None, score.item_id if score.cluster is None else score.cluster) for score in scores]
    return np.array([places.setdefault(name, len(places)) for name in names], dtype=np.int64)
