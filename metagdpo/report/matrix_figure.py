"""The picture of R[t][i]: releases down, suites across, coloured by the change against the base.

Colours and how pictures are saved: `figures`. When inlined, colours are those of the page; so a cell's strength is an
opacity over the page's own paper, light or dark.
"""

import math
import textwrap
from collections.abc import Collection, Sequence
from typing import Any

from metagdpo.report.figures import PALETTE, _figure

_FULL = 0.20  # change of full strength; a fixed scale, so that a target's large gain does not make losses pale
_STRONGEST = 0.62  # opacity at full strength: the number on it stays readable on light and on dark paper
_LINE = 14
_TEXT = {"ha": "center", "va": "center", "color": PALETTE["ink"]}


def matrix(
    values: Sequence[Sequence[float | None]],
    releases: Sequence[str],
    suites: Sequence[str],
    trained: Sequence[Collection[str]],
) -> Any:
    """Heat map of the scores with their changes against the base.

    Args:
        values: (T+1, I) mean scores in 0..1, the base first; None where a suite was not measured.
        releases: Names of the rows.
        suites: Names of the columns.
        trained: For each row, the suites that it was trained for.
    """
    figure, axes = _figure(max(4.6, 1.7 + 1.08 * len(suites)), 1.35 + 0.62 * len(values))
    for row, cells in enumerate(values):
        for column, cell in enumerate(cells):
            before = values[0][column]
            if cell is None:
                _box(axes, row, column, facecolor="none", edgecolor=PALETTE["line"], linewidth=0, hatch="////")
            elif row == 0 or before is None:
                _box(axes, row, column, facecolor="none", edgecolor=PALETTE["line"], linewidth=1)
                axes.text(column, row, f"{100 * cell:.1f}", **_TEXT, size=11)
            else:
                _changed(axes, row, column, cell, before)
    for row, names in enumerate(trained):
        for column in sorted(suites.index(name) for name in names):
            _box(axes, row, column, facecolor="none", edgecolor=PALETTE["ink"], linewidth=2)
    _label(axes, releases, suites)
    return figure


def _changed(axes: Any, row: int, column: int, cell: float, before: float) -> None:
    points = round(100 * (cell - before), 1) + 0.0  # no -0.0
    colour = PALETTE["good" if points > 0 else "bad" if points < 0 else "line"]
    _box(axes, row, column, facecolor=colour, edgecolor="none", alpha=_strength(points / 100))
    axes.text(column, row - 0.13, f"{100 * cell:.1f}", **_TEXT, size=11)
    axes.text(column, row + 0.22, f"{points:+.1f}" if points else "0.0", **_TEXT, size=8)


def _strength(change: float) -> float:
    """Opacity: grows with the root of the change, so that small losses show, up to full strength."""
    return _STRONGEST * math.sqrt(min(1.0, abs(change) / _FULL)) if change else 0.3


def _box(axes: Any, row: int, column: int, **style: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner, side = (column - 0.44, row - 0.42), (0.88, 0.84)
    axes.add_patch(FancyBboxPatch(corner, *side, boxstyle="round,pad=0,rounding_size=0.07", **style))


def _label(axes: Any, releases: Sequence[str], suites: Sequence[str]) -> None:
    axes.set_xlim(-0.5, len(suites) - 0.5)
    axes.set_ylim(len(releases) - 0.5, -0.5)
    axes.set_xticks(range(len(suites)), [_short(name) for name in suites], size=9.5)
    axes.set_yticks(range(len(releases)), [_short(name) for name in releases])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelcolor=PALETTE["ink"])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(
        "score in %, below it the change against the base in points\noutlined: trained for      hatched: not measured",
        labelpad=8,
        size=9,
    )
    axes.xaxis.set_label_position("bottom")


def _short(name: str) -> str:
    """A name on at most two lines."""
    lines = textwrap.wrap(name.replace("_", " "), _LINE, max_lines=2, placeholder="…")
    return "\n".join(lines) or name
