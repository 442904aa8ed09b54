"""What every test shares: no network, no telemetry, and one tiny model for the session."""

import os
import sys
from pathlib import Path

# Before anything imports these packages: they read their switches once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny tensors: threads that spin for each other cost far more than they bring.
os.environ["OMP_NUM_THREADS"] = "1"

# At the end, so that a test folder never hides a package: `from tiny import make_tiny_model` works in every test.
sys.path.append(str(Path(__file__).parent))

import pytest
from tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory):
    """Directory of the tiny random model; read only, tests that alter it make their own copy."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
