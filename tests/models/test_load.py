import json
import os
import shutil

import pytest
from tiny import make_tiny_model

from metagdpo.errors import ConfigError, ModelError
from metagdpo.models import load


@pytest.fixture
def copied(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


def test_an_asset_lies_in_the_assets_folder_and_a_path_is_itself(tmp_path):
    (tmp_path / "small").mkdir()
    assert load.locate("asset:small", tmp_path) == tmp_path / "small"
    assert load.locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("reference", ["asset:gone", "no/such/directory"])
def test_a_missing_model_names_the_way_out(reference, tmp_path):
    with pytest.raises(ModelError, match=r"dvc repro -f assets|40-hex revision"):
        load.locate(reference, tmp_path)


@pytest.mark.parametrize(
    "reference", ["hub:a/b", "hub:a/b@main", "hub:a/b@" + "0" * 39, "hub:a@" + "0" * 40, "asset:../x"]
)
def test_a_reference_of_a_wrong_form_is_refused(reference):
    with pytest.raises(ConfigError, match=r"is not `(hub|asset):"):
        load.locate(reference)


def test_a_hub_model_that_is_neither_cached_nor_reachable_names_the_way_out():
    with pytest.raises(ModelError, match=r"could not be fetched.*name a local directory"):
        load.locate("hub:nobody/nothing@" + "0" * 40)


def test_the_tiny_model_passes_the_check(tiny_model_dir):
    load.check_directory(tiny_model_dir)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "modeling_x.py", "weights.pkl", "deep/er.so"])
def test_files_that_can_carry_code_are_refused_by_name(copied, name):
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_bytes(b"")
    with pytest.raises(ModelError, match=name):
        load.check_directory(copied)


def test_a_directory_without_weights_or_configuration_is_refused(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no .*safetensors"):
        load.check_directory(copied)
    (copied / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load.check_directory(copied)


def test_equal_files_have_equal_identity_wherever_they_lie(tiny_model_dir, copied):
    assert load.identify("x", copied) == load.identify("x", tiny_model_dir)


def test_other_weights_change_the_weights_digest_alone(tiny_model_dir, tmp_path):
    one, other = load.identify("x", tiny_model_dir), load.identify("x", make_tiny_model(tmp_path / "m", seed=1))
    assert one.weights != other.weights
    assert one.model_copy(update={"weights": other.weights}) == other


def test_the_template_is_the_same_text_in_a_file_of_its_own_or_in_the_configuration(copied):
    expected = load.identify("x", copied).chat_template
    template = (copied / "chat_template.jinja").read_text()
    (copied / "chat_template.jinja").unlink()
    config = copied / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": template}))
    assert load.identify("x", copied).chat_template == expected


def test_verify_names_what_differs_and_the_way_out(copied):
    identity = load.identify("x", copied)
    load.verify(identity, copied)
    with (copied / "model.safetensors").open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(ModelError, match=r"weights differ .*dvc repro -f assets"):
        load.verify(identity, copied)


def test_an_incomplete_adapter_is_refused(tiny_model_dir, tmp_path):
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        load.identify("x", tiny_model_dir, adapter=tmp_path)


def test_a_broken_weights_file_is_a_model_error(copied):
    (copied / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ModelError, match=r"cannot be loaded"):
        load.load_model(copied, "float32")


def test_a_directory_without_a_tokenizer_is_a_model_error(copied):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink()
    with pytest.raises(ModelError, match=r"no tokenizer that can be loaded"):
        load.load_tokenizer(copied)


def test_a_large_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    file, cache = tmp_path / "big", tmp_path / "work" / "digests.json"
    file.write_bytes(bytes(2_000_000))
    first = load.remembered_digest(file, cache)
    with monkeypatch.context() as patch:
        patch.setattr(load, "digest_file", lambda _: pytest.fail("read again"))
        assert load.remembered_digest(file, cache) == first
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"\1" + bytes(1_999_999))
    os.utime(file, ns=times)
    assert load.remembered_digest(file, cache) != first  # same size, same modification time: the change time tells


@pytest.mark.parametrize("content", ["{torn", "[]", "{}"])
def test_a_broken_digest_cache_costs_time_and_nothing_else(tmp_path, content):
    file, cache = tmp_path / "big", tmp_path / "digests.json"
    file.write_bytes(bytes(2_000_000))
    cache.write_text(content)
    assert load.remembered_digest(file, cache) == load.digest_file(file)
    blocked = tmp_path / "big" / "digests.json"  # its folder is a file
    assert load.remembered_digest(file, blocked) == load.digest_file(file)
