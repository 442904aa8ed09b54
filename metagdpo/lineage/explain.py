"""The chain of the last run in one look: question pool -> MetaKL -> groups -> candidate -> verdict -> version.

Reads files only; a stage that has not run yet says so.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metagdpo.records.annotation import Annotation
from metagdpo.records.candidate import Candidate
from metagdpo.records.group import ResponseGroup
from metagdpo.records.knowledge import KnowledgeUnit
from metagdpo.records.proficiency import ProficiencyProfile
from metagdpo.records.question import Question
from metagdpo.records.release import LedgerEntry
from metagdpo.records.selection import DroppedQuestion, SelectedQuestion
from metagdpo.records.solution import Solution
from metagdpo.records.verdict import Verdict
from metagdpo.release import ledger
from metagdpo.schema import digest_record, read_jsonl, read_record


@dataclass(frozen=True)
class Line:
    """One link of the chain."""

    what: str
    found: str
    look: str
    """The command that shows more."""

    def __str__(self) -> str:
        """As the command line prints it."""
        return f"{self.what:<10} {self.found}\n{'':<10} $ {self.look}"


def explain(root: Path) -> list[Line]:
    """The links of the last run, in order.

    Args:
        root: The project's root.

    Raises:
        DataError: A file is there but is not what its stage writes.
        EvidenceError: The ledger's chain is broken.
    """
    return [
        _line(root, "questions", "data/questions.jsonl", _questions, "head -1 data/questions.jsonl"),
        _line(root, "skills", "data/annotations.jsonl", _annotations, "head -1 data/annotations.jsonl"),
        _line(root, "units", "data/knowledge.jsonl", _units, "head -3 data/knowledge.jsonl"),
        _line(root, "mastery", "data/proficiency.json", _mastery, "less data/proficiency.md"),
        _line(root, "MetaKL", "data/metakl.jsonl", _metakl, "metagdpo knowledge units"),
        _line(root, "solutions", "data/solutions.jsonl", _solutions, "less data/solutions.json"),
        _line(root, "groups", "data/groups.jsonl", _groups, "less data/groups.json"),
        _line(root, "candidate", "models/candidate/candidate.json", _candidate, "less models/candidate/candidate.json"),
        _line(root, "verdict", "reports/verdict.json", _verdict, "less reports/report.md"),
        _line(root, "version", "registry/ledger.jsonl", _release(root), "metagdpo ui"),
    ]


def _line(root: Path, what: str, file: str, tell: Callable[[Path], str], look: str) -> Line:
    path = root / file
    if not path.exists():
        return Line(what, f"not yet: {file} does not exist", "dvc repro")
    return Line(what, tell(path), look)


def _questions(path: Path) -> str:
    domains = Counter(question.domain for question in read_jsonl(path, Question))
    return f"{domains.total()} in the pool: {_listed(domains)}"


def _annotations(path: Path) -> str:
    counts = [len(annotation.skills) for annotation in read_jsonl(path, Annotation)]
    return f"{sum(counts)} labels on {len(counts)} questions; {counts.count(0)} questions without any"


def _units(path: Path) -> str:
    units = list(read_jsonl(path, KnowledgeUnit))
    widest = max(units, key=lambda unit: len(unit.question_ids), default=None)
    tail = f"; the widest is {widest.name} with {len(widest.question_ids)} questions" if widest else ""
    return f"{len(units)} units from {sum(len(unit.aliases) for unit in units)} labels{tail}"


def _mastery(path: Path) -> str:
    profile = read_record(path, ProficiencyProfile)
    weakest = sorted(profile.units, key=lambda unit: (unit.average, unit.unit))[:3]
    named = ", ".join(f"{unit.unit} {unit.average:.0%}" for unit in weakest)
    return f"the probed models answer {profile.accuracy:.1%} of the pool; weakest units: {named or 'none'}"


def _metakl(path: Path) -> str:
    kept = Counter(row.reason for row in read_jsonl(path, SelectedQuestion))
    dropped_file = path.with_name("dropped.jsonl")
    rows = read_jsonl(dropped_file, DroppedQuestion) if dropped_file.exists() else ()
    dropped = Counter(row.reason for row in rows)
    return f"{kept.total()} selected ({_listed(kept)}), {dropped.total()} left out ({_listed(dropped)})"


def _solutions(path: Path) -> str:
    origins = Counter(row.origin for row in read_jsonl(path, Solution))
    return f"worked solutions of {origins.total()} questions: {_listed(origins)}"


def _groups(path: Path) -> str:
    groups, responses, degenerate, correct = 0, 0, 0, 0.0
    for group in read_jsonl(path, ResponseGroup):
        groups += 1
        degenerate += group.degenerate
        responses += len(group.responses)
        correct += sum(response.correct for response in group.responses)
    share = f"{correct / responses:.1%} correct" if responses else "none"
    return f"{groups} groups of {responses} responses ({share}); {degenerate} without preference"


def _candidate(path: Path) -> str:
    found = read_record(path, Candidate)
    at = f", at alpha {found.alpha:g}" if found.alpha < 1 else ""
    return (
        f"{found.objective} ({found.method}) on {found.base.reference}: {found.steps} steps over {found.n_groups} "
        f"groups{at}; run key {_short(found.run_key)}, manifest {_short(digest_record(found))}"
    )


def _verdict(path: Path) -> str:
    found = read_record(path, Verdict)
    outcomes = Counter(finding.outcome for finding in found.findings)
    version = found.champion.version
    against = "against the base" if version is None else f"against the base and version {version}"
    drift = f"; drift {found.drift.kl_per_token:.4f} nats a token" if found.drift else ""
    reason = f" - {found.reasons[0]}" if found.reasons else ""
    return f"{found.decision} on {len(found.findings)} comparisons {against} ({_listed(outcomes)}){drift}{reason}"


def _release(root: Path) -> Callable[[Path], str]:
    def tell(path: Path) -> str:
        entries = ledger.read(path)
        if not entries:
            return "the ledger is empty: nothing was released or refused yet"
        releases = [entry for entry in entries if entry.action == "registered"]
        champion = f"champion is version {releases[-1].version}" if releases else "there is no champion yet"
        return f"{_fate(root, entries)}; {champion}; {len(entries)} decisions in the ledger"

    return tell


def _fate(root: Path, entries: tuple[LedgerEntry, ...]) -> str:
    """What became of the last run's verdict."""
    path = root / "reports" / "verdict.json"
    digest = digest_record(read_record(path, Verdict)) if path.exists() else None
    for entry in reversed(entries):
        if entry.verdict == digest:
            return "refused" if entry.version is None else f"{entry.model_name} version {entry.version}"
    return "this verdict is not released yet"


def _listed(counts: Counter[Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
