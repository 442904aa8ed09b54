"""The release of a candidate: verify every digest, then registry version -> ledger entry -> aliases -> read back.

The ledger is the truth, the registry follows from it. Every step looks for its own result first, so a release that was
killed anywhere is repeated to the same end, and a release that is complete does nothing. A refused verdict touches the
ledger only. A verdict that was measured against a champion which was replaced meanwhile is refused.
Left out: rollback, signatures.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock

from metagdpo.errors import Blocked, EvidenceError, Inconclusive, StoreError
from metagdpo.lineage.manifest import Provenance
from metagdpo.records.candidate import Candidate
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.release import LedgerEntry
from metagdpo.records.verdict import Decision, Verdict
from metagdpo.release import ledger
from metagdpo.release.describe import describe
from metagdpo.release.incumbent import champion_for
from metagdpo.release.model_registry import VERDICT, ModelRegistry, VersionFacts
from metagdpo.schema import Frozen, digest_file, digest_record, read_record

MANIFEST = "candidate.json"
CHAMPION, PREVIOUS = "champion", "previous"
LOCK_SECONDS = 60


class ReleaseOutcome(Frozen):
    """What a release found or did."""

    action: Literal["registered", "restored", "unchanged"]
    """`restored`: the ledger had it, the MLflow store did not, or not all of it."""
    version: int
    champion: int | None
    """Version that the alias points at now; null when the ledger's champion is not in this store."""
    previous: int | None
    entry: LedgerEntry
    text: str
    """One sentence for people."""


def release(
    verdict: Verdict,
    directory: Path,
    *,
    identity: ModelIdentity,
    policy: str,
    root: Path,
    ledger_path: Path,
    lock: Path,
    registry: ModelRegistry,
    run_id: str,
    provenance: Provenance,
    recorded_at: str,
    report: Path,
) -> ReleaseOutcome:
    """Release a candidate whose verdict is PROMOTE; record and raise any other verdict.

    Args:
        verdict: What the gate decided.
        directory: The candidate, with its manifest.
        identity: Digests of the candidate, computed from the directory just now.
        policy: Digest of registry/policy.yaml as it is now.
        root: Folder that the evidence's paths are relative to.
        ledger_path: registry/ledger.jsonl.
        lock: Lock file against two releases at once; not tracked by git.
        registry: Of the model's name.
        run_id: MLflow run of the training.
        provenance: Commit and dvc.lock digest; recorded with a new entry only.
        recorded_at: UTC now, ISO 8601; recorded with a new entry only.
        report: Where people read the evidence.

    Raises:
        EvidenceError: A digest does not hold, or the ledger's chain is broken; names each.
        Blocked: The verdict is BLOCK.
        Inconclusive: The verdict is INCONCLUSIVE.
        ModelError: The candidate holds a file type that is never registered.
        StoreError: MLflow, the disk or another release stands in the way.
    """
    candidate = read_record(directory / MANIFEST, Candidate)
    verify(verdict, candidate, directory, identity=identity, policy=policy, root=root)
    case = _Case(verdict, candidate, directory, ledger_path, registry, provenance, recorded_at)
    with _only_one(lock):
        if verdict.decision != "PROMOTE":
            raise _not_promoted(verdict, _refuse(case), report)
        return _promote(case, run_id)


def verify(
    verdict: Verdict, candidate: Candidate, directory: Path, *, identity: ModelIdentity, policy: str, root: Path
) -> None:
    """Recompute every digest that a release rests on.

    Raises:
        EvidenceError: Lists everything that does not hold.
    """
    pairs = {
        "the verdict's candidate": (verdict.candidate, candidate.identity),
        "the verdict's base": (verdict.base, candidate.base),
        "the verdict's run key": (verdict.run_key, candidate.run_key),
        "the verdict's data": (verdict.data, candidate.data),
        "the weights in the directory": (identity, candidate.identity),
    }
    wrong = [
        f"{what} is not that of {directory / MANIFEST} ({_difference(found, expected)})"
        for what, (found, expected) in pairs.items()
        if found != expected
    ]
    wrong += _changed_files(directory, candidate)
    wrong += [
        f"evidence {name} is missing" if not (root / name).is_file() else f"evidence {name} was changed after the gate"
        for name, digest in sorted(verdict.evidence.items())
        if not (root / name).is_file() or digest_file(root / name) != digest
    ]
    if verdict.policy != policy:
        wrong.append(f"registry/policy.yaml is {policy}, but the verdict was reached under {verdict.policy}")
    if wrong:
        lines = "\n".join(f"  {line}" for line in wrong)
        message = (
            f"nothing was released: the verdict and the files do not belong together.\n{lines}\n"
            "Run `dvc repro` to train, evaluate and decide again on what is there now."
        )
        raise EvidenceError(message)


