"""Where a model lies, what it is, and loading it: safetensors and JSON only, never code from the model.

Digests of large files are remembered in .work/digests.json by path, size and times, so that asking again is instant.
"""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from metagdpo.errors import ConfigError, ModelError, StoreError
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.schema import digest_file, digest_json, digest_text, write_json

DIGEST_CACHE = Path(".work/digests.json")

SAFE_SUFFIXES = (".safetensors", ".json", ".txt", ".jinja", ".model", ".md")
SAFE_NAMES = ("LICENSE", "LICENCE", "NOTICE", "COPYING", "USE_POLICY", ".gitattributes", ".gitignore")
CONFIG_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")

_CACHED_FROM_BYTES = 1_000_000
_HUB = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
_ASSET = re.compile(r"asset:(?P<name>\w[\w.-]*)")
_TO_GET_ASSETS = "Run `dvc repro -f assets`."


def locate(reference: str, assets: Path = Path("assets")) -> Path:
    """Directory of a model reference; a hub model is fetched into the hub's cache if it is not there yet.

    Args:
        reference: `asset:<name>`, `hub:<owner>/<name>@<40-hex revision>`, or a local directory.
        assets: Folder that the stage `assets` fills.

    Raises:
        ConfigError: The reference has a wrong form, for example a hub model without a pinned revision.
        ModelError: There is no such directory, or the hub cannot be reached and its cache does not have the model.
    """
    if reference.startswith("hub:"):
        return _from_hub(reference)
    if reference.startswith("asset:"):
        match = _ASSET.fullmatch(reference)
        if match is None:
            raise ConfigError(f"`{reference}` is not `asset:<name>` (letters, digits, dots, dashes, underscores).")
        path = assets / match["name"]
        if not path.is_dir():
            raise ModelError(f"the asset {path} is not there. {_TO_GET_ASSETS}")
        return path
    path = Path(reference)
    if not path.is_dir():
        message = (
            f"there is no model directory `{reference}`. Give `asset:<name>` (names: registry/assets.yaml), "
            "`hub:<owner>/<name>@<40-hex revision>`, or the path of a directory with config.json and safetensors."
        )
        raise ModelError(message)
    return path


def check_directory(path: Path) -> None:
    """Refuse a model directory with files of kinds that can carry code, or without configuration or weights.

    Raises:
        ModelError: Names the first file that is refused or the one that is missing.
    """
    for file in sorted(p for p in path.rglob("*") if p.is_file() and ".git" not in p.relative_to(path).parts[:-1]):
        if file.suffix not in SAFE_SUFFIXES and not file.name.startswith(SAFE_NAMES):
            message = (
                f"{file} is refused: only safetensors, JSON, text, tokenizer models and licences are read, because "
                f"other formats (`{file.suffix or file.name}`) can run code or cannot be checked. Convert weights to "
                "safetensors and remove the file."
            )
            raise ModelError(message)
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json, so it is not a transformers model directory. {_TO_GET_ASSETS}")
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"{path} has no *.safetensors. Convert the weights with `save_pretrained` first.")


def identify(reference: str, path: Path, *, adapter: Path | None = None, licence: str = "unknown") -> ModelIdentity:
    """The digests of a model directory, and of an adapter directory if there is one.

    Raises:
        ModelError: The directory has no weights or no configuration, or the adapter is incomplete.
    """
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise ModelError(f"{path} has no config.json or no *.safetensors, so it is not a model. {_TO_GET_ASSETS}")
    return ModelIdentity(
        reference=reference,
        weights=weights_digest(path),
        config=_digest_named(path, CONFIG_FILES),
        tokenizer=_digest_named(path, TOKENIZER_FILES),
        chat_template=digest_text(chat_template(path)),
        adapter=None if adapter is None else adapter_digest(adapter),
        licence=licence,
    )


def weights_digest(path: Path) -> str:
    """Digest over the sorted (name, digest) pairs of a directory's safetensors files."""
    return digest_json([[file.name, remembered_digest(file)] for file in sorted(path.glob("*.safetensors"))])


