from pathlib import Path

import pytest

from metagdpo.errors import StoreError
from metagdpo.lineage.store import open_client, shown, tracking_uri


def test_the_embedded_store_lies_in_the_projects_root(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlflow.db"


def test_the_address_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri() == "http://127.0.0.1:5000"


def test_a_password_in_the_address_is_never_shown():
    assert shown("postgresql://me:secret@host/db") == "postgresql://***@host/db"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/nowhere/mlflow.db", "nonsense://x"])
def test_a_store_that_cannot_be_reached_is_an_error_with_the_way_out(uri, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1, raising=False)
    with pytest.raises(StoreError, match="correct MLFLOW_TRACKING_URI") as caught:
        open_client(uri)
    assert Path("mlflow.db").exists() is False
    assert caught.value.exit_code == 6
