"""Atomic, complete checkpoints in safetensors and JSON: weights that learn, optimiser, random state, position.

The learning rate and the order of the data are pure functions of the step, so the step is all the position there is. A
checkpoint is a folder that appears by one rename; one whose digests do not match is passed over.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from metagdpo.errors import DataError, StoreError
from metagdpo.schema import Frozen, digest_file, read_record, write_record

KEEP = 2
WEIGHTS, OPTIMISER, RANDOM, STATE = "weights.safetensors", "optimiser.safetensors", "random.safetensors", "state.json"


class CheckpointState(Frozen):
    """state.json of a checkpoint."""

    step: int
    """Steps done."""
    run_key: str
    """Of parameters, data and base: a checkpoint of another training is never continued."""
    files: dict[str, str]
    """Digest of every other file."""


def save_checkpoint(folder: Path, step: int, run_key: str, model: Any, optimiser: Any) -> None:
    """Write a checkpoint, then remove all but the newest two.

    Args:
        folder: Holds the checkpoints of one training.
        step: Steps done.
        run_key: Of the training.
        model: The policy; what requires a gradient is saved.
        optimiser: A torch optimiser over those parameters.

    Raises:
        StoreError: The disk is full or refuses; earlier checkpoints are untouched.
    """
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(_trainable(model), temporary / WEIGHTS)
        save_file(_optimiser_tensors(model, optimiser), temporary / OPTIMISER)
        save_file(_random_state(), temporary / RANDOM)
        files = {name: digest_file(temporary / name) for name in (WEIGHTS, OPTIMISER, RANDOM)}
        write_record(temporary / STATE, CheckpointState(step=step, run_key=run_key, files=files))
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        message = (
            f"cannot save the checkpoint {target}: {error}. The one before it is intact: free some space, then rerun "
            "and training goes on from there."
        )
        raise StoreError(message) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _checkpoints(folder)[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def restore_checkpoint(folder: Path, run_key: str, model: Any, optimiser: Any) -> int:
    """Put model, optimiser and random state as the newest valid checkpoint has them.

    Returns:
        Steps done; 0 and nothing changed when there is no valid checkpoint of this training.
    """
    for path in _checkpoints(folder):
        state = _valid(path)
        if state is not None and state.run_key == run_key:
            _restore(path, model, optimiser)
            return state.step
    return 0


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _valid(path: Path) -> CheckpointState | None:
    try:
        state = read_record(path / STATE, CheckpointState)
        whole = all(digest_file(path / name) == digest for name, digest in state.files.items())
    except (DataError, OSError):
        return None
    return state if whole else None


def _named(model: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def _trainable(model: Any) -> dict[str, Any]:
    return {name: value.detach().cpu().contiguous() for name, value in _named(model)}


def _optimiser_tensors(model: Any, optimiser: Any) -> dict[str, Any]:
    return {
        f"{name}|{key}": torch.as_tensor(tensor).detach().cpu().contiguous()
        for name, parameter in _named(model)
        for key, tensor in optimiser.state.get(parameter, {}).items()
    }


def _random_state() -> dict[str, Any]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore(path: Path, model: Any, optimiser: Any) -> None:
    weights, moments, random = (load_file(path / name) for name in (WEIGHTS, OPTIMISER, RANDOM))
    parameters = dict(_named(model))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    for name, tensor in moments.items():
        owner, _, key = name.rpartition("|")
        parameter = parameters[owner]
        # Adam's step counter stays where the optimiser makes it: on the CPU unless fused on a device.
        optimiser.state[parameter][key] = (
            tensor if key == "step" and parameter.device.type == "cpu" else tensor.to(parameter.device)
        )
    torch.set_rng_state(random["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all([random[f"cuda{i}"] for i in range(torch.cuda.device_count())])
