"""The incumbent: which release a candidate has to stand up to, and fetching that release to measure it.

A candidate that was released already keeps the incumbent that it was measured against then, so that repeating a run
repeats its verdict.
"""

from pathlib import Path

from metagdpo.errors import EvidenceError, StoreError
from metagdpo.records.candidate import Candidate
from metagdpo.records.champion import Champion
from metagdpo.records.release import LedgerEntry
from metagdpo.release import ledger
from metagdpo.release.model_registry import ModelRegistry, check_file_types
from metagdpo.schema import digest_file, digest_record, read_record

MANIFEST = "candidate.json"


def champion_for(entries: tuple[LedgerEntry, ...], model_name: str, candidate: str) -> Champion:
    """The newest release, or the newest before the candidate's own first one.

    Args:
        entries: The ledger.
        model_name: Registered model.
        candidate: Digest over the candidate's manifest.
    """
    releases = ledger.registered(entries, model_name)
    own = next((number for number, entry in enumerate(releases) if entry.candidate == candidate), len(releases))
    before = releases[:own]
    if not before:
        return Champion()
    retained = {suite: None for entry in before for suite in entry.trained}  # each once, in the order of the releases
    return Champion(
        version=before[-1].version,
        entry=ledger.digest(before[-1]),
        manifest=before[-1].candidate,
        retained=tuple(retained),
    )


def fetch(champion: Champion, registry: ModelRegistry, folder: Path) -> Path:
    """A directory with the champion's files, every byte checked against its manifest, and that against the ledger.

    Args:
        champion: Which release.
        registry: Where its files are.
        folder: Where they are put; what is there already and right is not fetched again.

    Raises:
        EvidenceError: The files are not those that were released; names each.
        ModelError: They hold a type that is never loaded.
        StoreError: The store does not have the version, or cannot be reached.
    """
    if champion.version is None or champion.manifest is None:
        raise EvidenceError("there is no champion to fetch: the ledger has no release before this candidate.")
    directory = folder / champion.manifest.removeprefix("sha256:")[:16]
    if not (directory / MANIFEST).is_file() or _wrong(directory, champion.manifest):
        if not registry.exists(champion.version):
            message = (
                f"the champion, version {champion.version} of {registry.model_name}, is in the ledger but not in this "
                "MLflow store, so nothing can be compared with it. Restore the store, or rerun the champion's "
                "parameters (`dvc repro` registers it again); `champion: false` in registry/policy.yaml compares with "
                "the base only."
            )
            raise StoreError(message)
        registry.download(champion.version, directory)
    check_file_types(directory)
    wrong = _wrong(directory, champion.manifest)
    if wrong:
        listed = "; ".join(wrong)
        message = f"version {champion.version} in the MLflow store is not what was released: {listed}. "
        raise EvidenceError(message + "Restore the store's artifacts; nothing was compared.")
    return directory


def _wrong(directory: Path, manifest: str) -> list[str]:
    """Everything by which a directory is not the release with this manifest."""
    candidate = read_record(directory / MANIFEST, Candidate)
    if digest_record(candidate) != manifest:
        return [f"{MANIFEST} is {digest_record(candidate)}, the ledger says {manifest}"]
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()} - {MANIFEST}
    return [
        *(f"{name} is missing" for name in sorted(set(candidate.files) - present)),
        *(f"{name} is not in the manifest" for name in sorted(present - set(candidate.files))),
        *(
            f"{name} was changed"
            for name in sorted(present & set(candidate.files))
            if digest_file(directory / name) != candidate.files[name]
        ),
    ]
