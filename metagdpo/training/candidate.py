"""The candidate's manifest: what it is, what it was made from, and the key under which its training is found again."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from metagdpo.errors import ModelError
from metagdpo.models.load import ADAPTER_FILES, adapter_digest, weights_digest
from metagdpo.records.candidate import Candidate
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.schema import digest_file, digest_json, read_record, write_record

MANIFEST = "candidate.json"


def run_key(params: Mapping[str, JsonValue], data: Mapping[str, str], base: ModelIdentity) -> str:
    """Digest of everything that decides a training: equal key, equal training."""
    return digest_json([dict(params), dict(data), base.model_dump(mode="json")])


def identify_candidate(directory: Path, base: ModelIdentity) -> ModelIdentity:
    """Digests of a candidate's directory as it is now; an adapter shares everything else with its base.

    Raises:
        ModelError: The directory holds neither a complete adapter nor weights.
    """
    if any((directory / name).is_file() for name in ADAPTER_FILES):
        return base.model_copy(update={"adapter": adapter_digest(directory)})
    if not any(directory.glob("*.safetensors")):
        raise ModelError(f"{directory} holds neither an adapter nor weights. Run `dvc repro train`.")
    # Configuration and tokenizer were copied from the base byte for byte; `files` in the manifest holds them to it.
    return base.model_copy(update={"weights": weights_digest(directory)})


def write_manifest(
    directory: Path,
    base: ModelIdentity,
    *,
    key: str,
    objective: str,
    data: dict[str, str],
    params: dict[str, JsonValue],
    steps: int,
    n_groups: int,
    n_skipped_groups: int,
) -> Candidate:
    """Write candidate.json into a finished directory; every other file is named in it with its digest.

    Raises:
        StoreError: It cannot be written.
    """
    identity = identify_candidate(directory, base)
    candidate = Candidate(
        identity=identity,
        base=base,
        method="full" if identity.adapter is None else "lora",
        objective=objective,
        run_key=key,
        data=data,
        params=params,
        steps=steps,
        n_groups=n_groups,
        n_skipped_groups=n_skipped_groups,
        files=file_digests(directory),
    )
    write_record(directory / MANIFEST, candidate)
    return candidate


def file_digests(directory: Path) -> dict[str, str]:
    """Digest of every file of a candidate's directory besides its manifest, by relative path."""
    return {
        path.relative_to(directory).as_posix(): digest_file(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def read_manifest(directory: Path) -> Candidate:
    """Read candidate.json.

    Raises:
        DataError: There is none, or it is not a manifest.
    """
    return read_record(directory / MANIFEST, Candidate)
