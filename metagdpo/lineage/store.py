"""Which MLflow store is used, and the one way to open it.

The address comes from MLFLOW_TRACKING_URI; without it, the embedded default is `mlflow.db` in the project's root with
its artifacts in `mlartifacts/` beside it. Only explicit clients are used: MLflow's fluent functions keep global state.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metagdpo.errors import StoreError


def tracking_uri(root: Path = Path()) -> str:
    """Address of the MLflow store for a project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').resolve()}"


def shown(uri: str) -> str:
    """An address without the user and password that it may hold."""
    return re.sub(r"//[^/@]*@", "//***@", uri)


def open_client(uri: str) -> Any:
    """Connect and return an MlflowClient that is known to answer.

    Args:
        uri: As `tracking_uri` gives it.

    Raises:
        StoreError: The store cannot be reached; says how to go on.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # MLflow's own default is seven tries with growing pauses: minutes of silence in front of a dead server.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    database = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not database.exists():
        print(f"creating the MLflow store {database.name} (once; takes some seconds)", flush=True)
    from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    with reaching(uri):
        client = MlflowClient(uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn every way in which the store at `uri` can fail into a StoreError that says how to go on.

    Raises:
        StoreError: MLflow, its database or its artifact folder refused.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = shown(str(error)).strip().splitlines()[0][:300]
        message = (
            f"the MLflow store {shown(uri)} refused: {reason}\n"
            "Start its server or correct MLFLOW_TRACKING_URI (unset it to use mlflow.db in the project's root), "
            "then run `dvc repro`: finished work is kept."
        )
        raise StoreError(message) from error
