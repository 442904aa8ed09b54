"""Atomic, complete checkpoints in safetensors and JSON: weights that learn, optimiser, random state, position.

The learning rate and the order of the data are pure functions of the step, so the step is all the position there is. A
checkpoint is a folder that appears by one rename; one whose digests do not match is passed over.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from metagdpo.errors import DataError, StoreError
from metagdpo.schema import Frozen, digest_file, read_record, write_record
from metagdpo.training.parallel import placed, whole

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


def save_checkpoint(
    folder: Path,
    step: int,
    run_key: str,
    named: Mapping[str, Tensor],
    optimiser: Any,
    *,
    keep: int = KEEP,
    main: bool = True,
) -> None:
    """Write a checkpoint, then remove all but the newest ones.

    Args:
        folder: Holds the checkpoints of one training.
        step: Steps done.
        run_key: Of the training.
        named: What learns, by name.
        optimiser: A torch optimiser over those tensors.
        keep: How many checkpoints stay.
        main: Whether this process writes; where weights are split over processes, all of them have to call.

    Raises:
        StoreError: The disk is full or refuses; earlier checkpoints are untouched.
    """
    weights, moments = _whole(named, main=main), _whole(_optimiser_tensors(named, optimiser), main=main)
    if not main:
        return
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(weights, temporary / WEIGHTS)
        save_file(moments, temporary / OPTIMISER)
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
    # Later ones are of a run that was cut off before it could go on from them; kept, they would push this one out.
    kept = [path for path in _checkpoints(folder) if path.name <= target.name][:keep]
    for old in set(_checkpoints(folder)) - set(kept):
        shutil.rmtree(old, ignore_errors=True)


def restore_checkpoint(folder: Path, run_key: str, named: Mapping[str, Tensor], optimiser: Any) -> int:
    """Put what learns, the optimiser and the random state as the newest valid checkpoint has them.

    Returns:
        Steps done; 0 and nothing changed when there is no valid checkpoint of this training.
    """
    for path in _checkpoints(folder):
        state = _valid(path)
        if state is not None and state.run_key == run_key:
            _restore(path, named, optimiser)
            return state.step
    return 0


def restore_weights(folder: Path, run_key: str, step: int, named: Mapping[str, Tensor]) -> None:
    """Put what learns as one checkpoint has it, and nothing else.

    Raises:
        StoreError: There is no valid checkpoint of this training at that step.
    """
    path = folder / f"step-{step:08d}"
    state = _valid(path)
    if state is None or state.run_key != run_key:
        raise StoreError(f"the weights of step {step} are not in {path}. Delete {folder.parent} and train again.")
    _copy_weights(path, named)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _valid(path: Path) -> CheckpointState | None:
    try:
        state = read_record(path / STATE, CheckpointState)
        whole = all(digest_file(path / name) == digest for name, digest in state.files.items())
    except (DataError, OSError):
        return None
    return state if whole else None


def _whole(tensors: Mapping[str, Tensor], *, main: bool) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())  # all processes have to ask, one keeps
        if main:
            found[name] = full.cpu().contiguous()
    return found


def _optimiser_tensors(named: Mapping[str, Tensor], optimiser: Any) -> dict[str, Tensor]:
    return {
        f"{name}|{key}": torch.as_tensor(tensor)
        for name, parameter in named.items()
        for key, tensor in optimiser.state.get(parameter, {}).items()
    }


def _random_state() -> dict[str, Any]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _copy_weights(path: Path, named: Mapping[str, Tensor]) -> None:
    weights = load_file(path / WEIGHTS)
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(placed(weights[name], parameter))


def _restore(path: Path, named: Mapping[str, Tensor], optimiser: Any) -> None:
    _copy_weights(path, named)
    moments, random = load_file(path / OPTIMISER), load_file(path / RANDOM)
    for name, tensor in moments.items():
        owner, _, key = name.rpartition("|")
        # Adam's step counter stays where the optimiser makes it: on the CPU.
        optimiser.state[named[owner]][key] = tensor if key == "step" else placed(tensor, named[owner])
    torch.set_rng_state(random["cpu"])
    if torch.cuda.is_available() and "cuda" in random:  # a training may move to another kind of machine
        torch.cuda.set_rng_state(random["cuda"])
