"""What benchmarks/train.py measured, as tables and one picture; every target stands beside its number.

Medians over repeats; spreads are smallest to largest. A failed measurement is shown as failed, a missing one as a dash.
"""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metagdpo.report.figures import PALETTE, save
from metagdpo.schema import write_text

NAMES = {
    "packed": "packed", "streamed": "streamed", "two_pass": "two-pass", "trl": "TRL",
    "trl_cached": "TRL, precomputed", "trl_cached_checkpointing": "TRL, precomputed, gradient checkpointing",
    "trl_cached_compact": "TRL, precomputed, head on responses only",
    "trl_cached_single": "TRL, precomputed, one pair a batch",
    "trl_autocast": "TRL, autocast", "trl_cached_autocast": "TRL, precomputed, autocast",
}  # fmt: skip
OURS = ("packed", "streamed", "two_pass")
HEADLINE = (256, 128, 10)
SPEED_UP = {"trl": 8.0, "trl_cached": 5.5}
"""Least speed-up at the headline point over each way of TRL."""
SPEED_UP_ANYWHERE = 2.0
MEMORY_SHARE = 0.4
FLATNESS = 1.15
MATMUL_SHARE = 0.6
ROOFLINE_SHARE = 0.45
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")
PICTURE = "training-speed"

Point = tuple[int, int, int]
Run = dict[str, Any]


