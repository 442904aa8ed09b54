import subprocess

import pytest

from metagdpo.errors import ConfigError
from metagdpo.lineage.manifest import dvc_md5s, git_commit, lock_entry, provenance
from metagdpo.schema import digest_json

LOCK = """schema: '2.0'
stages:
  reward:
    cmd: python -m pipelines.reward
    outs:
    - path: data/groups.jsonl
      md5: 5d41402abc4b2a76b9719d911017c592
  train:
    cmd: python -m pipelines.train
    params:
      params.yaml:
        train.lr: 2e-6
"""


@pytest.fixture
def repository(tmp_path):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=tmp_path, check=True)

    (tmp_path / "registry").mkdir()
    for name in ("code.py", "dvc.lock", "registry/ledger.jsonl"):
        (tmp_path / name).write_text("one\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    return tmp_path


def test_a_clean_tree_is_its_commit(repository):
    assert len(git_commit(repository)) == 40


def test_what_the_run_itself_rewrites_does_not_make_it_dirty(repository):
    for name in ("dvc.lock", "registry/ledger.jsonl", "untracked.txt"):
        (repository / name).write_text("two\n")
    assert len(git_commit(repository)) == 40


def test_changed_code_makes_it_dirty(repository):
    (repository / "code.py").write_text("two\n")
    assert git_commit(repository).endswith("-dirty")


def test_without_a_commit_or_a_lock_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = provenance(tmp_path)
    assert (found.git_commit, found.dvc_lock) == ("uncommitted", "absent")


def test_the_train_entry_of_dvc_lock_is_digested_as_plain_values(tmp_path):
    (tmp_path / "dvc.lock").write_text(LOCK)
    entry = {"cmd": "python -m pipelines.train", "params": {"params.yaml": {"train.lr": 2e-6}}}
    assert lock_entry(tmp_path, "train") == entry
    assert provenance(tmp_path).dvc_lock == digest_json(entry)


def test_dvc_digests_are_found_by_path(tmp_path):
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert dvc_md5s(tmp_path, ["data/groups.jsonl", "data/other"]) == {
        "data/groups.jsonl": "5d41402abc4b2a76b9719d911017c592"
    }


def test_a_broken_lock_is_named(tmp_path):
    (tmp_path / "dvc.lock").write_text("stages: [")
    with pytest.raises(ConfigError, match=r"dvc.lock is not valid YAML"):
        provenance(tmp_path)
