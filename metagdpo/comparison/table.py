"""The comparison as tables: Markdown for documents, CSV for spreadsheets, lines for the terminal.

Labels, names of suites and reasons of failures are untrusted: Markdown shows them defused, no cell of a spreadsheet
starts a formula, and the terminal gets no control characters. Equal input gives equal bytes.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from metagdpo.comparison import rows, words
from metagdpo.records.comparison import Comparison, Estimate, Spread
from metagdpo.report.report import markdown, plain
from metagdpo.schema import write_text
from metagdpo.spreadsheet import harmless

Cell = str | int | float | None
_CELL = 10_000


def write_tables(folder: Path, comparison: Comparison) -> list[Path]:
    """Write table.md, table.csv, suites.csv, differences.csv and runs.csv, and return the paths.

    Args:
        folder: Files of these names in it are replaced.
        comparison: What is shown.

    Raises:
        StoreError: The folder cannot be written.
    """
    texts = {
        "table.md": markdown_page(comparison),
        "table.csv": _csv(_METHOD, _method_cells(comparison)),
        "suites.csv": _csv(_SUITE, _suite_cells(comparison)),
        "differences.csv": _csv(_DIFFERENCE, _difference_cells(comparison)),
        "runs.csv": _csv(_RUN, _run_cells(comparison)),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def summary(comparison: Comparison) -> list[str]:
    """Lines for the terminal: the table, the paper's ordering, drift against forgetting, what is missing."""
    lines = rows.aligned([rows.columns(comparison), *rows.main(comparison)])
    lines += ["", "The paper's ordering:"]
    lines += [f"  {status}: {claim} ({evidence})" for claim, _, status, evidence in rows.claims(comparison)]
    lines += ["", "Drift against retained change:"]
    lines += [f"  {over}: {value}; {note}" for over, _, _, value, note in rows.links(comparison)]
    lines += ["", f"Pairs of methods: {rows.undecided(comparison)}"]
    if comparison.missing:
        lines += ["", "Missing runs:", *(f"  {line}" for line in rows.missing(comparison))]
    lines += [f"Note: {note}" for note in comparison.notes]
    return [plain(line, _CELL).replace("\n", " ").replace("\t", " ") for line in lines]


def markdown_page(comparison: Comparison) -> str:
    """All tables as one Markdown document."""
    level = f"{100 * comparison.level:g}"
    parts = ["# Comparison of methods", _grid(rows.columns(comparison), rows.main(comparison))]
    parts.append(rows.HOW_TO_READ.format(level=level))
    if comparison.missing:
        parts.append("Missing runs:\n\n" + _list(rows.missing(comparison)))
    if comparison.notes:
        parts.append(_list(comparison.notes))
    parts += ["## Suite by suite", _grid(rows.suite_columns(comparison), rows.suites(comparison))]
    parts += ["## What is shown to be better", _better(comparison), rows.undecided(comparison)]
    parts += ["## The paper's ordering", _grid(_CLAIM, rows.claims(comparison))]
    parts += ["## Drift against forgetting", _grid(_LINK, rows.links(comparison))]
    return "\n\n".join(parts) + "\n"


_CLAIM = ("claim", "the paper", "here", "evidence")
_LINK = ("over", "runs", "methods", "correlation", "what it shows")
_BETTER = ("better", "than", "in", "by, points", "adjusted p")
_ENDS = ("", "_low", "_high")
_MEASURED = ("target", "retained", "overall", "drift")
_SPREADS = ("seconds", "peak_memory_gb", "tokens")
_METHOD = (
    *("method", "label", "seeds", "missing_seeds"),
    *(f"{name}{end}" for name in _MEASURED for end in _ENDS),
    *("worst_suite", "worst_change"),
    *(f"{name}{end}" for name in _SPREADS for end in ("", "_least", "_most")),
    *("alphas", "promote", "inconclusive", "block"),
)
_SUITE = ("method", "suite", "tier", "skill", "before", "change", "low", "high", "p_value", "seeds", "units")
_DIFFERENCE = ("measure", "first", "second", "difference", "low", "high", "p_value", "p_holm", "better", "seeds")
_RUN = ("method", "seed", "target", "retained", "drift", "decision")


def _better(comparison: Comparison) -> str:
    found = rows.better(comparison)
    return _grid(_BETTER, found) if found else "Nothing: no method is shown to be better than another."


def _grid(titles: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    head = [" | ".join(map(markdown, titles)), " | ".join(["---"] * len(titles))]
    return "\n".join(f"| {line} |" for line in [*head, *(" | ".join(map(markdown, row)) for row in table)])


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {markdown(plain(item, _CELL))}" for item in items)


def _csv(titles: Sequence[str], table: Iterable[Sequence[Cell]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows([_safe(cell) for cell in row] for row in table)
    return stream.getvalue()


def _safe(cell: Cell) -> Cell:
    """Numbers to six digits, for later ones differ between machines; texts that start no formula."""
    if isinstance(cell, float):
        return round(cell, 6) + 0.0  # no negative zero
    if isinstance(cell, str):
        clean = plain(cell, _CELL)
        return f"'{clean}" if harmless(cell) != cell else clean
    return cell


def _method_cells(comparison: Comparison) -> list[list[Cell]]:
    return [
        [
            *(row.method, row.label, len(row.seeds), " ".join(map(str, row.missing))),
            *(cell for name in _MEASURED for cell in _ends(getattr(row, name))),
            *((row.worst.suite, row.worst.change.value) if row.worst else (None, None)),
            *(cell for name in _SPREADS for cell in _spread(getattr(row, name))),
            " ".join(f"{alpha:g}" for alpha in row.alphas),
            *(row.decisions.count(decision) for decision in words.DECISIONS),
        ]
        for row in comparison.methods
    ]


def _ends(estimate: Estimate | None) -> tuple[Cell, Cell, Cell]:
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)


def _spread(spread: Spread | None) -> tuple[Cell, Cell, Cell]:
    return (None, None, None) if spread is None else (spread.mean, spread.least, spread.most)


def _suite_cells(comparison: Comparison) -> list[list[Cell]]:
    return [
        [
            *(row.method, change.suite, change.tier, change.skill, change.before, *_ends(change.change)),
            *(change.change.p_value, change.change.n_seeds, change.change.n_units),
        ]
        for row in comparison.methods
        for change in row.suites
    ]


def _difference_cells(comparison: Comparison) -> list[list[Cell]]:
    return [
        [
            *(row.measure, row.first, row.second, *_ends(row.difference)),
            *(row.difference.p_value, row.p_holm, row.better, row.difference.n_seeds),
        ]
        for row in comparison.differences
    ]


def _run_cells(comparison: Comparison) -> list[list[Cell]]:
    return [[run.method, run.seed, run.target, run.retained, run.drift, run.decision] for run in comparison.runs]