@dataclass
class Results:
    """All runs of a results file."""

    runs: list[Run] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Of the file, or empty where there is none."""
        if not path.exists():
            return cls()
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(found["runs"], found["machine"])

    def as_json(self) -> dict[str, Any]:
        """What the file holds."""
        return {"machine": self.machine, "runs": self.runs}

    def has(self, setting: dict[str, Any], side: str, repeat: int) -> bool:
        """Whether it was measured; a failure counts as not measured."""
        wanted = (setting, side, repeat)
        return any(
            (run["setting"], run["side"], run["repeat"]) == wanted and not run.get("failed") for run in self.runs
        )

    def put(self, run: Run) -> None:
        """Add a run in place of an earlier one of the same kind."""
        same = ("setting", "side", "repeat")
        self.runs = [old for old in self.runs if any(old[name] != run[name] for name in same)] + [run]

    def table(self, shown: dict[str, Any]) -> dict[Point, dict[str, list[Run]]]:
        """Good runs by point and side, for one model, method, dtype and so on."""
        found: dict[Point, dict[str, list[Run]]] = {}
        for run in self.runs:
            setting = run["setting"]
            if run.get("failed") or any(setting[name] != value for name, value in shown.items()):
                continue
            point = (setting["prompt"], setting["response"], setting["group"])
            found.setdefault(point, {}).setdefault(run["side"], []).append(run)
        return dict(sorted(found.items(), key=lambda item: (item[0][0] + item[0][1], item[0])))

    def failures(self, shown: dict[str, Any]) -> list[str]:
        """What could not be measured, and why."""
        point = ("prompt", "response", "group")
        return [
            f"{_name([run['setting'][name] for name in point])} {run['side']}: {run['failed']}"
            for run in self.runs
            if run.get("failed") and all(run["setting"][name] == value for name, value in shown.items())
        ]

    def agreement(self, shown: dict[str, Any]) -> list[tuple[Point, str, float, float | None]]:
        """Point, side, and how far its loss and gradient are from TRL's (or from the first side's), relatively."""
        found = []
        for point, sides in self.table(shown).items():
            other = next((name for name in ("trl_cached", "trl") if name in sides), next(iter(sides)))
            oracle = sides[other][0]
            for side, runs in sides.items():
                if side == other:
                    continue
                loss = max(abs(run["loss"] - oracle["loss"]) / abs(oracle["loss"]) for run in runs)
                gradients = [
                    math.dist(run["gradient"], oracle["gradient"]) / math.hypot(*oracle["gradient"])
                    for run in runs
                    if "gradient" in run and "gradient" in oracle
                ]
                found.append((point, side, loss, max(gradients, default=None)))
        return found

    def disagreements(self, shown: dict[str, Any], tolerance: float) -> list[str]:
        """Sides whose loss or gradient is too far away."""
        return [
            f"{_name(point)} {side}: loss {loss:.1e}, gradient {'-' if gradient is None else f'{gradient:.1e}'}"
            for point, side, loss, gradient in self.agreement(shown)
            if not (loss <= tolerance and (gradient is None or gradient <= tolerance))
        ]


def report(results: Results, shown: dict[str, Any]) -> str:
    """Every table as Markdown."""
    table = results.table(shown)
    if not table:
        return "Nothing measured yet."
    failures = "\n".join(f"- failed: {line}" for line in results.failures(shown))
    parts = [
        _heading(results, shown),
        failures,
        _speed(table),
        _memory(table),
        _curve(table),
        _matmul(table),
        _once(table),
    ]
    return "\n\n".join([*(part for part in parts if part), _agreement(results.agreement(shown))]) + "\n"


def publish(results: Results, shown: dict[str, Any], page: Path) -> None:
    """Put the tables between the marks of a page, and the picture beside it."""
    save(_picture(results.table(shown)), page.parent / "images", PICTURE)
    text = page.read_text(encoding="utf-8")
    start, end = (text.index(mark) for mark in MARKS)
    image = f"![Rates at the headline point, speed-up over TRL, peak memory over the group size](images/{PICTURE}.png)"
    middle = f"{MARKS[0]}\n\n{report(results, shown)}\n{image}\n\n"
    write_text(page, text[:start] + middle + text[end:])


def tokens_a_second(runs: Sequence[Run]) -> list[float]:
    """Useful tokens a second of each run; on a CPU a second of its threads."""
    return [run["useful_tokens"] / run["seconds"] for run in runs]


def _heading(results: Results, shown: dict[str, Any]) -> str:
    machine = results.machine
    first = next(iter(next(iter(results.table(shown).values())).values()))[0]
    threads, device = first["setting"]["threads"], first["matmul"]["device"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {threads} threads" if device == "CPU" else device
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    model = Path(shown["model"]).name + (f" cut to {shown['layers']} layers" if shown["layers"] else "")
    method = "full fine-tuning" if shown["method"] == "full" else "LoRA"
    lengths = "responses of R/2 to R tokens" if first["setting"]["ragged"] else "responses of R tokens"
    return f"{model}, {method}, {shown['dtype']}, {lengths}. {where}. {versions}."


def _speed(table: dict[Point, dict[str, list[Run]]]) -> str:
    rows = []
    for point, sides in table.items():
        prompt, response, group = point
        ratio = 2 * (group - 1) * (prompt + response) / (prompt + group * response)
        for side in (name for name in NAMES if name in sides):
            runs = sides[side]
            rates, wall = tokens_a_second(runs), _median(runs, "wall_s")
            cells = [*(map(str, point)), f"{ratio:.1f}", NAMES[side], _spread(rates)]
            cells += [f"{_median(runs, 'seconds'):.2f}", f"{wall:.1f}"]
            cells += [_speed_up(point, sides, side, other) for other in ("trl", "trl_cached")]
            theirs = [_median(each, "seconds") for name, each in sides.items() if name not in OURS]
            over = f"{min(theirs) / _median(runs, 'seconds'):.1f}" if side in OURS and theirs else "-"
            rows.append([*cells, over])
    head = [
        "P",
        "R",
        "G",
        "tokens TRL / ours",
        "side",
        "useful tokens/s",
        "seconds a step",
        "wall",
        "over TRL",
        "over TRL, precomputed",
        "over the fastest TRL",
    ]
    note = (
        f"Speed. Targets: at P = 256, R = 128, G = 10 at least {SPEED_UP['trl']:g} over TRL and "
        f"{SPEED_UP['trl_cached']:g} over TRL with precomputed references; everywhere at least {SPEED_UP_ANYWHERE:g}. "
        "Seconds are those of all threads on a CPU, which other work on the machine lengthens less than wall time, and "
        "wall seconds on a GPU; speed-ups are their ratios, in brackets those of wall time."
    )
    return note + "\n\n" + _markdown(head, rows)


def _speed_up(point: Point, sides: dict[str, list[Run]], side: str, other: str) -> str:
    if side not in OURS or other not in sides:
        return "-"
    times, wall = (_median(sides[other], name) / _median(sides[side], name) for name in ("seconds", "wall_s"))
    target = SPEED_UP[other] if point == HEADLINE else SPEED_UP_ANYWHERE
    return f"{times:.1f} ({wall:.1f}) {_verdict(times >= target)}"


def _memory(table: dict[Point, dict[str, list[Run]]]) -> str:
    rows = []
    for point, sides in table.items():
        theirs = {name: _median(runs, "peak_gb") for name, runs in sides.items() if name not in OURS}
        if not theirs:
            continue
        for side in (name for name in NAMES if name in sides):
            runs = sides[side]
            peak, above = _median(runs, "peak_gb"), _median(runs, "peak_gb") - _median(runs, "loaded_gb")
            batches = runs[0].get("pairs_per_batch")
            cells = [*(map(str, point)), NAMES[side], "-" if batches is None else _batches(batches)]
            cells += [f"{peak:.2f}", f"{above:.2f}"]
            for other in ("trl", "trl_cached", min(theirs, key=theirs.__getitem__)):
                shown = side in OURS and other in theirs
                cells.append(
                    f"{peak / theirs[other]:.2f} {_verdict(peak / theirs[other] <= MEMORY_SHARE)}" if shown else "-"
                )
            rows.append(cells)
    if not rows:
        return ""
    head = ["P", "R", "G", "side", "pairs a batch", "peak GB", "above the loaded base"]
    head += ["share of TRL's", "of TRL's, precomputed", "of the leanest TRL's"]
    note = (
        "Memory: peak of the process during a step (on a GPU: of its allocations). "
        f"Target: at most {MEMORY_SHARE:g} of TRL's."
    )
    return note + "\n\n" + _markdown(head, rows)


def _batches(sizes: Sequence[int]) -> str:
    return f"{len(sizes)} x {sizes[0]}" if len(set(sizes)) == 1 else " + ".join(map(str, sizes))


def _curve(table: dict[Point, dict[str, list[Run]]]) -> str:
    rows = []
    for side in ("streamed", "two_pass", "packed"):
        found = {point[2]: sides[side] for point, sides in table.items() if point[:2] == HEADLINE[:2] and side in sides}
        if not {4, 64} <= set(found):
            continue
        peaks = {group: _median(runs, "peak_gb") for group, runs in sorted(found.items())}
        above = {group: peaks[group] - _median(found[group], "loaded_gb") for group in peaks}
        flat = peaks[64] / peaks[4]
        line = ", ".join(f"{group}: {peaks[group]:.2f} ({above[group]:.2f})" for group in peaks)
        rows.append([NAMES[side], line, f"{flat:.2f} ({above[64] / above[4]:.2f}) {_verdict(flat <= FLATNESS)}"])
    if not rows:
        return ""
    note = (
        f"Memory over the group size at P = 256, R = 128. Target: at G = 64 at most {FLATNESS:g} times that at G = 4; "
        "in brackets above the loaded base."
    )
    return note + "\n\n" + _markdown(["side", "G: peak GB", "G = 64 over G = 4"], rows)


def _matmul(table: dict[Point, dict[str, list[Run]]]) -> str:
    rows = []
    for point, sides in table.items():
        for side in (name for name in NAMES if name in sides):
            runs = sides[side]
            shares = [run["flops"] / run["seconds"] / run["matmul"]["own_shapes"] for run in runs]
            square = statistics.median(run["flops"] / run["seconds"] / run["matmul"]["square"] for run in runs)
            rates = [run["matmul"]["own_shapes"] / 1e9 for run in runs]
            roofline = runs[0]["matmul"]["roofline"]
            cells = [*(map(str, point)), NAMES[side], _spread(rates, 0), _spread(shares, 2), f"{square:.2f}"]
            peak = (
                None
                if roofline is None
                else statistics.median(run["flops"] / run["seconds"] / roofline for run in runs)
            )
            cells.append("-" if peak is None else f"{peak:.2f}")
            reached = peak >= ROOFLINE_SHARE if peak is not None else statistics.median(shares) >= MATMUL_SHARE
            cells.append(_verdict(reached) if side in OURS else "-")
            rows.append(cells)
    head = [
        "P",
        "R",
        "G",
        "side",
        "matmul GFLOP/s",
        "share of it",
        "share of a square matmul's",
        "share of the roofline",
        "target",
    ]
    note = (
        "Arithmetic: FLOP/s of a step over the rate of multiplications alone, measured in the same process right "
        f"after. Targets: {MATMUL_SHARE:g} of the matmul rate at the model's own shapes on a CPU, {ROOFLINE_SHARE:g} "
        "of the bf16 roofline on a GPU. Counted is what one step needs (the prompt once, nothing recomputed), the same "
        "for every side."
    )
    return note + "\n\n" + _markdown(head, rows)


def _once(table: dict[Point, dict[str, list[Run]]]) -> str:
    rows = []
    for point, sides in table.items():
        ours = max((run["once_s"] for side in OURS for run in sides.get(side, ())), default=0.0)  # later ones read it
        theirs = max((run["once_s"] for run in sides.get("trl_cached", ())), default=0.0)
        metrics = next((run["metrics_s"] for run in sides.get("trl_cached", ()) if "metrics_s" in run), None)
        if ours and theirs:
            step = _median(sides["trl_cached"], "wall_s")
            share = "-" if metrics is None else f"{metrics:.1f} s, {100 * metrics / step:.0f} %"
            rows.append([*(map(str, point)), f"{ours:.2f}", f"{theirs:.2f}", share])
    if not rows:
        return ""
    head = ["P", "R", "G", "ours, s", "TRL, s", "metrics in TRL's head, of a step with precomputed references"]
    return "References of one group, computed once, wall seconds, not part of a step:\n\n" + _markdown(head, rows)


def _agreement(found: Iterable[tuple[Point, str, float, float | None]]) -> str:
    rows = [
        [*(map(str, point)), NAMES[side], f"{loss:.1e}", "-" if gradient is None else f"{gradient:.1e}"]
        for point, side, loss, gradient in found
    ]
    head = ["P", "R", "G", "side", "loss", "gradient"]
    return "Agreement: relative difference to TRL's loss and to a sample of its gradient.\n\n" + _markdown(head, rows)


def _picture(table: dict[Point, dict[str, list[Run]]]) -> Any:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(13, 4.2), layout="constrained")
        rates, speed, memory = figure.subplots(1, 3)
        _draw_rates(rates, table.get(HEADLINE, {}))
        _draw_speed(speed, table)
        _draw_memory(memory, table)
    return figure


def _draw_rates(axes: Any, sides: dict[str, list[Run]]) -> None:
    shown = [name for name in NAMES if name in sides]
    for row, side in enumerate(shown):
        rates = tokens_a_second(sides[side])
        axes.barh(row, statistics.median(rates), color=PALETTE["candidate" if side in OURS else "base"], height=0.7)
        axes.plot([min(rates), max(rates)], [row, row], color=PALETTE["ink"], linewidth=1.2)
    axes.set_yticks(range(len(shown)), [NAMES[side] for side in shown])
    axes.invert_yaxis()
    axes.set_title("Useful tokens a second, P = 256, R = 128, G = 10", loc="right", size=9.5)


def _draw_speed(axes: Any, table: dict[Point, dict[str, list[Run]]]) -> None:
    other = "trl_cached"
    points = [point for point, sides in table.items() if other in sides and any(name in sides for name in OURS)]
    for side, colour, shape in zip(OURS, ("candidate", "good", "third"), "osD", strict=True):
        found = [(i, table[point]) for i, point in enumerate(points) if side in table[point]]
        heights = [_median(sides[other], "seconds") / _median(sides[side], "seconds") for _, sides in found]
        axes.plot([i for i, _ in found], heights, shape, color=PALETTE[colour], label=NAMES[side], fillstyle="none")
    axes.axhline(1, color=PALETTE["ink"], linewidth=0.8)
    axes.axhline(SPEED_UP_ANYWHERE, color=PALETTE["bad"], linewidth=0.8, linestyle="--")
    if HEADLINE in points:
        at = points.index(HEADLINE)
        axes.plot([at - 0.45, at + 0.45], [SPEED_UP[other]] * 2, color=PALETTE["bad"], linewidth=1.6)
    axes.set_xticks(range(len(points)), ["/".join(map(str, point)) for point in points], rotation=60, ha="right")
    axes.set_ylim(bottom=0)
    axes.set_title(f"Times faster than {NAMES[other]} (red: target)", loc="left", size=9.5)
    axes.set_xlabel("prompt / response / group")
    axes.legend(frameon=False)


def _draw_memory(axes: Any, table: dict[Point, dict[str, list[Run]]]) -> None:
    colours = {"packed": "candidate", "streamed": "good", "two_pass": "third", "trl_cached": "base", "trl": "ink"}
    for side, colour in colours.items():
        found = [
            (point[2], sides[side]) for point, sides in table.items() if point[:2] == HEADLINE[:2] and side in sides
        ]
        if found:
            peaks = [_median(runs, "peak_gb") for _, runs in found]
            axes.plot(
                [group for group, _ in found], peaks, "o-", color=PALETTE[colour], label=NAMES[side], linewidth=1.2
            )
    axes.set_ylim(bottom=0)
    axes.set_title("Peak memory, GB, P = 256, R = 128", loc="left", size=9.5)
    axes.set_xlabel("responses in the group")
    if axes.lines:
        axes.legend(frameon=False)


def _verdict(reached: bool) -> str:  # noqa: FBT001  (reads well where it is called)
    return "reached" if reached else "**not reached**"


def _median(runs: Sequence[Run], name: str) -> float:
    return float(statistics.median(run[name] for run in runs))


def _spread(values: Sequence[float], digits: int = 1) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _name(point: Sequence[int]) -> str:
    return "P={} R={} G={}".format(*point)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
