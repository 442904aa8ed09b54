"""The report's pictures: retention, accuracy, training, drift and the choice of alpha.

Equal numbers give equal bytes: no clock, a fixed salt for SVG ids, no metadata. Colours are named once; inlined in HTML
they become CSS variables, so that the pictures follow the reader's light or dark page.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metagdpo.records.drift import Drift
from metagdpo.records.interpolation import Interpolation
from metagdpo.records.verdict import SuiteFinding
from metagdpo.schema import atomic_path, write_text

PALETTE = {
    "ink": "#1f2a37",
    "muted": "#64707d",
    "line": "#d5dbe1",
    "paper": "#ffffff",
    "good": "#0e7c66",
    "bad": "#c2362b",
    "open": "#a86a00",
    "lossfill": "#fbe9e7",
    "base": "#9aa5b1",
    "candidate": "#2f5fd0",
    "third": "#8a4fbf",
}
OUTCOMES = {
    "non_inferior": ("good", "o", "retained"),
    "worse": ("bad", "X", "lost"),
    "undecided": ("open", "D", "undecided"),
}
# Title, what is on the y axis, and the lines: (metric names under which the training may log it, label, colour).
CURVES: tuple[tuple[str, str, tuple[tuple[tuple[str, ...], str, str], ...]], ...] = (
    ("Objective", "loss, lower is better", ((("objective", "loss/objective", "loss"), "objective", "candidate"),)),
    (
        "The policy's own answers",
        "means, higher is better",
        ((("reward",), "reward", "candidate"), (("correct",), "correct", "good")),
    ),
    (
        "Context-free text",
        "NLL, nats a token",
        (
            (("cfs_nll", "cfs", "loss/cfs"), "training part", "candidate"),
            (("cfs_held_out", "held_out_nll", "heldout_cfs_nll"), "held-out part", "third"),
        ),
    ),
    (
        "Ordering accuracy",
        "share of pairs, higher is better",
        ((("ordering_accuracy", "ordering/accuracy"), "pairs in the order of their rewards", "good"),),
    ),
    (
        "Log-ratio to the base",
        "nats a response",
        (
            (("log_ratio_best", "log_ratio/best"), "best response", "good"),
            (("log_ratio_mean", "log_ratio_group", "log_ratio/group", "log_ratio/mean"), "group mean", "base"),
            (("log_ratio_worst", "log_ratio/worst"), "worst response", "bad"),
        ),
    ),
)
Metrics = Sequence[Mapping[str, float]]


def retention(findings: Sequence[SuiteFinding]) -> Any:
    """Forest plot: the difference with its interval against the accepted loss, one row a suite."""
    figure, axes = _figure(8.8, 1.25 + 0.52 * len(findings))
    left, right = _span(findings)
    for row, finding in enumerate(findings):
        colour, marker, _ = OUTCOMES[finding.outcome]
        low, middle, high, margin = (100 * v for v in (finding.low, finding.difference, finding.high, finding.margin))
        axes.barh(row, -1000, left=-margin, height=0.86, color=PALETTE["lossfill"], linewidth=0, zorder=0)
        axes.plot([-margin, -margin], [row - 0.43, row + 0.43], color=PALETTE["bad"], linewidth=1.4, zorder=2)
        axes.plot([low, high], [row, row], color=PALETTE[colour], linewidth=2.6, solid_capstyle="round", zorder=3)
        at, shape = (middle, marker) if middle < right else (right, ">")  # the arrow points at a gain off the scale
        axes.plot(at, row, shape, color=PALETTE[colour], markersize=9, markeredgewidth=0, clip_on=False, zorder=4)
        text = f"{middle:+.1f}   [{low:+.1f}, {high:+.1f}]   {finding.word}"
        axes.text(1.035, row, text, transform=axes.get_yaxis_transform(), va="center", color=PALETTE[colour], size=9.5)
    axes.axvline(0, color=PALETTE["ink"], linewidth=1, zorder=1)
    axes.set_yticks(range(len(findings)), [_row_name(finding) for finding in findings])
    axes.set_ylim(len(findings) - 0.45, -0.55)
    axes.set_xlim(left, right)
    axes.set_xlabel("candidate - reference, points of accuracy     (shaded: a loss larger than accepted)")
    axes.grid(axis="x", color=PALETTE["line"], linewidth=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)
    return figure


def accuracy(all_findings: Sequence[SuiteFinding]) -> Any:
    """Bars of the base's and the candidate's accuracy with chance marked, one pair a suite."""
    findings = [finding for finding in all_findings if finding.against == "base"]
    figure, axes = _figure(8.8, 1.35 + 0.62 * len(findings))
    for row, finding in enumerate(findings):
        for offset, name, share in ((-0.19, "base", finding.before), (0.19, "candidate", finding.candidate)):
            value = 100 * share
            label = name if row == 0 else None
            axes.barh(row + offset, value, height=0.34, color=PALETTE[name], label=label, zorder=2)
            axes.text(value + 0.8, row + offset, f"{value:.1f}", va="center", size=8.5, color=PALETTE["muted"])
        chance, label = 100 * finding.chance, "chance" if row == 0 else None
        ends = [row - 0.42, row + 0.42]
        axes.plot(
            [chance, chance], ends, color=PALETTE["ink"], linewidth=1.5, linestyle=(0, (2, 1.2)), label=label, zorder=3
        )
    axes.set_yticks(range(len(findings)), [_row_name(finding) for finding in findings])
    axes.set_ylim(len(findings) - 0.45, -0.55)
    axes.set_xlim(0, 105)
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", color=PALETTE["line"], linewidth=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, labelcolor=PALETTE["ink"], borderaxespad=0
    )
    return figure


def training(metrics: Metrics) -> Any | None:
    """Training curves over optimiser steps, or None when nothing known was logged."""
    panels = [(title, unit, found) for title, unit, lines in CURVES if (found := _lines(metrics, lines))]
    if not panels:
        return None
    columns = min(2, len(panels))
    figure, _ = _figure(8.8, 2.5 * -(-len(panels) // columns), rows=-(-len(panels) // columns), columns=columns)
    cells = figure.axes
    for axes, (title, unit, lines) in zip(cells, panels, strict=False):
        for label, colour, steps, values in lines:
            marker = "o" if len(steps) < 3 else None  # noqa: PLR2004  (a line of one or two points is hard to see)
            axes.plot(steps, values, color=PALETTE[colour], linewidth=1.6, label=label, marker=marker)
        axes.set_title(title, loc="left", size=10.5, color=PALETTE["ink"], weight="bold")
        axes.set_ylabel(unit, size=9)
        axes.set_xlabel("step", size=9)
        axes.grid(color=PALETTE["line"], linewidth=0.6)
        if len(lines) > 1:
            bottom, top = axes.get_ylim()
            axes.set_ylim(bottom, top + 0.22 * (top - bottom))  # room for the names above the lines
            axes.legend(
                loc="upper left", ncols=3, frameon=False, fontsize=8, labelcolor=PALETTE["ink"], handlelength=1.3
            )
    for axes in cells[len(panels) :]:
        axes.set_visible(False)
    return figure


def drift(measured: Drift, samples: Sequence[float], cap: float | None) -> Any:
    """KL(base || candidate) with its interval, over the distribution of the samples' values when they are given."""
    figure, axes = _figure(8.8, 2.9 if samples else 1.5)
    if samples:
        axes.hist(
            samples, bins=min(30, max(5, len(samples) // 3)), color=PALETTE["base"], alpha=0.6, label="single samples"
        )
        axes.set_ylabel("samples", size=9)
    else:
        axes.set_yticks([])
        axes.set_ylim(-1, 1)
    axes.axvspan(measured.low, measured.high, color=PALETTE["candidate"], alpha=0.18, label="95 % interval")
    axes.axvline(measured.kl_per_token, color=PALETTE["candidate"], linewidth=2, label="all tokens")
    axes.axvline(0, color=PALETTE["ink"], linewidth=1)
    if cap is not None:
        axes.axvline(cap, color=PALETTE["bad"], linewidth=1.6, linestyle=(0, (4, 2)), label="cap")
    axes.set_xlabel("log p(base) - log p(candidate) on the base's own text, nats a token     (0: unchanged)")
    axes.grid(axis="x", color=PALETTE["line"], linewidth=0.6)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=PALETTE["ink"])
    return figure


def interpolation(chosen: Interpolation) -> Any:
    """Mean accuracy on target and retained suites over alpha, with the chosen point marked on both lines."""
    figure, axes = _figure(8.8, 3.0)
    for name, label, colour in (
        ("target", "target suites", "candidate"),
        ("retained", "required and safety suites", "good"),
    ):
        points = [(p.alpha, 100 * value) for p in chosen.points if (value := getattr(p, name)) is not None]
        if not points:
            continue
        alphas, values = zip(*points, strict=True)
        axes.plot(alphas, values, "-o", color=PALETTE[colour], linewidth=1.6, markersize=5, label=label, zorder=3)
        at = alphas.index(chosen.chosen)
        axes.plot(alphas[at], values[at], "o", color=PALETTE[colour], markersize=11, markerfacecolor="none", zorder=4)
        side, where = ("right", -9) if chosen.chosen > 0.5 else ("left", 9)  # noqa: PLR2004  (inside the axes)
        axes.annotate(
            f"{values[at]:.1f}",
            (alphas[at], values[at]),
            (where, 8),
            textcoords="offset points",
            ha=side,
            size=8.5,
            color=PALETTE[colour],
        )
    label = f"chosen: {chosen.chosen:g}"
    axes.axvline(chosen.chosen, color=PALETTE["muted"], linewidth=1.2, linestyle=(0, (4, 2)), label=label, zorder=1)
    axes.set_xticks([p.alpha for p in chosen.points], [f"{p.alpha:g}" for p in chosen.points])
    axes.set_xlabel("alpha: share of the way from the base (0) to the trained weights (1)")
    axes.set_ylabel("accuracy, %", size=9)
    axes.margins(y=0.2)
    axes.grid(color=PALETTE["line"], linewidth=0.6, zorder=0)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, labelcolor=PALETTE["ink"], borderaxespad=0
    )
    return figure


