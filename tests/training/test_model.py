"""The policy and the candidate's directory."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from metagdpo.errors import ModelError, StoreError
from metagdpo.models.load import identify, load_model
from metagdpo.training import model as model_module
from metagdpo.training.model import load_candidate, make_policy, save_candidate
from metagdpo.training.settings import LoraParams, TrainParams

IDS = torch.arange(12)[None]


def policy(directory: Path, method="lora", **settings):
    return make_policy(
        load_model(directory, "float32"), TrainParams(method=method, learning_rate=1e-4, **settings), seed=3
    )


def shaken(model):
    """Move what learns, as training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_policy_starts_as_the_base(tiny_model_dir, method):
    torch.testing.assert_close(
        logits(policy(tiny_model_dir, method)), logits(load_model(tiny_model_dir, "float32")), rtol=0, atol=1e-6
    )


def test_lora_trains_adapters_on_all_linear_layers_and_nothing_else(tiny_model_dir):
    learning = [name for name, value in policy(tiny_model_dir).named_parameters() if value.requires_grad]
    assert all("lora_" in name for name in learning)
    assert len(learning) == 2 * 2 * 7  # two layers, A and B, seven projections


def test_chosen_targets_alone_get_adapters(tiny_model_dir):
    model = policy(tiny_model_dir, lora=LoraParams(targets=("q_proj",)))
    assert sum(value.requires_grad for value in model.parameters()) == 2 * 2


def test_the_seed_decides_the_adapters_and_the_global_generator_is_untouched(tiny_model_dir):
    before = torch.get_rng_state()
    first, second = policy(tiny_model_dir), policy(tiny_model_dir)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_saved_candidate_answers_like_the_policy(tiny_model_dir, tmp_path, method):
    model = shaken(policy(tiny_model_dir, method))
    save_candidate(model, tmp_path / "candidate", reference="asset:tiny", base_directory=tiny_model_dir)
    found = load_candidate(tmp_path / "candidate", tiny_model_dir, "float32")
    torch.testing.assert_close(logits(found), logits(model), rtol=1e-4, atol=1e-4)
    assert not hasattr(found, "peft_config")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_candidate_holds_safetensors_and_text_and_no_machine_path(tiny_model_dir, tmp_path, method):
    save_candidate(
        policy(tiny_model_dir, method), tmp_path / "c", reference="asset:tiny", base_directory=tiny_model_dir
    )
    for file in (tmp_path / "c").iterdir():
        assert file.suffix in {".safetensors", ".json", ".jinja", ".txt"}
        if file.suffix != ".safetensors":
            assert str(tiny_model_dir) not in file.read_text()


def test_an_adapter_names_its_base_as_params_yaml_does(tiny_model_dir, tmp_path):
    save_candidate(policy(tiny_model_dir), tmp_path / "c", reference="asset:tiny", base_directory=tiny_model_dir)
    config = json.loads((tmp_path / "c" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "asset:tiny"
    assert config["target_modules"] == sorted(config["target_modules"])


def test_a_full_candidate_differs_from_its_base_in_nothing_but_weights(tiny_model_dir, tmp_path):
    model = shaken(policy(tiny_model_dir, "full"))
    save_candidate(model, tmp_path / "c", reference="asset:tiny", base_directory=tiny_model_dir)
    base, candidate = identify("asset:tiny", tiny_model_dir), identify("asset:tiny", tmp_path / "c")
    different = [name for name in type(base).model_fields if getattr(base, name) != getattr(candidate, name)]
    assert different == ["weights"]


def test_a_full_disk_leaves_the_earlier_candidate(tiny_model_dir, tmp_path, monkeypatch):
    model = policy(tiny_model_dir)
    save_candidate(model, tmp_path / "c", reference="asset:tiny", base_directory=tiny_model_dir)
    before = sorted(p.name for p in (tmp_path / "c").iterdir())

    def full(*_arguments):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(model_module, "save_file", full)
    with pytest.raises(StoreError, match="cannot write the candidate"):
        save_candidate(model, tmp_path / "c", reference="asset:tiny", base_directory=tiny_model_dir)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_an_adapter_without_safetensors_is_refused(tiny_model_dir, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no adapter_model.safetensors"):
        load_candidate(tmp_path, tiny_model_dir, "float32")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_gradient_checkpointing_changes_nothing(tiny_model_dir, method):
    def gradients(*, recompute):
        model = policy(tiny_model_dir, method, gradient_checkpointing=recompute)
        model(input_ids=IDS, use_cache=False).logits.logsumexp(-1).sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]

    for a, b in zip(gradients(recompute=True), gradients(recompute=False), strict=True):
        torch.testing.assert_close(a, b)
