"""Interpolated weights against plain tensor arithmetic in float64, and the directories that hold them."""

import json
import shutil
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import make_tiny_model

from metagdpo.errors import EvidenceError, ModelError, StoreError
from metagdpo.models.load import identify, load_model
from metagdpo.records.candidate import Candidate
from metagdpo.schema import canonical_json, digest_record
from metagdpo.training import interpolate
from metagdpo.training.candidate import file_digests, identify_candidate, read_manifest, write_manifest
from metagdpo.training.interpolate import interpolate_candidate, interpolated, rewrite
from metagdpo.training.model import load_candidate, make_policy, save_candidate
from metagdpo.training.settings import LoraParams, TrainParams

IDS = torch.arange(12)[None]
ALPHAS = (0.1, 0.3, 0.5, 0.75)


def train(base, out, method="lora", dtype="float32", **settings):
    """A trained candidate: what the optimiser would have moved is moved at random."""
    policy = make_policy(load_model(base, dtype), TrainParams(method=method, learning_rate=1e-4, **settings), seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    save_candidate(policy, out, reference="asset:tiny", base_directory=base)
    manifest(out, base)
    return out


def manifest(directory, base):
    facts = {"data": {}, "params": {}, "steps": 1, "n_groups": 2, "n_skipped_groups": 0}
    return write_manifest(directory, identify("asset:tiny", base), key="sha256:k", objective="sft", **facts)


@pytest.fixture(scope="module", params=["lora", "full"])
def trained(request, tiny_model_dir, tmp_path_factory):
    return train(tiny_model_dir, tmp_path_factory.mktemp("trained") / "model", request.param)


@pytest.fixture(scope="module")
def adapter(tiny_model_dir, tmp_path_factory):
    return train(tiny_model_dir, tmp_path_factory.mktemp("trained") / "adapter")


def weights(directory, base, dtype="float32"):
    return {name: value.double() for name, value in load_candidate(directory, base, dtype).state_dict().items()}


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def logits(directory, base):
    with torch.no_grad():
        return load_candidate(directory, base, "float32")(input_ids=IDS).logits


# The formula


@given(
    start=st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=9),
    alpha=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    data=st.data(),
)
def test_a_point_is_the_weighted_mean_rounded_once(start, alpha, dtype, data):
    end = data.draw(st.lists(st.floats(-6e4, 6e4), min_size=len(start), max_size=len(start)))
    start, end = torch.tensor(start, dtype=torch.float32), torch.tensor(end, dtype=torch.float64).to(dtype)
    expected = ((1 - alpha) * start.double() + alpha * end.double()).to(dtype)
    assert torch.equal(expected, interpolated(start, end, alpha))


def test_long_tensors_are_computed_in_blocks_and_keep_their_shape(monkeypatch):
    monkeypatch.setattr(interpolate, "BLOCK", 7)
    start, end = torch.randn(5, 9), torch.randn(9, 5).t()  # not contiguous
    expected = (0.75 * start.double() + 0.25 * end.double()).float()
    assert torch.equal(expected, interpolated(start, end, 0.25))


def test_a_number_alone_is_a_tensor_too():
    assert interpolated(torch.tensor(1.0), torch.tensor(3.0), 0.5) == torch.tensor(2.0)


def test_half_the_way_between_floats_that_bfloat16_cannot_tell_apart_is_found():
    start, end = torch.tensor([1.0]), torch.tensor([1.0 + 2**-7], dtype=torch.bfloat16)
    assert interpolated(start, end, 0.9).item() == 1.0 + 2**-7
    assert interpolated(start, end, 0.1).item() == 1.0


