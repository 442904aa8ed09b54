"""The comparison as one page: index.html with its pictures in it, and figures/ as files.

Labels, parameters, names of suites and reasons of failures are untrusted text: HTML escapes them, and the page has no
scripts and no remote resources at all. Equal input gives equal bytes.
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metagdpo.comparison import figures as drawing
from metagdpo.comparison import rows, words
from metagdpo.records.comparison import Comparison, MethodResult
from metagdpo.report import figures, report
from metagdpo.report.report import plain
from metagdpo.schema import canonical_json, write_text

_STATUS = {"shown": "good", "contradicted": "bad", "not decided": "open", "not checked": "muted"}


def write_page(
    folder: Path,
    comparison: Comparison,
    changes: Mapping[str, Mapping[str, Any]],
    shared: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write index.html and figures/ and return the paths written.

    Args:
        folder: Files in it are replaced.
        comparison: What is shown.
        changes: For each method what it has instead of the shared parameters (comparison.yaml: methods.NAME.changes).
        shared: What all methods have instead of params.yaml (comparison.yaml: shared).

    Raises:
        StoreError: The folder cannot be written.
    """
    pictures = _draw(folder / "figures", comparison)
    view = {
        "tiles": _tiles(comparison),
        "lead": _lead(comparison),
        "columns": rows.columns(comparison),
        "main": [(_tone(row), cells) for row, cells in zip(comparison.methods, rows.main(comparison), strict=True)],
        "how_to_read": rows.HOW_TO_READ.format(level=f"{100 * comparison.level:g}"),
        "missing": rows.missing(comparison),
        "notes": [plain(note, 2000) for note in comparison.notes],
        "pictures": pictures,
        "claims": [(*row, _STATUS[row[2]]) for row in rows.claims(comparison)],
        "links": rows.links(comparison),
        "suite_columns": rows.suite_columns(comparison),
        "suites": rows.suites(comparison),
        "better": rows.better(comparison),
        "undecided": rows.undecided(comparison),
        "beaten": rows.beaten(comparison),
        "methods": [
            (plain(row.label, rows.LONGEST), row.method, list(_leaves(changes.get(row.method, {}))))
            for row in comparison.methods
        ],
        "shared": list(_leaves(shared or {})),
    }
    write_text(folder / "index.html", _environment().get_template("comparison.html").render(view))
    drawn = [folder / "figures" / f"{name}.{kind}" for name in pictures for kind in ("png", "svg")]
    return [folder / "index.html", *drawn]


def _environment() -> Any:
    """The report's own, which finds its style sheet, with this package's templates before it."""
    from jinja2 import ChoiceLoader, FileSystemLoader

    shared = report._environment()  # noqa: SLF001  (one style for all pages)
    mine = FileSystemLoader(Path(__file__).parent / "templates")
    return shared.overlay(loader=ChoiceLoader([mine, shared.loader]))


def _draw(folder: Path, comparison: Comparison) -> dict[str, dict[str, str]]:
    plans = (
        ("trade_off", drawing.trade_off(comparison), drawing.trade_off_caption(comparison)),
        ("drift", drawing.drift_and_change(comparison), drawing.drift_caption(comparison)),
    )
    pictures = {}
    for name, figure, caption in plans:
        if figure is not None:
            with warnings.catch_warnings():
                # The PNG shows a box for a letter that the font lacks; the SVG and the page show the letter.
                warnings.filterwarnings("ignore", message="Glyph .* missing from font")
                svg = figures.save(figure, folder, name)
            pictures[name] = {"svg": figures.inline(svg, name, caption), "caption": caption}
    return pictures


def _tiles(comparison: Comparison) -> list[tuple[str, str, str]]:
    planned = len(comparison.runs) + len(comparison.missing)
    seeds = {run.seed for run in comparison.runs} | {run.seed for run in comparison.missing}
    promoted = sum(run.decision == "PROMOTE" for run in comparison.runs)
    blocked = sum(run.decision == "BLOCK" for run in comparison.runs)
    tokens = [row.tokens.mean for row in comparison.methods if row.tokens]
    ends = [f"{count:,.0f}" for count in (min(tokens), max(tokens))] if tokens else [words.NONE]
    return [
        ("methods", f"{len(comparison.methods)}", f"{len(seeds)} seeds each"),
        ("runs", f"{len(comparison.runs)} of {planned}", "finished" if not comparison.missing else "some are missing"),
        ("promoted", f"{promoted}", f"{blocked} blocked, {len(comparison.runs) - promoted - blocked} inconclusive"),
        ("tokens a run", " to ".join(dict.fromkeys(ends)), "trained on; means of the methods"),
    ]


def _lead(comparison: Comparison) -> str:
    """What came out, in two sentences that say no more than is shown."""
    kept = [
        row for row in comparison.methods if row.target is not None and row.target.low > 0 and _keeps(row, comparison)
    ]
    if kept:
        most = max(kept, key=lambda row: row.target.value if row.target else 0.0)
        names = ", ".join(plain(row.label, rows.LONGEST) for row in kept)
        first = f"Gain the target and keep, on average, within the accepted loss: {names}."
        more = f" Largest gain among them: {plain(most.label, rows.LONGEST)}, {words.measured(most.target)} points."
        return first + more
    return "No method is shown to gain the target and to keep, on average, within the accepted loss."


def _keeps(row: MethodResult, comparison: Comparison) -> bool:
    loss = comparison.accepted_loss
    return loss is None or (row.retained is not None and row.retained.low > -loss)


def _tone(row: MethodResult) -> str:
    if not row.decisions:
        return "muted"
    same = row.decisions[0] if len(set(row.decisions)) == 1 else None
    return drawing.VERDICTS[same][0]


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Paths of parameters with their values; a mapping that says its `kind` is one value."""
    for key, value in tree.items():
        where = plain(f"{path}.{key}" if path else str(key), rows.LONGEST)
        if isinstance(value, Mapping) and "kind" not in value:
            yield from _leaves(value, where)
        else:
            yield where, plain(_value(value), rows.LONGEST)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return value if isinstance(value, str) else canonical_json(value)