def adapter_digest(path: Path) -> str:
    """Digest over an adapter's safetensors and configuration.

    Raises:
        ModelError: One of the two files is missing.
    """
    for name in ADAPTER_FILES:
        if not (path / name).is_file():
            raise ModelError(f"{path} has no {name}, so it is not a complete adapter. Run `dvc repro train`.")
    return _digest_named(path, ADAPTER_FILES)


def chat_template(path: Path) -> str:
    """The chat template's text, wherever the model keeps it; empty when it has none."""
    if (path / "chat_template.jinja").is_file():
        return (path / "chat_template.jinja").read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (path / name).is_file():
            found = json.loads((path / name).read_text(encoding="utf-8")).get("chat_template")
            if found:
                return found if isinstance(found, str) else json.dumps(found, sort_keys=True)
    return ""


def verify(identity: ModelIdentity, path: Path) -> None:
    """Compare a directory with the digests that were recorded.

    Raises:
        ModelError: Names every digest that differs.
    """
    found = identify(identity.reference, path, licence=identity.licence)
    fields = ("weights", "config", "tokenizer", "chat_template")
    different = [name for name in fields if getattr(found, name) != getattr(identity, name)]
    if different:
        name = different[0]
        message = (
            f"{path} is not the model that was recorded as {identity.reference}: {', '.join(different)} differ "
            f"({name}: {getattr(identity, name)[:19]} recorded, {getattr(found, name)[:19]} found). "
            f"{_TO_GET_ASSETS} It restores the recorded files, or records the new ones and makes what follows stale."
        )
        raise ModelError(message)


def load_model(path: Path, dtype: str) -> Any:
    """A transformers causal language model in evaluation mode, on the CPU.

    Args:
        path: Directory with config.json and safetensors.
        dtype: `float32` or `bfloat16`.

    Raises:
        ModelError: The files cannot be read as such a model.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # reading weights takes a second; bars are for work that is waited for
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be loaded as a causal language model: {error}. {_TO_GET_ASSETS}") from error
    return model.eval()


def load_tokenizer(path: Path) -> Any:
    """The directory's tokenizer.

    Raises:
        ModelError: There is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"{path} has no tokenizer that can be loaded: {error}. {_TO_GET_ASSETS}") from error


def remembered_digest(file: Path, cache: Path = DIGEST_CACHE) -> str:
    """Digest of a file; for a large one from the cache, if neither size nor times have changed.

    The change time is part of the key because no program can set it back. A cache that is broken or cannot be written
    costs time, nothing else.
    """
    status = file.stat()
    if status.st_size < _CACHED_FROM_BYTES:
        return digest_file(file)
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        read = json.loads(cache.read_text(encoding="utf-8"))
        known = read if isinstance(read, dict) else {}
    key, stamp = str(file.resolve()), [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    entry = known.get(key)
    if isinstance(entry, dict) and entry.get("stamp") == stamp and isinstance(entry.get("digest"), str):
        return str(entry["digest"])
    digest = digest_file(file)
    with contextlib.suppress(StoreError):
        write_json(cache, {**known, key: {"stamp": stamp, "digest": digest}})
    return digest


def _digest_named(path: Path, names: tuple[str, ...]) -> str:
    return digest_json([[name, remembered_digest(path / name)] for name in names if (path / name).is_file()])


def _from_hub(reference: str) -> Path:
    match = _HUB.fullmatch(reference)
    if match is None:
        message = (
            f"`{reference}` is not `hub:<owner>/<name>@<revision>` with the full 40-hex commit. A branch or tag can "
            "change under the same name; the commit is on the model's page under `Files and versions`, `History`."
        )
        raise ConfigError(message)
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [f"*{suffix}" for suffix in SAFE_SUFFIXES] + [f"{name}*" for name in SAFE_NAMES]
    try:
        found = snapshot_download(match["repo"], revision=match["revision"], allow_patterns=patterns)
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        message = (
            f"{reference} could not be fetched: {str(error).splitlines()[0] if str(error) else type(error).__name__}. "
            "Check the name and the network (and HF_TOKEN for a gated model), or name a local directory instead."
        )
        raise ModelError(message) from error
    return Path(found)
