"""Bad input: a clear error with the way out, the right exit code, and nothing lost."""

import shutil

import pytest
import toy


@pytest.fixture
def project(fresh_project, tmp_path):
    """A project in which nothing has run yet."""
    root = tmp_path / "project"
    shutil.copytree(fresh_project, root)
    return root


def test_all_problems_of_params_at_once(project):
    """An unknown key and a wrong type are both named, with their paths."""
    toy.set_params(project, "reward: {correct: 1.0, format: 0.5}", "reward: {correct: yes, fromat: 0.5}")
    toy.set_params(project, "evaluate: {batch_size: 32", "evalute: {}\nevaluate: {batch_size: 32")
    text = toy.run(project, "metagdpo", "check", code=3)
    for words in ("reward.correct", "reward.fromat", "evalute: no stage has such a section"):
        assert words in text


def test_missing_model_names_the_ways_to_give_one(project):
    """A model directory that is not there."""
    toy.set_params(project, "base: {model: tiny,", "base: {model: nowhere,")
    text = toy.run(project, "python", "-m", "pipelines.assets", code=5)
    assert "there is no model directory `nowhere`" in text
    assert "asset:<name>" in text
    assert "Traceback" not in text


def test_malformed_line_is_named(project):
    """File and line number of a line that is not JSON."""
    lines = (project / "questions.jsonl").read_text().splitlines()
    lines[2] = '{"question": "3 + 4 =", "answer"'
    (project / "questions.jsonl").write_text("\n".join(lines))
    text = toy.run(project, "python", "-m", "pipelines.ingest", code=4)
    assert "questions.jsonl" in text
    assert "line 3" in text


def test_empty_pool(project):
    """No question at all."""
    (project / "questions.jsonl").write_text("")
    text = toy.run(project, "python", "-m", "pipelines.ingest", code=4)
    assert "Traceback" not in text
    assert "question" in text


def test_suite_without_items(project):
    """A suite whose file is empty is named."""
    (project / "items/digits.jsonl").write_text("")
    text = toy.run(project, "python", "-m", "pipelines.suites", code=None)
    assert "digits" in text
    assert "Traceback" not in text