# Whole candidates


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_weights_lie_on_the_line_between_base_and_trained(trained, tiny_model_dir, tmp_path, alpha):
    interpolate_candidate(trained, tiny_model_dir, tmp_path / "c", alpha)
    start = {name: value.double() for name, value in load_model(tiny_model_dir, "float32").state_dict().items()}
    end, found = weights(trained, tiny_model_dir), weights(tmp_path / "c", tiny_model_dir)
    assert start.keys() == found.keys()
    for name, value in found.items():
        expected = (1 - alpha) * start[name] + alpha * end[name]
        # One rounding of B or W to float32, and for an adapter one of the merged weight.
        torch.testing.assert_close(value, expected, rtol=3e-7, atol=1e-7)
    assert any(not torch.equal(found[name], start[name]) for name in found)


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 2, "alpha": 16},
        {"r": 5, "alpha": 3},
        {"r": 16, "alpha": 1, "targets": ("q_proj", "down_proj")},
    ],
    ids=str,
)
def test_an_adapter_scales_exactly_whatever_its_rank_and_scale(tiny_model_dir, tmp_path, lora):
    """Alpha of a power of two only shifts exponents: the delta is alpha times the trained one to the last bit."""
    trained = train(tiny_model_dir, tmp_path / "t", lora=LoraParams(**lora))
    interpolate_candidate(trained, tiny_model_dir, tmp_path / "c", 0.25)
    old, new = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("t", "c"))
    for name, a in old.items():
        if ".lora_A." in name:
            b = name.replace("lora_A", "lora_B")
            assert torch.equal(new[b].double() @ new[name].double(), 0.25 * (old[b].double() @ a.double()))
    assert (tmp_path / "t/adapter_config.json").read_bytes() == (tmp_path / "c/adapter_config.json").read_bytes()


@pytest.mark.parametrize("change", [{"use_rslora": True}, {"alpha_pattern": {"q_proj": 40}, "rank_pattern": {}}])
def test_scales_of_single_layers_are_followed(adapter, tiny_model_dir, tmp_path, change):
    """What a whole number in the configuration could not do: every layer moves by alpha, whatever its own scale."""
    shutil.copytree(adapter, tmp_path / "t")
    config = json.loads((tmp_path / "t/adapter_config.json").read_text())
    (tmp_path / "t/adapter_config.json").write_text(json.dumps(config | change))
    manifest(tmp_path / "t", tiny_model_dir)
    interpolate_candidate(tmp_path / "t", tiny_model_dir, tmp_path / "c", 0.3)
    start, end = load_model(tiny_model_dir, "float32").state_dict(), weights(tmp_path / "t", tiny_model_dir)
    for name, value in weights(tmp_path / "c", tiny_model_dir).items():
        torch.testing.assert_close(value, 0.7 * start[name].double() + 0.3 * end[name], rtol=3e-7, atol=1e-7)


def test_at_one_the_candidate_is_the_trained_one_byte_for_byte(trained, tiny_model_dir, tmp_path):
    found = interpolate_candidate(trained, tiny_model_dir, tmp_path / "c", 1.0)
    assert files(trained) == files(tmp_path / "c")
    assert found == read_manifest(trained)


def test_towards_zero_it_answers_as_the_base(trained, tiny_model_dir, tmp_path):
    interpolate_candidate(trained, tiny_model_dir, tmp_path / "c", 1e-30)
    with torch.no_grad():
        expected = load_model(tiny_model_dir, "float32")(input_ids=IDS).logits
    torch.testing.assert_close(logits(tmp_path / "c", tiny_model_dir), expected, rtol=0, atol=1e-20)


def test_the_base_itself_is_no_candidate(trained):
    with pytest.raises(ValueError, match=r"alpha\n.*greater than 0"):
        Candidate.model_validate(read_manifest(trained).model_dump() | {"alpha": 0.0})


def test_all_weights_at_zero_are_the_bases_to_the_bit(tiny_model_dir, tmp_path):
    trained = train(tiny_model_dir, tmp_path / "t", "full") / "model.safetensors"
    base = load_file(tiny_model_dir / "model.safetensors")
    rewrite(trained, tmp_path / "zero", interpolate._towards_base(base.get, tiny_model_dir, 0.0))
    found = load_file(tmp_path / "zero")
    assert base.keys() == found.keys()
    assert all(torch.equal(base[name], found[name]) for name in base)


