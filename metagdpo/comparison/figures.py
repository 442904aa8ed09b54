"""The comparison's pictures: target gain against retained skill, and drift against retained skill.

A mark's shape and colour say the verdict, as in the release report; its area grows with the drift. Names stand in a
column at the right, joined to their marks by thin lines, so that they never cover each other or the data. Equal numbers
give equal bytes (`report.figures`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metagdpo.comparison import rows, words
from metagdpo.records.comparison import Comparison, DriftLink, Estimate, MethodResult
from metagdpo.records.verdict import Decision
from metagdpo.report.figures import PALETTE, _figure
from metagdpo.report.report import plain

VERDICTS: dict[Decision | None, tuple[str, str, str]] = {
    "PROMOTE": ("good", "o", "every seed promoted"),
    "BLOCK": ("bad", "X", "every seed blocked"),
    "INCONCLUSIVE": ("open", "D", "every seed inconclusive"),
    None: ("third", "s", "verdicts differ by seed"),
}
"""Colour, marker and meaning; None: the seeds disagree."""
_SMALLEST, _LARGEST = 50.0, 330.0  # areas of marks, square points
_LINE_HEIGHT = 0.058  # of the axes' height, for a name
_LONGEST = 26


def trade_off(comparison: Comparison) -> Any | None:
    """Target gain (x) against retained change (y) in points; None without a method that has both."""
    shown = [row for row in comparison.methods if row.target is not None and row.retained is not None]
    if not shown:
        return None
    figure, axes = _figure(8.8, 5.6)
    _loss_region(axes, comparison.accepted_loss)
    axes.axvline(0, color=PALETTE["line"], linewidth=1, zorder=1)
    axes.axhline(0, color=PALETTE["line"], linewidth=1, zorder=1)
    for run in comparison.runs:
        if run.target is not None and run.retained is not None:
            axes.plot(100 * run.target, 100 * run.retained, ".", color=PALETTE["base"], markersize=6, zorder=2)
    most = max((row.drift.value for row in shown if row.drift), default=0.0)
    for row in shown:
        _mark(axes, row, row.target, row.retained, _area(row, most))
    axes.plot(0, 0, "+", color=PALETTE["ink"], markersize=13, markeredgewidth=1.8, zorder=6)
    axes.annotate("base", (0, 0), (5, 6), textcoords="offset points", color=PALETTE["ink"], size=9.5, zorder=6)
    axes.set_xlabel("target gain, points of accuracy   (further right is better)")
    axes.set_ylabel("change of retained skill, points   (higher is better)")
    _frame(axes, [row.target for row in shown], [row.retained for row in shown], [0.0])
    _names(axes, [(row.label, row.target, row.retained, _verdict(row)) for row in shown])
    _legend(axes, shown)
    return figure


def drift_and_change(comparison: Comparison) -> Any | None:
    """Drift (x, nats a token) against retained change (y, points) of every run; None without runs."""
    runs = [run for run in comparison.runs if run.retained is not None]
    if not runs:
        return None
    shown = [row for row in comparison.methods if row.drift is not None and row.retained is not None]
    figure, axes = _figure(8.8, 4.4)
    _loss_region(axes, comparison.accepted_loss)
    axes.axhline(0, color=PALETTE["line"], linewidth=1, zorder=1)
    axes.axvline(0, color=PALETTE["line"], linewidth=1, zorder=1)
    for row in shown:
        assert row.drift is not None and row.retained is not None  # noqa: PT018  (for the type checker)
        colour, marker, _ = VERDICTS[_verdict(row)]
        middle = row.drift.value, 100 * row.retained.value
        for run in runs:
            if run.method == row.method and run.retained is not None:
                ends = [middle[0], run.drift], [middle[1], 100 * run.retained]
                axes.plot(*ends, color=PALETTE[colour], linewidth=0.8, alpha=0.6, zorder=2)
                axes.plot(run.drift, 100 * run.retained, ".", color=PALETTE[colour], markersize=7, zorder=3)
        axes.plot(*middle, marker, color=PALETTE[colour], markersize=8, markeredgewidth=0, zorder=4)
    axes.set_xlabel("drift: KL(base || candidate) on the base's own text, nats a token   (0: unchanged)")
    axes.set_ylabel("change of retained skill, points")
    drifts = [run.drift for run in runs]
    changes = [100 * run.retained for run in runs if run.retained is not None]
    axes.set_xlim(*_span([*drifts, 0.0]))
    axes.set_ylim(*_span([*changes, 0.0]))
    points = [(row.label, row.drift, row.retained, _verdict(row)) for row in shown]
    _names(axes, points, scale_x=1.0)
    return figure


def trade_off_caption(comparison: Comparison) -> str:
    """What the first picture shows, in words."""
    loss = ""
    if comparison.accepted_loss is not None:
        mean = f"{100 * comparison.accepted_loss:.3g}"
        loss = f" Shaded: a mean loss larger than the mean of the suites' accepted ones, {mean} points."
    return (
        f"Up and to the right is better. Bars are {100 * comparison.level:g} % intervals for other items and other "
        f"seeds; small grey dots are single seeds; the larger a mark, the larger the drift.{loss} The verdict looks at "
        "every suite by itself, so a mark above the shaded area can be blocked."
    )


def drift_caption(comparison: Comparison) -> str:
    """The correlations, in words."""
    kinds: dict[str, DriftLink] = {link.kind: link for link in comparison.links}
    parts = []
    for kind, name in (("pearson", "Pearson"), ("spearman", "Spearman"), ("within", "within methods")):
        link = kinds[kind]
        value = words.correlation(link.value, link.low, link.high) if link.value is not None else link.note
        parts.append(f"{name} {value}")
    runs, methods = kinds["pearson"].n_runs, kinds["pearson"].n_methods
    return (
        f"Dots are single runs, joined to their method's mean. Correlation of drift and change over {runs} runs of "
        f"{methods} methods: {'; '.join(parts)}. Intervals take runs of one method as alike (jackknife over methods). "
        f"In words: {kinds['pearson'].note}."
    )


def _verdict(row: MethodResult) -> Decision | None:
    return row.decisions[0] if len(set(row.decisions)) == 1 else None


def _area(row: MethodResult, most: float) -> float:
    """Area in square points, linear in the drift; a drift below 0 is sampling noise."""
    share = max(0.0, row.drift.value) / most if row.drift is not None and most > 0 else 0.0
    return _SMALLEST + (_LARGEST - _SMALLEST) * share


def _mark(axes: Any, row: MethodResult, x: Estimate | None, y: Estimate | None, area: float) -> None:
    if x is None or y is None:
        return
    colour, marker, _ = VERDICTS[_verdict(row)]
    lines = {"color": PALETTE[colour], "linewidth": 1.5, "alpha": 0.75, "solid_capstyle": "butt", "zorder": 3}
    axes.plot([100 * x.low, 100 * x.high], [100 * y.value] * 2, **lines)
    axes.plot([100 * x.value] * 2, [100 * y.low, 100 * y.high], **lines)
    style = {"marker": marker, "color": PALETTE[colour], "edgecolors": PALETTE["paper"], "zorder": 5}
    axes.scatter(100 * x.value, 100 * y.value, s=area, **style)


def _loss_region(axes: Any, accepted_loss: float | None) -> None:
    if accepted_loss is not None:
        axes.axhspan(-1000, -100 * accepted_loss, color=PALETTE["lossfill"], linewidth=0, zorder=0)
        axes.axhline(-100 * accepted_loss, color=PALETTE["bad"], linewidth=1, linestyle=(0, (4, 2)), zorder=1)


def _frame(axes: Any, xs: Sequence[Estimate | None], ys: Sequence[Estimate | None], others: Sequence[float]) -> None:
    for set_limits, estimates in ((axes.set_xlim, xs), (axes.set_ylim, ys)):
        ends = [100 * end for e in estimates if e is not None for end in (e.low, e.high)]
        set_limits(*_span([*ends, *others]))


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _names(
    axes: Any,
    points: Sequence[tuple[str, Estimate | None, Estimate | None, Decision | None]],
    scale_x: float = 100.0,
) -> None:
    """Names in a column at the right, from top to bottom as their marks, each joined to its mark."""
    bottom, top = axes.get_ylim()
    known = [(label, x, y, verdict) for label, x, y, verdict in points if x is not None and y is not None]
    known.sort(key=lambda point: (-point[2].value, point[1].value))
    wanted = [(100 * y.value - bottom) / (top - bottom) for _, _, y, _ in known]
    left, right = axes.get_xlim()
    for (label, x, y, verdict), place in zip(known, spread_out(wanted, _LINE_HEIGHT), strict=True):
        start = (scale_x * x.value - left) / (right - left), (100 * y.value - bottom) / (top - bottom)
        to_name = [start[0], 1.0, 1.03], [start[1], place, place]
        axes.plot(*to_name, color=PALETTE["base"], linewidth=0.7, transform=axes.transAxes, clip_on=False, zorder=1.5)
        clean = plain(label, rows.LONGEST)
        short = clean if len(clean) <= _LONGEST else f"{clean[: _LONGEST - 1]}…"
        colour = PALETTE[VERDICTS[verdict][0]]
        axes.text(1.04, place, short, transform=axes.transAxes, va="center", size=9.5, color=colour)


def spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Places that fall from first to last, at least `gap` apart, as near as can be to the wanted ones (least squares).

    Args:
        wanted: Falling, in 0..1.
        gap: Made smaller when the places would not fit into 0..1.
    """
    n = len(wanted)
    gap = min(gap, 1 / (n - 1)) if n > 1 else gap
    # With the k-th moved up by k gaps, the places need only fall: pool neighbours that rise (isotonic regression).
    pools: list[tuple[float, int]] = []
    for k, value in enumerate(wanted):
        mean, count = value + k * gap, 1
        while pools and pools[-1][0] < mean:
            before, n_before = pools.pop()
            mean, count = (before * n_before + mean * count) / (n_before + count), n_before + count
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    # Falling places stay falling when both ends are kept inside.
    return [float(np.clip(value, (n - 1) * gap, 1.0)) - k * gap for k, value in enumerate(flat)]


def _legend(axes: Any, shown: Sequence[MethodResult]) -> None:
    """What the marks mean, for the verdicts that there are."""
    present = {_verdict(row) for row in shown}
    for verdict, (colour, marker, meaning) in VERDICTS.items():
        if verdict in present:
            axes.scatter([], [], s=60, marker=marker, color=PALETTE[colour], label=meaning)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=8.5, labelcolor=PALETTE["ink"],
        borderaxespad=0, handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