def version_tags(verdict: Verdict, candidate: Candidate, run_id: str, provenance: Provenance) -> dict[str, str]:
    """The lineage that a version carries in the MLflow UI."""
    return {
        "git.commit": provenance.git_commit,
        "dvc.lock": provenance.dvc_lock,
        **{f"data.{Path(path).name}": digest for path, digest in sorted(candidate.data.items())},
        "base.model": candidate.base.reference,
        "base.weights": candidate.base.weights,
        "base.licence": candidate.base.licence,
        VERDICT: digest_record(verdict),
        "metagdpo.decision": verdict.decision,
        "metagdpo.candidate": digest_record(candidate),
        "metagdpo.run_key": candidate.run_key,
        "metagdpo.run_id": run_id,
        "metagdpo.method": f"{candidate.objective} ({candidate.method})",
        # Only where it says something: versions released before there was an alpha keep the tags that they have.
        **({"metagdpo.alpha": f"{candidate.alpha:g}"} if candidate.alpha < 1 else {}),
    }


@dataclass(frozen=True)
class _Case:
    """What one release is about; the same for all its steps."""

    verdict: Verdict
    candidate: Candidate
    directory: Path
    ledger_path: Path
    registry: ModelRegistry
    provenance: Provenance
    recorded_at: str

    def record(self, version: int | None) -> LedgerEntry:
        """Append the decision to the ledger: with a version a release, without one a refusal."""
        return ledger.append(
            self.ledger_path,
            lambda sequence, previous: LedgerEntry(
                sequence=sequence,
                previous=previous,
                decision=self.verdict.decision,
                action="refused" if version is None else "registered",
                model_name=self.registry.model_name,
                version=version,
                candidate=digest_record(self.candidate),
                base=self.candidate.base.weights,
                verdict=digest_record(self.verdict),
                trained=() if version is None else _trained(self.verdict),
                run_key=self.candidate.run_key,
                git_commit=self.provenance.git_commit,
                dvc_lock=self.provenance.dvc_lock,
                recorded_at=self.recorded_at,
            ),
        )


def _trained(verdict: Verdict) -> tuple[str, ...]:
    """The suites that the candidate was trained for."""
    return tuple(finding.suite for finding in verdict.findings if (finding.tier, finding.against) == ("target", "base"))


def _promote(case: _Case, run_id: str) -> ReleaseOutcome:
    name = case.registry.model_name
    digest = digest_record(case.verdict)
    releases = ledger.registered(ledger.read(case.ledger_path), name)
    known = next((entry for entry in reversed(releases) if entry.verdict == digest), None)
    facts = _facts(case, run_id, known)
    action: Literal["registered", "restored", "unchanged"]
    if known is None:
        _expect_champion(case)
        action, entry = "registered", _register(case, facts, None, releases)
    elif case.registry.problems(_version(known), case.directory, facts, thorough=False):
        action, entry = "restored", _register(case, facts, known, releases)
    else:
        action, entry = "unchanged", known
    releases = ledger.registered(ledger.read(case.ledger_path), name)
    if _follow_ledger(releases, case.registry) and action == "unchanged":
        action = "restored"
    champion = case.registry.alias(CHAMPION)
    return ReleaseOutcome(
        action=action,
        version=_version(entry),
        champion=champion,
        previous=case.registry.alias(PREVIOUS),
        entry=entry,
        text=_sentence(action, name, _version(entry), champion, _version(releases[-1])),
    )


def _expect_champion(case: _Case) -> None:
    """A verdict that was measured against yesterday's champion must not replace today's."""
    found = champion_for(ledger.read(case.ledger_path), case.registry.model_name, digest_record(case.candidate))
    if found == case.verdict.champion:
        return
    there, measured = (
        "no release" if champion.version is None else f"version {champion.version}"
        for champion in (found, case.verdict.champion)
    )
    message = f"nothing was released: the verdict was measured against {measured}, and the champion is now {there}. "
    raise EvidenceError(message + "Run `dvc repro` to compare with the champion of today.")


def _facts(case: _Case, run_id: str, known: LedgerEntry | None) -> VersionFacts:
    # The commit moves on after a release (the ledger itself is committed); a version keeps the one it came from.
    origin = case.provenance if known is None else Provenance(git_commit=known.git_commit, dvc_lock=known.dvc_lock)
    return VersionFacts(
        verdict=digest_record(case.verdict),
        run_id=run_id,
        tags=version_tags(case.verdict, case.candidate, run_id, origin),
        description=describe(case.verdict, case.candidate),
    )


def _register(
    case: _Case, facts: VersionFacts, known: LedgerEntry | None, releases: tuple[LedgerEntry, ...]
) -> LedgerEntry:
    """Version, read back, then its ledger entry."""
    # Numbers in the ledger never repeat, even when an emptied store counts from 1 again.
    at_least = _version(known) if known is not None else 1 + max(map(_version, releases), default=0)
    version = case.registry.provide(case.directory, facts, at_least=at_least)
    wrong = case.registry.problems(version, case.directory, facts, thorough=True)
    if wrong:
        listed = "; ".join(wrong)
        message = f"version {version} was written but reads back differently: {listed}. Run `dvc repro` to repair it."
        raise StoreError(message)
    return known if known is not None and known.version == version else case.record(version)


