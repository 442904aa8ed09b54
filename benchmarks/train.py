"""Claim: training from response groups costs a fraction of DPO training on the same pairs, with the same gradient.

One run, side by side: our engine (packed, streamed, two-pass) and TRL's own DPOTrainer on the adjacent pairs of the
same groups of random tokens, with the same model, dtype and threads. Every measurement is a process of its own, so that
its peak memory is its own; the sides take turns. Left out on both sides: tokenising, data loading, the optimiser.

    useful tokens a second = (tokens of the prompt once + tokens of all responses) / seconds of one step

A finished measurement is kept in the results file and not repeated. docs/performance.md is written from that file.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _train_report import Results, publish, report

from metagdpo.schema import write_json

OURS, CURVE, REPEATED = (
    ("packed", "streamed", "two_pass"),
    ("streamed", "two_pass"),
    ("packed", "streamed", "trl_cached"),
)
HEADLINE = (256, 128, 10)
VARIANTS = ("trl_cached_compact", "trl_cached_single", "trl_cached_checkpointing")
"""Of TRL, at the headline."""
GRID = ((64, 64, 4), (64, 64, 10), (64, 64, 20), (256, 128, 4), (512, 64, 10), (64, 256, 10), (512, 256, 4))
FULL_GRID = tuple(
    (prompt, response, group)
    for prompt, response in ((64, 64), (256, 128), (512, 64), (64, 256), (512, 256))
    for group in (4, 10, 20)
)
CURVE_GROUPS = (4, 10, 20, 64)
"""Group sizes of the memory curve, at the prompt and response of the headline."""
TOLERANCE = 1e-4
"""Largest relative difference of losses and gradients between the sides, in fp32."""
QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}  # fmt: skip
EXAMPLES = """examples:
  python benchmarks/train.py                                     the default grid, about 30 minutes on 2 cores
  python benchmarks/train.py --quick                             one small point, about 3 minutes
  python benchmarks/train.py --full                              every point and every side, some hours on 2 cores
  python benchmarks/train.py --points 256,128,10 --repeats 5     one point, often
  python benchmarks/train.py --method lora                       LoRA in place of full fine-tuning
  python benchmarks/train.py --shape llama-1b --dtype bfloat16 --full       on a GPU
  python benchmarks/train.py --report-only --publish docs/performance.md    tables and picture from what was measured
