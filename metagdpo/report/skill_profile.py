"""The skill profile: what every knowledge unit scored before and after, as a picture and as rows of a table."""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from metagdpo.records.unit_finding import UnitFinding, UnitOutcome
from metagdpo.report.figures import PALETTE, _figure

OUTCOMES: dict[UnitOutcome, tuple[str, str]] = {
    "lost": ("bad", "X"),
    "gained": ("good", "^"),
    "kept": ("candidate", "o"),
    "undecided": ("open", "D"),
}
"""Colour and marker."""
MOST_ROWS = 24


def skill_profile(findings: Sequence[UnitFinding]) -> Any | None:
    """Dumbbells from the base's to the candidate's mean score, one row a unit; None when there is no unit."""
    shown = profile_order(findings)[:MOST_ROWS]
    if not shown:
        return None
    figure, axes = _figure(8.8, 1.35 + 0.4 * len(shown))
    sides = axes.get_yaxis_transform()
    for row, finding in enumerate(shown):
        colour, marker = OUTCOMES[finding.outcome]
        tone = PALETTE[colour]
        ends = [100 * finding.before, 100 * finding.candidate]
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color=PALETTE["line"], alpha=0.22, linewidth=0, zorder=0)
        axes.plot(ends, [row, row], color=tone, linewidth=2.4, alpha=0.55, zorder=2)
        axes.plot(ends[0], row, "o", color=PALETTE["paper"], markeredgecolor=PALETTE["muted"], markersize=8, zorder=3)
        axes.plot(ends[1], row, marker, color=tone, markersize=7, markeredgewidth=0, zorder=4)
        write = functools.partial(axes.text, transform=sides, va="center", color=PALETTE["ink"], parse_math=False)
        write(-0.015, row - 0.16, _cut(finding.unit.replace("_", " ")), ha="right")
        write(-0.015, row + 0.24, _cut(_where(finding)), ha="right", size=7.5, color=PALETTE["muted"])
        texts = (_points(finding), finding.lost, finding.gained, finding.outcome)
        for at, text, shade in zip(_COLUMNS, texts, (*[PALETTE["ink"]] * 3, tone), strict=True):
            _beside(axes, at, row, str(text), size=9.5, color=shade)
    for at, title in zip(_COLUMNS, ("change", "lost", "gained"), strict=False):
        _beside(axes, at, -0.75, title, size=8, color=PALETTE["muted"])
    _finish(axes, len(shown))
    return figure


def _beside(axes: Any, points: float, row: float, text: str, **style: Any) -> None:
    """Write right of the axes, the text's right end so many points from them.

    Points, not shares of the width: the layout then knows how much room it needs. Anchored at the right end, a reader's
    wider font grows into the gap and not over the edge.
    """
    place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(text, xy=(1, row), xytext=(points, 0), ha="right", va="center", parse_math=False, **place, **style)


def profile_order(findings: Sequence[UnitFinding]) -> list[UnitFinding]:
    """Named units as they come (lost, then gained); then the others, those with the most changed items first."""
    named = [finding for finding in findings if finding.outcome in {"lost", "gained"}]
    others = [finding for finding in findings if finding.outcome not in {"lost", "gained"}]
    return [*named, *sorted(others, key=lambda unit: (-unit.lost - unit.gained, -unit.n_items, unit.unit))]


def profile_caption(findings: Sequence[UnitFinding], fdr: float) -> str:
    """What the picture shows, and a count of what it leaves out.

    Args:
        findings: All units, drawn or not.
        fdr: The policy's `unit_fdr`.
    """
    text = (
        "Mean score on the items of each knowledge unit: the base (open circle) and the candidate (filled). Lost and "
        "gained are counts of items. A unit is called lost or gained when the change is proven, kept when its loss is "
        "proven smaller than accepted; among the names given by either test at most "
        f"{100 * fdr:g} % are expected to be false (Benjamini-Yekutieli)."
    )
    untested = sum(finding.adjusted is None for finding in findings)
    if untested:
        text += f" {_count(untested)} too few items to be named whatever happened to them."
    hidden = profile_order(findings)[MOST_ROWS:]
    if hidden:
        kinds = Counter(finding.outcome for finding in hidden)
        listed = ", ".join(f"{kinds[outcome]} {outcome}" for outcome in OUTCOMES if kinds[outcome])
        text += f" Not drawn: {listed}."
    return text


def profile_rows(findings: Sequence[UnitFinding]) -> list[dict[str, Any]]:
    """One row for each unit in the picture's order, plain values; names are escaped where they are shown.

    Keys: `unit`, `suites`, `n_items`, `before`, `candidate` (in %), `difference` (points), `lost`, `gained`, `p` (the
    corrected p-value, empty when the unit was not tested), `outcome`, `colour` (a name of the report's style sheet).
    """
    return [
        {
            "unit": finding.unit.replace("_", " "),
            "suites": ", ".join(finding.suites),
            "n_items": f"{finding.n_items:,}",
            "before": f"{100 * finding.before:.1f}",
            "candidate": f"{100 * finding.candidate:.1f}",
            "difference": _points(finding),
            "lost": finding.lost,
            "gained": finding.gained,
            "p": "" if finding.adjusted is None else f"{finding.adjusted:.2g}",
            "outcome": finding.outcome,
            "colour": OUTCOMES[finding.outcome][0],
        }
        for finding in profile_order(findings)
    ]


def _finish(axes: Any, rows: int) -> None:
    axes.set_yticks([])
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("mean score, %     (open circle: base, filled: candidate)")
    axes.grid(axis="x", color=PALETTE["line"], linewidth=0.6, zorder=0)
    axes.spines["left"].set_visible(False)


def _where(finding: UnitFinding) -> str:
    items = f"{finding.n_items:,} item of" if finding.n_items == 1 else f"{finding.n_items:,} items of"
    listed = f"{items} {', '.join(finding.suites)}"
    return listed if len(listed) <= _LINE or len(finding.suites) == 1 else f"{items} {len(finding.suites)} suites"


def _points(finding: UnitFinding) -> str:
    """Change in points with a sign, and no negative zero."""
    text = f"{100 * (finding.candidate - finding.before):+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\u2212")


def _count(number: int) -> str:
    return "One unit has" if number == 1 else f"{number:,} units have"


def _cut(text: str) -> str:
    return text if len(text) <= _LINE else f"{text[: _LINE - 1]}…"


_LINE = 38
_COLUMNS = (40, 68, 104, 172)  # right edges of change, lost, gained and outcome, points from the axes