def _follow_ledger(releases: tuple[LedgerEntry, ...], registry: ModelRegistry) -> bool:
    """Point the aliases where the ledger says, read them back, and return whether one had to move."""
    champion = releases[-1]
    before = [entry for entry in releases if entry.verdict != champion.verdict]
    wanted = {PREVIOUS: before[-1].version if before else None, CHAMPION: champion.version}
    moved = False
    for alias, version in wanted.items():
        # A store that was emptied may not have the other versions; their own reruns restore them.
        if version is None or registry.alias(alias) == version or not registry.exists(version):
            continue
        registry.point(alias, version)
        if registry.alias(alias) != version:
            message = f"the alias {alias} did not move to version {version}. Run `dvc repro` to try again."
            raise StoreError(message)
        moved = True
    return moved


def _refuse(case: _Case) -> LedgerEntry:
    """The refusal's ledger entry, written once."""
    digest, name = digest_record(case.verdict), case.registry.model_name
    for entry in ledger.read(case.ledger_path):
        if (entry.action, entry.verdict, entry.model_name) == ("refused", digest, name):
            return entry
    return case.record(None)


def _version(entry: LedgerEntry) -> int:
    if entry.version is None:
        raise EvidenceError(
            f"ledger entry {entry.sequence} is a release without a version. Restore the ledger from git."
        )
    return entry.version


def _not_promoted(verdict: Verdict, entry: LedgerEntry, report: Path) -> Blocked | Inconclusive:
    kind, word = (Blocked, "worse") if verdict.decision == "BLOCK" else (Inconclusive, "undecided")
    lines = [
        f"  {f.skill} ({f.suite}, against the {f.against}): {f.before:.1%} -> {f.candidate:.1%}, "
        f"difference {100 * f.difference:+.1f} points "
        f"[{100 * f.low:+.1f}, {100 * f.high:+.1f}], accepted loss {100 * f.margin:.1f}"
        for f in verdict.findings
        if f.outcome == word and f.tier != "watched"
    ]
    reasons = [f"  {reason}" for reason in verdict.reasons]
    is_contaminated = verdict.overlaps is not None and bool(verdict.overlaps.suites)
    return kind(
        "\n".join(
            [
                f"the verdict is {verdict.decision}; the champion stays as it is.",
                *(reasons[:1] if is_contaminated and lines else []),
                *(lines or reasons),
                f"Evidence: {report}; recorded as entry {entry.sequence} of the ledger. Everything is kept.",
                _way_out(verdict.decision, is_contaminated=is_contaminated),
            ]
        )
    )


def _way_out(decision: Decision, *, is_contaminated: bool) -> str:
    if is_contaminated:
        return "Remove from the training data what repeats the suites (docs/gate.md), then run `dvc repro`."
    if decision == "BLOCK":
        return "Change the training (params.yaml, section `train`) and run `dvc repro`."
    return "More items decide it (registry/suites; verdict.json says how many); then run `dvc repro`."


def _changed_files(directory: Path, candidate: Candidate) -> list[str]:
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    listed = set(candidate.files)
    return [
        *(f"{directory / name} is missing" for name in sorted(listed - present)),
        *(f"{directory / name} is not in the manifest" for name in sorted(present - listed - {MANIFEST})),
        *(
            f"{directory / name} was changed after training"
            for name in sorted(listed & present)
            if digest_file(directory / name) != candidate.files[name]
        ),
    ]


def _difference(found: object, expected: object) -> str:
    """The fields that differ, or the two values."""
    if isinstance(found, ModelIdentity) and isinstance(expected, ModelIdentity):
        left, right = found.model_dump(), expected.model_dump()
    elif isinstance(found, dict) and isinstance(expected, dict):
        left, right = found, expected
    else:
        return f"{found} against {expected}"
    names = sorted(key for key in {*left, *right} if left.get(key) != right.get(key))
    return "; ".join(f"{name}: {left.get(name)} against {right.get(name)}" for name in names)


def _sentence(action: str, name: str, version: int, champion: int | None, ledger_champion: int | None) -> str:
    done = {
        "registered": f"{name} version {version} is registered",
        "restored": f"{name} version {version} is restored in the MLflow store from files and ledger",
        "unchanged": f"{name} is already released as version {version}; nothing new",
    }[action]
    if champion == version:
        return f"{done}; it is the champion."
    if champion is None:
        return f"{done}. The ledger's champion, version {ledger_champion}, is not in this store; rerun its parameters."
    return f"{done}. The champion is version {champion}, released later."


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold the release lock; a killed process gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path, timeout=LOCK_SECONDS):
            yield
    except filelock.Timeout as error:
        message = f"another release has held {path} for {LOCK_SECONDS} s. Wait for it to end, then rerun."
        raise StoreError(message) from error