"""


@dataclass(frozen=True)
class Task:
    """One measurement."""

    side: str
    setting: dict[str, Any]
    repeat: int

    @property
    def cost(self) -> float:
        """Roughly proportional to its time: tokens computed, and a constant for starting."""
        prompt, response, group = (int(self.setting[name]) for name in ("prompt", "response", "group"))
        if self.side.startswith("trl"):
            return 1500 + 2 * (group - 1) * (prompt + response) * (1.3 if self.side == "trl" else 1.0)
        return 1500 + (prompt + group * response) * (1.3 if self.side == "two_pass" else 1.0)


def main() -> None:
    """Measure what is missing, print tables, and leave with 1 when the sides do not agree."""
    arguments = _arguments()
    results = Results.read(arguments.results)
    if not arguments.report_only:
        _measure(arguments, results)
    shown = _shared(arguments)
    text = report(results, shown)
    print("\n" + text)
    if arguments.publish:
        publish(results, shown, arguments.publish)
        print(f"wrote {arguments.publish} and its picture")
    wrong = results.disagreements(shown, TOLERANCE) if arguments.dtype == "float32" else []
    for line in wrong:
        print(f"DISAGREE beyond {TOLERANCE}: {line}")
    if wrong or results.failures(shown):
        raise SystemExit(1)


def plan(arguments: argparse.Namespace) -> list[Task]:
    """What to measure: repeats outermost and sides innermost, so that a slow minute hits every side."""
    base, tasks = _shared(arguments), []
    for repeat in range(arguments.repeats):
        for point, sides in _points(arguments, repeat).items():
            setting = base | dict(zip(("prompt", "response", "group"), point, strict=True))
            tasks += [Task(side, setting, repeat) for side in sides]
    return tasks


def _shared(arguments: argparse.Namespace) -> dict[str, Any]:
    """The part of a setting that is the same at every point."""
    return {
        "model": _model(arguments), "layers": arguments.layers, "method": arguments.method, "dtype": arguments.dtype,
        "threads": arguments.threads, "ragged": arguments.ragged,
    }  # fmt: skip


def _points(arguments: argparse.Namespace, repeat: int) -> dict[tuple[int, int, int], tuple[str, ...]]:
    """The sides of each point in one repeat. By default only the headline is repeated, with the closest sides."""
    everything = (*OURS, "trl_cached", "trl")
    if arguments.points:
        return dict.fromkeys(arguments.points, arguments.sides or everything)
    if arguments.quick:
        return {(64, 64, 4): arguments.sides or everything} if repeat == 0 else {}
    found: dict[tuple[int, int, int], tuple[str, ...]] = {HEADLINE: REPEATED}
    if repeat == 0 or arguments.full:
        found[HEADLINE] = (*everything, *VARIANTS)
        for point in FULL_GRID if arguments.full else GRID:
            found.setdefault(point, everything if arguments.full else REPEATED)
        for group in CURVE_GROUPS:
            point = (*HEADLINE[:2], group)
            found[point] = tuple(dict.fromkeys((*found.get(point, ()), *CURVE)))
    chosen = arguments.sides or tuple(side for sides in found.values() for side in sides)
    return {point: tuple(side for side in sides if side in chosen) for point, sides in found.items()}


def _measure(arguments: argparse.Namespace, results: "Results") -> None:
    tasks = plan(arguments)
    todo = [task for task in tasks if arguments.again or not results.has(task.setting, task.side, task.repeat)]
    print(f"{len(tasks)} measurements, {len(tasks) - len(todo)} of them known; results: {arguments.results}")
    results.machine = _machine()
    started, spent, left = time.monotonic(), 0.0, sum(task.cost for task in todo)
    with tempfile.TemporaryDirectory() as folder:
        for number, task in enumerate(todo, start=1):
            run = _run(task, Path(folder), arguments.memory_limit, share=task.repeat == 0 and _is_headline(task))
            results.put(run)
            write_json(arguments.results, results.as_json())
            spent, left = spent + task.cost, left - task.cost
            minutes = (time.monotonic() - started) / 60
            print(
                f"[{number}/{len(todo)}] {_point(task.setting)} {task.side:24} {_outcome(run)}; "
                f"{minutes:.0f} min, about {minutes * left / spent:.0f} left",
                flush=True,
            )


def _run(task: Task, folder: Path, memory_limit: float | None, *, share: bool) -> dict[str, Any]:
    """Measure in a process of its own; a failure is a result too."""
    asked, answer = folder / "task.json", folder / "result.json"
    answer.unlink(missing_ok=True)
    what = {"side": task.side, "setting": task.setting, "memory_limit_gb": memory_limit, "metrics_share": share}
    write_json(asked, what | {"cache": str(folder)})
    script = Path(__file__).with_name("_train_sides.py")
    environment = os.environ | QUIET | {"OMP_NUM_THREADS": str(task.setting["threads"])}
    done = subprocess.run(
        [sys.executable, str(script), str(asked), str(answer)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    run = {"side": task.side, "setting": task.setting, "repeat": task.repeat}
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return run | found
    lines = done.stderr.strip().splitlines()
    killed = f"ended by signal {-done.returncode}, 9 is usually a lack of memory"
    return run | {"failed": killed if done.returncode < 0 else (lines[-1][:300] if lines else "no message")}


def _outcome(run: dict[str, Any]) -> str:
    if run.get("failed"):
        return f"failed: {run['failed']}"
    rate = run["useful_tokens"] / run["seconds"]
    return f"{run['seconds']:7.2f} s ({run['wall_s']:.0f} wall), {rate:7.1f} useful tokens/s, {run['peak_gb']:5.2f} GB"


def _is_headline(task: Task) -> bool:
    return task.side == "trl_cached" and tuple(task.setting[k] for k in ("prompt", "response", "group")) == HEADLINE


def _point(setting: dict[str, Any]) -> str:
    return f"P={setting['prompt']} R={setting['response']} G={setting['group']}"


def _machine() -> dict[str, Any]:
    """What the numbers depend on, without a name of the machine."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    try:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "peft")}
    except importlib.metadata.PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed, which this benchmark needs: pip install '.[grpo]'") from error
    return {"cpu": cpu, "cores": os.cpu_count(), "versions": versions}


def _model(arguments: argparse.Namespace) -> str:
    """A shape that was asked for, else the directory where it is, else the shape of the embedded default."""
    if arguments.shape:
        return str(arguments.shape)
    return str(arguments.model) if arguments.model.is_dir() else "smollm2-135m"


def _triple(text: str) -> tuple[int, int, int]:
    parts = tuple(int(part) for part in text.split(","))
    if len(parts) != 3 or min(parts) < 1 or parts[2] < 3:
        raise argparse.ArgumentTypeError(f"`{text}` is not PROMPT,RESPONSE,GROUP with a group of at least 3")
    return parts[0], parts[1], parts[2]


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, default=Path("assets/smollm2-135m-instruct"), help="model directory, used if it exists"
    )
    parser.add_argument("--shape", choices=("tiny", "smollm2-135m", "llama-1b", "llama-8b"), help="random weights")
    parser.add_argument("--layers", type=int, help="fewer layers of a shape, for trying the script")
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of weights and arithmetic")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="the same on both sides")
    parser.add_argument("--ragged", action="store_true", help="response lengths uniform in [R/2, R] instead of all R")
    parser.add_argument("--points", type=_triple, nargs="+", metavar="P,R,G", help="instead of the default grid")
    parser.add_argument("--sides", nargs="+", help="only these: packed streamed two_pass trl trl_cached ...")
    parser.add_argument("--quick", action="store_true", help="one small point, once")
    parser.add_argument("--full", action="store_true", help="every point with every side, all of them repeated")
    parser.add_argument("--repeats", type=int, default=3, help="by default of the headline point only")
    parser.add_argument(
        "--memory-limit", type=float, metavar="GB", help="TRL gets smaller batches above it (0.8 of what is free)"
    )
    parser.add_argument("--results", type=Path, default=Path(".work/benchmarks/train.json"))
    parser.add_argument("--again", action="store_true", help="measure what is known once more")
    parser.add_argument("--report-only", action="store_true", help="measure nothing")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="write tables and picture into this page")
    arguments = parser.parse_args(given)
    if arguments.layers and not (arguments.shape or _model(arguments) == "smollm2-135m"):
        parser.error("--layers needs --shape: a model out of a directory stays whole")
    return arguments


if __name__ == "__main__":
    main()
