"""The policy (LoRA or full), and candidates on disk: safetensors and JSON, without machine paths.

An adapter's configuration names its base as params.yaml does. A full candidate is the base's directory with other
weights: configuration, tokenizer and template are copied byte for byte.
"""

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from metagdpo.errors import ModelError, StoreError
from metagdpo.models.load import ADAPTER_FILES, load_model
from metagdpo.schema import write_json
from metagdpo.training.parallel import whole
from metagdpo.training.settings import TrainParams

ADAPTER_WEIGHTS, ADAPTER_CONFIG = ADAPTER_FILES
WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json")


def make_policy(base: Any, params: TrainParams, *, seed: int) -> Any:
    """The model that learns, equal to the base before the first step; dropout is off everywhere.

    Args:
        base: The loaded base; changed in place.
        params: Method, LoRA settings and gradient checkpointing.
        seed: Of LoRA's random half.
    """
    _without_dropout(base)
    if params.gradient_checkpointing:
        with _old_names():
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if params.method == "full":
        return base.requires_grad_(True).train()
    from peft import LoraConfig, get_peft_model

    targets = params.lora.targets
    config = LoraConfig(
        r=params.lora.r,
        lora_alpha=params.lora.alpha,
        lora_dropout=0.0,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    here = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=here), _old_names():
        torch.manual_seed(seed)
        return get_peft_model(base, config).train()


def save_candidate(model: Any, directory: Path, *, reference: str, base_directory: Path, main: bool = True) -> None:
    """Write the candidate's directory, whole or not at all.

    Args:
        model: The policy; where its weights are split over processes, all of them have to call.
        directory: Replaced if it exists.
        reference: The base as params.yaml names it.
        base_directory: The base on this machine, whose configuration and tokenizer a full candidate shares.
        main: Whether this process writes.

    Raises:
        StoreError: The disk is full or the folder cannot be written; an earlier candidate is still there.
    """
    adapter = hasattr(model, "peft_config")
    state = _adapter_state(model) if adapter else _full_state(model, main=main)
    if not main:
        return
    temporary = directory.with_name(f".{directory.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if adapter:
            _write_adapter(model, state, temporary, reference)
        else:
            model.save_pretrained(temporary, state_dict=state)
            for file in base_directory.iterdir():
                if file.is_file() and not file.name.endswith((*WEIGHT_SUFFIXES, ".md")):
                    shutil.copyfile(file, temporary / file.name)
        if directory.exists():
            shutil.rmtree(directory)
        temporary.replace(directory)
    except (OSError, SafetensorError) as error:
        message = f"cannot write the candidate to {directory}: {error}. Free some space, then run `dvc repro train`."
        raise StoreError(message) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_candidate(directory: Path, base_directory: Path, dtype: str) -> Any:
    """A candidate as a plain transformers model in evaluation mode; an adapter is merged into its base in memory.

    Args:
        directory: What `save_candidate` wrote.
        base_directory: The base, used by an adapter.
        dtype: `float32` or `bfloat16`.

    Raises:
        ModelError: The directory is neither an adapter nor a model, or does not fit the base.
    """
    if not (directory / ADAPTER_CONFIG).is_file():
        return load_model(directory, dtype)
    if not (directory / ADAPTER_WEIGHTS).is_file():  # peft would then look for a pickle
        raise ModelError(f"{directory} has no {ADAPTER_WEIGHTS}. Run `dvc repro train`.")
    from peft import PeftModel

    base = load_model(base_directory, dtype)
    try:
        with _old_names():
            adapted = PeftModel.from_pretrained(base, str(directory), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise ModelError(f"the adapter {directory} does not fit {base_directory}: {error}") from error
    return adapted.merge_and_unload().eval()


@contextlib.contextmanager
def _old_names() -> Iterator[None]:
    """Silence about `gradient_checkpointing`, which newer transformers call `activation_checkpointing`.

    The new names are not in every version that we allow, and peft asks for an old one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        yield


def _without_dropout(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _adapter_state(model: Any) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: whole(value.detach()).cpu().contiguous() for name, value in sorted(state.items())}


def _full_state(model: Any, *, main: bool) -> dict[str, Any]:
    tied = {name for name in getattr(model, "_tied_weights_keys", None) or {} if model.config.tie_word_embeddings}
    state = {}
    for name, value in model.state_dict().items():
        full = whole(value.detach())  # all processes have to ask, one keeps
        if main and name not in tied:
            state[name] = full.cpu()
    return state


def _write_adapter(model: Any, state: dict[str, Any], directory: Path, reference: str) -> None:
    save_file(state, directory / ADAPTER_WEIGHTS)
    config = model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = reference
    config["inference_mode"] = True
    write_json(directory / ADAPTER_CONFIG, json.loads(json.dumps(config, default=_plain)))


def _plain(value: Any) -> Any:
    """Sets in a fixed order (theirs differs from process to process), enumerations as their value."""
    if isinstance(value, set):
        return sorted(value)
    with contextlib.suppress(AttributeError):
        return value.value
    return str(value)
