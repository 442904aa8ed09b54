"""Points between base and trained weights, written as candidates: theta_alpha = (1 - alpha) theta_0 + alpha theta_1.

The layout of the trained files (names, dtypes, order, shards) is kept; only the numbers change. Tensors pass one by
one, so that memory stays at two of them. Left out: more than two models (soups), other paths than the straight line.

Home of: Wise-FT interpolation (arXiv 2109.01903).
"""

import contextlib
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from metagdpo.errors import EvidenceError, ModelError, StoreError
from metagdpo.models.load import ADAPTER_FILES
from metagdpo.records.candidate import Candidate
from metagdpo.schema import write_record
from metagdpo.training.candidate import MANIFEST, file_digests, identify_candidate, read_manifest

BLOCK = 1 << 22
"""Numbers computed at once: float64 copies of a whole embedding could be larger than the model."""
INDEX = "model.safetensors.index.json"
_LORA = re.compile(r"\.lora_(?:embedding_)?(?P<half>[AB])(?:\.|$)")
_WAY_OUT = "Set interpolate.alphas: [1.0], which keeps the trained weights."

Change = Callable[[str, Tensor], Tensor]
"""From a tensor's name and value to its new value, of the same shape and dtype."""


def interpolated(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) * start + alpha * end, computed in float64 and rounded once.

    Args:
        start: Of any shape and floating dtype.
        end: Of the same shape; its dtype is that of the result.
        alpha: In 0..1.
    """
    result = torch.empty_like(end, memory_format=torch.contiguous_format)
    flat_start, flat_end, flat = start.reshape(-1), end.reshape(-1), result.view(-1)
    for at in range(0, end.numel(), BLOCK):
        block = slice(at, at + BLOCK)
        flat[block] = (1 - alpha) * flat_start[block].double() + alpha * flat_end[block].double()
    return result


def interpolate_candidate(trained: Path, base_directory: Path, out: Path, alpha: float) -> Candidate:
    """Write the candidate at `alpha` with its manifest, whole or not at all; at 1 it is the trained one byte for byte.

    Args:
        trained: What the stage train wrote: a LoRA adapter or all weights.
        base_directory: The base; its weights are read only for a candidate of all weights.
        out: Directory to write; replaced if it exists.
        alpha: Above 0, at most 1. Towards 0 the candidate becomes the base, which is none.

    Raises:
        EvidenceError: A file of `trained` is not the one in its manifest.
        ModelError: The trained weights cannot be interpolated; says why.
        StoreError: The disk is full or the folder cannot be written; what `out` held before is still there.
    """
    candidate = read_manifest(trained)
    _check_unchanged(trained, candidate)
    with _whole_directory(out) as folder:
        for name in sorted(candidate.files):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if alpha == 1 or not name.endswith(".safetensors"):
                shutil.copyfile(trained / name, folder / name)
        if alpha == 1:
            shutil.copyfile(trained / MANIFEST, folder / MANIFEST)
        else:
            _write_weights(trained, base_directory, folder, candidate, alpha)
            identity = identify_candidate(folder, candidate.base)
            changes = {"identity": identity, "files": file_digests(folder), "alpha": alpha}
            candidate = candidate.model_copy(update=changes)
            write_record(folder / MANIFEST, candidate)
    return candidate


def _write_weights(trained: Path, base_directory: Path, folder: Path, candidate: Candidate, alpha: float) -> None:
    files = [name for name in sorted(candidate.files) if name.endswith(".safetensors")]
    with contextlib.ExitStack() as stack:
        change = (
            _scaled_adapter(trained, alpha)
            if (trained / ADAPTER_FILES[0]).is_file()
            else _towards_base(stack.enter_context(_tensors(base_directory)), base_directory, alpha)
        )
        for name in files:
            rewrite(trained / name, folder / name, change)


def _scaled_adapter(trained: Path, alpha: float) -> Change:
    """W_0 + s (alpha B) A = (1 - alpha) W_0 + alpha (W_0 + s B A): the update is linear in B, whatever s is.

    Not `lora_alpha`, in which it is linear too: single layers may have scales of their own (`alpha_pattern`), and other
    programs read it as a whole number.
    """

    def change(name: str, value: Tensor) -> Tensor:
        found = _LORA.search(name)
        if found is None or not value.is_floating_point():
            raise ModelError(
                f"{trained} has the tensor {name}, which is no plain LoRA: alpha would not act on it. {_WAY_OUT}"
            )
        return interpolated(torch.zeros_like(value), value, alpha) if found["half"] == "B" else value

    return change


def _towards_base(base: Callable[[str], Tensor | None], directory: Path, alpha: float) -> Change:
    def change(name: str, value: Tensor) -> Tensor:
        start = base(name)
        if start is None or start.shape != value.shape:
            what = "no such tensor" if start is None else f"one of shape {tuple(start.shape)}"
            message = (
                f"the trained weights have {name} of shape {tuple(value.shape)}, the base {directory} has {what}. "
            )
            raise ModelError(message + _WAY_OUT)
        return interpolated(start, value, alpha) if value.is_floating_point() else value

    return change


@contextlib.contextmanager
def _tensors(directory: Path) -> Iterator[Callable[[str], Tensor | None]]:
    """The tensors of a model directory by name, read when asked for; None for a name that it does not have."""
    index = directory / INDEX
    listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else None
    names = sorted(set(listed)) if listed is not None else sorted(path.name for path in directory.glob("*.safetensors"))
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(safe_open(directory / name, framework="pt")) for name in names]
        where = {tensor: file for file in files for tensor in file.keys()}  # noqa: SIM118  (not a mapping)

        def read(name: str) -> Tensor | None:
            return where[name].get_tensor(name) if name in where else None

        yield read


def rewrite(source: Path, target: Path, change: Change) -> None:
    """Write a safetensors file like another one with other numbers: header copied, tensors in its order.

    Args:
        source: The file to follow.
        target: The file to write.
        change: Gives each tensor's new value.

    Raises:
        SafetensorError: The source is no safetensors file.
        OSError: It cannot be read or written.
    """
    with safe_open(source, framework="pt") as tensors, source.open("rb") as stream, target.open("wb") as written:
        head = stream.read(8)
        header = stream.read(struct.unpack("<Q", head)[0])
        written.write(head + header)
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        for name in sorted(entries, key=lambda name: (entries[name]["data_offsets"], name)):
            value = change(name, tensors.get_tensor(name))
            written.write(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)


@contextlib.contextmanager
def _whole_directory(directory: Path) -> Iterator[Path]:
    """A folder that becomes `directory` when the block ends well, and vanishes when it does not."""
    temporary = directory.with_name(f".{directory.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if directory.exists():
            shutil.rmtree(directory)
        temporary.replace(directory)
    except SafetensorError as error:
        message = f"weights that {directory} is made from cannot be read: {error}. Run `dvc repro -f assets train`."
        raise ModelError(message) from error
    except OSError as error:
        message = (
            f"cannot write the candidate to {directory}: {error}. Free some space, then run `dvc repro interpolate`."
        )
        raise StoreError(message) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_unchanged(trained: Path, candidate: Candidate) -> None:
    """A new manifest must not make good what the trained one would have refused."""
    found = file_digests(trained)
    wrong = [name for name in sorted({*found, *candidate.files}) if found.get(name) != candidate.files.get(name)]
    if wrong:
        listed = ", ".join(wrong)
        raise EvidenceError(f"{trained} was changed after training: {listed}. Run `dvc repro -f train`.")