def test_the_same_point_is_the_same_bytes(trained, tiny_model_dir, tmp_path):
    for name in ("one", "two"):
        interpolate_candidate(trained, tiny_model_dir, tmp_path / name, 0.3)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_files_keep_names_dtypes_shapes_and_order(trained, tiny_model_dir, tmp_path):
    interpolate_candidate(trained, tiny_model_dir, tmp_path / "c", 0.3)
    for path in trained.glob("*.safetensors"):
        assert header(path) == header(tmp_path / "c" / path.name)


def header(path):
    with path.open("rb") as stream:
        return stream.read(struct.unpack("<Q", stream.read(8))[0])


def test_weights_in_several_files_are_found_by_their_index(tiny_model_dir, tmp_path):
    """Base in two files beside one that its index does not name, trained in three: names decide, not files."""
    base, trained = tmp_path / "base", train(tiny_model_dir, tmp_path / "t", "full")
    shutil.copytree(tiny_model_dir, base)
    whole = load_file(base / "model.safetensors")
    split(base, 2)
    save_file({name: torch.zeros_like(value) for name, value in whole.items()}, base / "other.safetensors")
    split(trained, 3)
    manifest(trained, base)
    interpolate_candidate(trained, base, tmp_path / "c", 0.3)
    start, end = load_model(tiny_model_dir, "float32").state_dict(), weights(trained, base)
    assert len(list((tmp_path / "c").glob("*.safetensors"))) == 3
    for name, value in weights(tmp_path / "c", base).items():
        torch.testing.assert_close(value, 0.7 * start[name].double() + 0.3 * end[name], rtol=1e-7, atol=1e-8)


