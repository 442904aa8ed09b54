"""Where a run stands in git and DVC: commit, the digest of its dvc.lock entry, and the DVC digests of its data."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metagdpo.params import load_yaml
from metagdpo.schema import Frozen, digest_json

NO_COMMIT = "uncommitted"
NO_ENTRY = "absent"
# The run itself rewrites these two, so they say nothing about the code that ran.
WRITTEN_BY_RUNS = ("registry/ledger.jsonl", "dvc.lock")


class Provenance(Frozen):
    """The code and the pipeline state behind a candidate."""

    git_commit: str
    """40 hex digits, with `-dirty` when tracked files differ from it; `uncommitted` where there is no commit."""
    dvc_lock: str
    """Digest of the train entry in dvc.lock; `absent` when training ran outside DVC."""


def provenance(root: Path) -> Provenance:
    """Read git and dvc.lock of the project in `root`."""
    entry = lock_entry(root, "train")
    return Provenance(git_commit=git_commit(root), dvc_lock=NO_ENTRY if entry is None else digest_json(entry))


def git_commit(root: Path) -> str:
    """The commit that is checked out, with `-dirty` when tracked files differ from it.

    registry/ledger.jsonl and dvc.lock do not count: every run rewrites them.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return NO_COMMIT
    excluded = [f":(exclude){path}" for path in WRITTEN_BY_RUNS]
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *excluded)
    return f"{commit}-dirty" if changed else commit


def lock_entry(root: Path, stage: str) -> Any:
    """The entry of one stage in dvc.lock as plain values; None when DVC has not run it.

    Raises:
        ConfigError: dvc.lock is not YAML.
    """
    path = root / "dvc.lock"
    document = load_yaml(path) if path.exists() else None
    stages = document.get("stages") if isinstance(document, dict) else None
    return (stages or {}).get(stage)


def dvc_md5s(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """DVC's MD5 of the given output files, as dvc.lock names them; files that DVC does not know are left out."""
    path = root / "dvc.lock"
    document = load_yaml(path) if path.exists() else None
    stages = (document.get("stages") or {}) if isinstance(document, dict) else {}
    known = {out["path"]: str(out["md5"]) for entry in stages.values() for out in entry.get("outs", []) if "md5" in out}
    return {name: known[name] for name in paths if name in known}


def _git(root: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603  (fixed words, no shell)
            ["git", *words],  # noqa: S607  (git is found like the user finds it)
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
