"""The same damaged score files given to the real commands: what does each refuse, and what does it decide otherwise?

Both models answer alike, item for item; then the candidate's file is damaged in one way. Files are lm-eval's
`--log_samples` output, which metagdpo and evalsig read, and the same rows as statgate's lines. `nel gate` is not run
(see docs/gate-peers.md); its column says what its public reader does.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

ITEMS = 200
_DATE = "2026-01-01T00-00-00.000000"


@dataclass(frozen=True)
class Row:
    """One scored item."""

    item: int
    score: float
    prompt: str


@dataclass(frozen=True)
class Run:
    """One model's evaluation."""

    rows: tuple[Row, ...]
    template: str = "template"

    def only(self, keep: Callable[[Row], bool]) -> "Run":
        """Without the other rows."""
        return replace(self, rows=tuple(row for row in self.rows if keep(row)))


def clean() -> Run:
    """Four of five right."""
    return Run(tuple(Row(i, float(i % 5 != 0), f"prompt {i}") for i in range(ITEMS)))


DAMAGES: Mapping[str, Callable[[Run], Run]] = {
    "none": lambda run: run,
    "items in another order": lambda run: replace(run, rows=run.rows[::-1]),
    "10 items there twice, wrong then right": lambda run: replace(
        run, rows=(*(replace(row, score=0.0) for row in run.rows if row.score == 1 and row.item < 13), *run.rows)
    ),
    "40 items missing, the base has them right": lambda run: run.only(lambda row: row.score == 0 or row.item >= 50),
    "140 items missing": lambda run: run.only(lambda row: row.item < 60),
    "one score is NaN": lambda run: replace(run, rows=(replace(run.rows[0], score=float("nan")), *run.rows[1:])),
    "other prompts under the same ids": lambda run: replace(
        run, rows=tuple(replace(row, prompt=f"Q: {row.prompt} A:") for row in run.rows)
    ),
    "another chat template": lambda run: replace(run, template="other template"),
}
"""What happened to the candidate's file."""
NEL_GATE = {
    "none": "GO",
    "items in another order": "GO",
    "10 items there twice, wrong then right": "GO (the last counts)",
    "40 items missing, the base has them right": "GO (160 pairs)",
    "140 items missing": "GO (60 pairs)",
    "one score is NaN": "INCONCLUSIVE, or counted as wrong (`pass@1`)",
    "other prompts under the same ids": "GO",
    "another chat template": "GO",
}
"""Read in engine/gate.py and engine/comparison.py; nothing was run."""
READ = "nel gate (read, not run)"
_OUR_CLI = ("-c", "from metagdpo.cli import main; main()")
COMMANDS: Mapping[str, Callable[[Path, Path], list[str]]] = {
    "metagdpo gate compare": lambda base, candidate: [
        *_OUR_CLI, "gate", "compare", str(base), str(candidate), "--margin", "0.04",
    ],
    "statgate compare": lambda base, candidate: [
        "-m", "statgate", "compare", f"{base}.jsonl", f"{candidate}.jsonl", "--margin", "0.04", "--seed", "0",
    ],
    "evalsig compare": lambda base, candidate: [
        "-m", "evalsig.cli.main", "compare", "--baseline", str(base / f"samples_suite_{_DATE}.jsonl"),
        "--candidate", str(candidate / f"samples_suite_{_DATE}.jsonl"), "--metric", "acc", "--alpha", "0.1",
    ],
}  # fmt: skip
ALL = (*COMMANDS, READ)


def there() -> list[str]:
    """Commands that can be run here, and the column that was read."""
    return [tool for tool in ALL if tool == READ or importlib.util.find_spec(tool.split()[0]) is not None]


def answers(damage: str, tools: Iterable[str]) -> dict[str, str]:
    """What each command says to one damage."""
    with tempfile.TemporaryDirectory() as folder:
        base, candidate = Path(folder) / "base", Path(folder) / "candidate"
        for path, run in ((base, clean()), (candidate, DAMAGES[damage](clean()))):
            write(path, run)
        return {tool: NEL_GATE[damage] if tool == READ else answer(COMMANDS[tool](base, candidate)) for tool in tools}


def write(path: Path, run: Run) -> None:
    """lm-eval's folder, and the same rows as statgate's lines beside it."""
    path.mkdir()
    results: dict[str, Any] = {
        "configs": {"suite": {"task": "suite", "output_type": "generate_until"}},
        "higher_is_better": {"suite": {"acc": True}},
        "n-samples": {"suite": {"original": ITEMS, "effective": len(run.rows)}},
        "lm_eval_version": "0.4.13",
        "chat_template_sha": _digest(run.template),
    }
    (path / f"results_{_DATE}.json").write_text(json.dumps(results), encoding="utf-8")
    samples = [
        {
            "doc_id": row.item,
            "doc_hash": _digest(f"document {row.item}"),
            "prompt_hash": _digest(row.prompt),
            "target_hash": _digest(f"target {row.item}"),
            "filter": "none",
            "metrics": ["acc"],
            "acc": row.score,
        }
        for row in run.rows
    ]
    _lines(path / f"samples_suite_{_DATE}.jsonl", samples)
    cases = [{"case_id": str(row.item), "score": row.score, "prompt": row.prompt} for row in run.rows]
    _lines(path.with_suffix(".jsonl"), cases)


def answer(words: list[str]) -> str:
    """Verdict (evalsig compare has none: its interval) and pairs of a command, or that it refuses."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    verdict = re.search(r"\b(PROMOTE|SHIP|BLOCK|INCONCLUSIVE)\b|CI \(90%\): +(\[.*\])", done.stdout)
    if done.returncode > 2 or verdict is None:
        return f"refuses (exit {done.returncode})"
    pairs = re.search(r"(?:paired cases|n_pairs:) +(\d+)", done.stdout)
    notes = [f"{pairs[1]} pairs" if pairs else "", "unpaired" if "(unpaired)" in done.stdout else ""]
    said = ", ".join(note for note in notes if note)
    return f"{verdict[1] or verdict[2]} ({said})" if said else verdict[1]


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