def split(directory, n):
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    where = {name: f"model-{number % n + 1:05}-of-{n:05}.safetensors" for number, name in enumerate(state)}
    for file in set(where.values()):
        save_file({name: state[name] for name in state if where[name] == file}, directory / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_base_of_another_dtype_is_interpolated_in_the_trained_one(tiny_model_dir, tmp_path):
    trained = train(tiny_model_dir, tmp_path / "t", "full", dtype="bfloat16")
    interpolate_candidate(trained, tiny_model_dir, tmp_path / "c", 0.5)
    start, end = load_file(tiny_model_dir / "model.safetensors"), load_file(trained / "model.safetensors")
    found = load_file(tmp_path / "c/model.safetensors")
    assert {value.dtype for value in found.values()} == {torch.bfloat16}
    for name, value in found.items():
        assert torch.equal(value, (0.5 * start[name].double() + 0.5 * end[name].double()).bfloat16())


def test_whole_numbers_stay_as_training_left_them(tmp_path):
    save_file({"ids": torch.arange(3), "w": torch.ones(2)}, tmp_path / "a")
    base = {"ids": torch.zeros(3, dtype=torch.int64), "w": torch.zeros(2)}
    rewrite(tmp_path / "a", tmp_path / "b", interpolate._towards_base(base.get, tmp_path, 0.25))
    found = load_file(tmp_path / "b")
    assert found["ids"].tolist() == [0, 1, 2]
    assert found["w"].tolist() == [0.25, 0.25]


def test_tensors_of_any_dtype_order_and_size_pass(tmp_path):
    """The file holds `z` before `a`: wider numbers come first."""
    mixed = {"a": torch.ones(3, dtype=torch.float16), "z": torch.arange(2.0, dtype=torch.float64)}
    save_file({"none": torch.zeros(0, 3), "one": torch.tensor(2.0), **mixed}, tmp_path / "a", {"format": "pt"})
    rewrite(tmp_path / "a", tmp_path / "b", lambda _name, value: value)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# The manifest


def test_the_manifest_says_alpha_and_holds_the_digests_of_what_is_there(trained, tiny_model_dir, tmp_path):
    (found, before) = interpolate_candidate(trained, tiny_model_dir, tmp_path / "c", 0.3), read_manifest(trained)
    assert found == read_manifest(tmp_path / "c")
    assert (found.alpha, found.files) == (0.3, file_digests(tmp_path / "c"))
    assert found.identity == identify_candidate(tmp_path / "c", before.base) != before.identity
    kept = {"base", "method", "objective", "run_key", "data", "params", "steps", "n_groups"}
    assert found.model_dump(include=kept) == before.model_dump(include=kept)


def test_two_alphas_of_one_training_are_two_candidates(trained, tiny_model_dir, tmp_path):
    found = [interpolate_candidate(trained, tiny_model_dir, tmp_path / "c", alpha) for alpha in (*ALPHAS, 1.0)]
    assert len({digest_record(candidate) for candidate in found}) == len(found)
    assert len({candidate.identity for candidate in found}) == len(found)
    assert len({candidate.run_key for candidate in found}) == 1


def test_a_manifest_without_alpha_keeps_its_digest(trained):
    text = (trained / "candidate.json").read_text()
    assert "alpha" not in json.loads(text)
    found = Candidate.model_validate_json(text)
    assert found.alpha == 1.0
    assert canonical_json(json.loads(text)) == canonical_json(found.model_dump(mode="json"))


# What goes wrong


def test_a_changed_file_is_named_and_not_laundered(trained, tiny_model_dir, tmp_path):
    shutil.copytree(trained, tmp_path / "t")
    (tmp_path / "t/more.txt").write_text("new")
    for path in (tmp_path / "t").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(EvidenceError, match=r"t was changed after training: .*model\.safetensors, more\.txt\."):
        interpolate_candidate(tmp_path / "t", tiny_model_dir, tmp_path / "c", 0.5)
    assert not (tmp_path / "c").exists()


def test_an_adapter_with_more_than_lora_is_refused(adapter, tiny_model_dir, tmp_path):
    shutil.copytree(adapter, tmp_path / "t")
    state = load_file(adapter / "adapter_model.safetensors")
    state["base_model.model.layer.lora_magnitude_vector"] = torch.ones(2)
    save_file(state, tmp_path / "t/adapter_model.safetensors")
    manifest(tmp_path / "t", tiny_model_dir)
    with pytest.raises(ModelError, match=r"lora_magnitude_vector, which is no plain LoRA.*alphas: \[1\.0\]"):
        interpolate_candidate(tmp_path / "t", tiny_model_dir, tmp_path / "c", 0.5)


def test_both_halves_of_an_embedding_adapter_are_known(tmp_path):
    names = ("e.lora_embedding_A", "e.lora_embedding_B", "q.lora_A.weight", "q.lora_B.weight")
    save_file({name: torch.ones(2) for name in names}, tmp_path / "a")
    rewrite(tmp_path / "a", tmp_path / "b", interpolate._scaled_adapter(tmp_path, 0.5))
    assert {name: value[0].item() for name, value in load_file(tmp_path / "b").items()} == dict(
        zip(names, (1.0, 0.5, 1.0, 0.5), strict=True)
    )


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({}, "the base .* has no such tensor"),
        ({"w": torch.ones(3)}, r"of shape \(2,\), the base .* has one of shape \(3,\)"),
    ],
)
def test_weights_that_the_base_does_not_have_are_refused(tmp_path, tensors, match):
    change = interpolate._towards_base(tensors.get, tmp_path, 0.5)
    with pytest.raises(ModelError, match=match):
        change("w", torch.ones(2))


def test_a_damaged_file_is_a_matter_of_the_model(tiny_model_dir, tmp_path):
    trained, base = train(tiny_model_dir, tmp_path / "t", "full"), tmp_path / "base"
    make_tiny_model(base)
    (base / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ModelError, match="cannot be read"):
        interpolate_candidate(trained, base, tmp_path / "c", 0.5)


def test_a_full_disk_leaves_the_earlier_candidate(adapter, tiny_model_dir, tmp_path, monkeypatch):
    interpolate_candidate(adapter, tiny_model_dir, tmp_path / "c", 0.5)
    before = files(tmp_path / "c")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(interpolate, "rewrite", full)
    with pytest.raises(StoreError, match="No space left"):
        interpolate_candidate(adapter, tiny_model_dir, tmp_path / "c", 0.75)
    assert files(tmp_path / "c") == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
