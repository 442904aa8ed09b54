"""Runs of other harnesses in a folder of their own, changed at one place."""

import json
import shutil
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def lm_eval_run(tmp_path):
    """Copy the run of a model and change it: `results` is edited in place, so are the lines of a task's samples."""

    def make(model, *, results=None, **samples):
        folder = tmp_path / model
        shutil.copytree(FIXTURES / "lm_eval" / model, folder)
        if results is not None:
            path = next(folder.rglob("results_*.json"))
            document = json.loads(path.read_text())
            results(document)
            path.write_text(json.dumps(document))
        for task, change in samples.items():
            path = next(folder.rglob(f"samples_{task}_*.jsonl"))
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            changed = change(lines)
            path.write_text("".join(json.dumps(line) + "\n" for line in (lines if changed is None else changed)))
        return folder

    return make


@pytest.fixture
def inspect_log(tmp_path):
    """Copy the JSON log of a model's task and change it in place."""

    def make(model, change=None, task="sums"):
        source = next((FIXTURES / "inspect" / f"{model}-json").glob(f"*_{task}_*.json"))
        document = json.loads(source.read_text())
        if change is not None:
            change(document)
        path = tmp_path / f"{model}_{task}.json"
        path.write_text(json.dumps(document))
        return path

    return make


@pytest.fixture
def table(tmp_path):
    """Write a table."""

    def make(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make
