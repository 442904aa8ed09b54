"""A run's files -> its result under the gate, refused where they are not of this training on this data.

DVC leaves the files of an earlier version where a later one failed. So a run counts only if its candidate was trained
with the parameters and the data of now, and if its scores are those of that candidate.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from metagdpo.comparison.settings import SECTIONS
from metagdpo.errors import EvidenceError
from metagdpo.evaluation.items import Item
from metagdpo.evaluation.pairing import pair
from metagdpo.evaluation.suite import load_suites
from metagdpo.evaluation.validation import InterpolateParams
from metagdpo.gate.comparisons import comparisons, designs
from metagdpo.gate.decide import SuiteInfo, decide
from metagdpo.gate.policy import Policy
from metagdpo.overlap import Index, training_overlaps
from metagdpo.planning import read_evaluation, suite_infos
from metagdpo.records.candidate import Candidate
from metagdpo.records.champion import Champion
from metagdpo.records.comparison import RunResult
from metagdpo.records.drift import Drift
from metagdpo.records.interpolation import Interpolation
from metagdpo.records.item_score import EvaluationManifest, ItemScore
from metagdpo.records.overlap import TrainingOverlaps
from metagdpo.records.paired import PairedScore
from metagdpo.records.training_cost import TrainingCost
from metagdpo.runs import Run
from metagdpo.schema import digest_file, digest_json, read_jsonl, read_record
from metagdpo.trained_on import trained_on

AGAIN = "Run `metagdpo compare`: it makes what is out of date"


class Gated(NamedTuple):
    """A run that was judged."""

    result: RunResult
    pairs: dict[str, list[PairedScore]]
    """Its scores beside the base's, by suite."""


class Court(NamedTuple):
    """What all runs of the comparison are judged by."""

    policy: Policy
    suites: Sequence[SuiteInfo]
    base_scores: Sequence[ItemScore]
    base_manifest: EvaluationManifest
    overlaps: Callable[[Mapping[str, str]], TrainingOverlaps]
    """What of the data files repeats the suites."""


def open_court(policy: Policy, suites: Path, items: Path, base: Path) -> Court:
    """Read what all runs are judged by.

    Args:
        policy: Of the gate.
        suites: Folder of their files.
        items: Folder of their items.
        base: Folder of the base's evaluation, as the runs were evaluated.

    Raises:
        DataError: A file is missing or damaged.
    """
    declared = load_suites(suites)
    scores, manifest = read_evaluation(base)
    known: dict[str, TrainingOverlaps] = {}

    @functools.cache
    def index() -> Index:
        return Index(
            {suite.name: list(read_jsonl(items / f"{suite.name}.jsonl", Item)) for suite in declared}, policy.overlap
        )

    def overlaps(data: Mapping[str, str]) -> TrainingOverlaps:
        key = digest_json(dict(data))
        if key not in known:
            known[key] = training_overlaps(index(), trained_on(data))
        return known[key]

    return Court(policy, suite_infos(declared), scores, manifest, overlaps)


def current_candidate(run: Run) -> Candidate:
    """The candidate of a run whose files are all there and of now; looks at no score.

    Raises:
        ConfigError: The parameters are not valid.
        DataError: A file is damaged.
        EvidenceError: Something is missing or of an earlier version; says what.
    """
    manifest = run.candidate / "candidate.json"
    names = ("scores.jsonl", "manifest.json", "drift.json")
    needed = (manifest, run.cost, run.interpolation, *(run.evaluation / name for name in names))
    missing = [path for path in needed if not path.is_file()]
    if missing:
        raise EvidenceError(f"not finished: {missing[0]} is not there")
    candidate = read_record(manifest, Candidate)
    for name, was in candidate.params.items():
        now = run.section(name, SECTIONS[name]).model_dump(mode="json") if name in SECTIONS else None
        if now != was:
            raise EvidenceError(f"{run.candidate} was trained with another `{name}` than {run.where} has. {AGAIN}")
    for path, digest in sorted(candidate.data.items()):
        if _digest(path) != digest:
            raise EvidenceError(f"{run.candidate} was trained on another {path}. {AGAIN}")
    alphas = run.section("interpolate", InterpolateParams).alphas
    chosen = read_record(run.interpolation, Interpolation).chosen
    if candidate.alpha != chosen or chosen not in alphas:
        raise EvidenceError(f"{run.interpolation} is not of this candidate, or of other alphas. {AGAIN}")
    scored = read_record(run.evaluation / "manifest.json", EvaluationManifest).model
    if scored != candidate.identity:
        raise EvidenceError(f"{run.evaluation} is of another candidate. {AGAIN}")
    return candidate


def judge(run: Run, label: str, court: Court) -> Gated:
    """Gate a run against the base, as a candidate of the main job is; the champion is left out.

    Raises:
        ConfigError: The parameters, the policy or the suites are not valid.
        DataError: A file is damaged.
        EvidenceError: Something is missing, of an earlier version, or must not be compared; says what.
    """
    assert run.method is not None
    assert run.seed is not None
    candidate = current_candidate(run)
    scores, manifest = read_evaluation(run.evaluation)
    pairs = pair(
        court.base_scores,
        court.base_manifest,
        scores,
        manifest,
        reference=candidate.base,
        candidate=candidate.identity,
    )
    drift = read_record(run.evaluation / "drift.json", Drift)
    found = comparisons(court.policy, court.suites, Champion(), pairs, None, designs(court.base_scores))
    ruling = decide(court.policy, found, drift, court.overlaps(candidate.data))
    result = RunResult(
        method=run.method,
        label=label,
        seed=run.seed,
        decision=ruling.decision,
        reasons=ruling.reasons,
        findings=ruling.findings,
        drift=drift,
        cost=read_record(run.cost, TrainingCost),
        alpha=candidate.alpha,
        run_key=candidate.run_key,
    )
    return Gated(result, pairs)


def _digest(path: str) -> str | None:
    file = Path(path)
    return _digest_at(path, file.stat().st_mtime_ns) if file.is_file() else None


@functools.cache
def _digest_at(path: str, _changed: int) -> str:
    """All runs name the same few files."""
    return digest_file(Path(path))
