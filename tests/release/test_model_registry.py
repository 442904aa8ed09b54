import os

import pytest
from releases import fresh_client, project, write_safetensors

from metagdpo.errors import ModelError, StoreError
from metagdpo.release.model_registry import ModelRegistry, _tracking_uri_in_environment, check_file_types


def test_safetensors_json_and_text_are_accepted(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", 1)
    for name in ("config.json", "merges.txt", "chat_template.jinja", "README.md", "LICENSE"):
        (tmp_path / name).write_text("{}")
    check_file_types(tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "a.pkl", "modeling.py", "model.ckpt", "x.npy", "weights"])
def test_whatever_could_run_code_is_refused_by_name(tmp_path, name):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / name).write_bytes(b"")
    with pytest.raises(ModelError, match=f"deep/{name}: a type that is not on the allow-list"):
        check_file_types(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04]", b"PK\x03\x04" + b"0" * 40, b"\x02" + b"\x00" * 7 + b"[]"])
def test_a_renamed_pickle_is_not_a_safetensors_file(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="not a safetensors file inside"):
        check_file_types(tmp_path)


def test_a_link_out_of_the_directory_is_refused(tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ModelError, match=r"config.json: a link"):
        check_file_types(tmp_path / "model")


def test_the_environment_is_as_before_after_the_one_call_that_needs_it(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with _tracking_uri_in_environment("sqlite:///x.db"):
        assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///x.db"
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mine")
    with _tracking_uri_in_environment("sqlite:///x.db"):
        pass
    assert os.environ["MLFLOW_TRACKING_URI"] == "mine"


def test_registering_leaves_no_database_in_the_current_folder(tmp_path, monkeypatch):
    """Mlflow 3.17 looks the logged model up in a store of its own choice."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    project(tmp_path, fresh_client(tmp_path)).release()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_version_that_does_not_exist_is_a_problem_not_a_crash(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    registry = case.registry()
    assert (registry.exists(1), registry.alias("champion")) == (False, None)


def test_a_store_that_refuses_is_a_store_error_with_the_way_out():
    class Refusing:
        tracking_uri = "postgresql://user:secret@host/db"

        def __getattr__(self, name):
            raise OSError(111, "Connection refused")

    with pytest.raises(StoreError, match="correct MLFLOW_TRACKING_URI") as caught:
        ModelRegistry(Refusing(), "unit", "unit").alias("champion")
    assert "secret" not in str(caught.value)