def save(figure: Any, folder: Path, name: str) -> str:
    """Write `<name>.png` and `<name>.svg` and return the SVG text."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "metagdpo", "svg.fonttype": "none"}):
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        with atomic_path(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=160, metadata={"Software": None})
    svg = stream.getvalue()
    write_text(folder / f"{name}.svg", svg)
    return svg


def inline(svg: str, name: str, description: str) -> str:
    """An SVG document as an HTML element: unique ids, CSS variables for colours, a description for screen readers."""
    from markupsafe import escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r'\b(id="|xlink:href="#|href="#|url\(#)', rf"\g<1>{name}-", body)
    for variable, colour in PALETTE.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    size = re.compile(r'<svg\b[^>]*?\bviewBox="([^"]*)"[^>]*>')
    head = (
        f'<svg viewBox="\\1" role="img" aria-label="{escape(description)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return size.sub(head, body, count=1)


def _figure(width: float, height: float, *, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10,
        "text.color": PALETTE["ink"],
        "text.parse_math": False,  # a `$` in a skill's name is a dollar
        "axes.edgecolor": PALETTE["line"],
        "axes.labelcolor": PALETTE["muted"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": PALETTE["paper"],
        "figure.facecolor": PALETTE["paper"],
        "xtick.color": PALETTE["muted"],
        "ytick.color": PALETTE["ink"],
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns)


def _row_name(finding: SuiteFinding) -> str:
    """The skill on at most two lines, what is special about the row in front, where it is never cut off."""
    notes: list[str] = [finding.tier] if finding.tier != "required" else []
    notes += ["against the champion"] if finding.against == "champion" else []
    name = f"{', '.join(notes)}: {finding.skill}" if notes else finding.skill
    lines = textwrap.wrap(name, _LINE) or [name]
    return "\n".join(lines[:2]) + ("…" if len(lines) > 2 else "")  # noqa: PLR2004  (two lines fit a row)


def _span(findings: Sequence[SuiteFinding]) -> tuple[float, float]:
    """Both ends of the axis in points: all losses are inside; a target's large gain need not squeeze them."""
    margin = max(abs(finding.margin) for finding in findings) or 0.01
    required = [finding for finding in findings if finding.tier in {"required", "safety"}] or findings
    left = min([-1.6 * margin, *(1.08 * finding.low for finding in findings)])
    right = max([1.2 * margin, *(1.08 * finding.high for finding in required)])
    return 100 * left, 100 * right


_LINE = 30


def _lines(
    metrics: Metrics, lines: Sequence[tuple[tuple[str, ...], str, str]]
) -> list[tuple[str, str, list[float], list[float]]]:
    found = []
    for names, label, colour in lines:
        name = next((name for name in names if any(name in row for row in metrics)), None)
        if name is not None:
            points = [(row.get("step", index), row[name]) for index, row in enumerate(metrics) if name in row]
            found.append((label, colour, [step for step, _ in points], [value for _, value in points]))
    return found
