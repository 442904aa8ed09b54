"""The comparison as rows of texts, which table and page show alike: nothing is computed here."""

from collections.abc import Sequence

from metagdpo.comparison import words
from metagdpo.records.comparison import MEASURES, Comparison, DriftLink, Measure, MethodResult
from metagdpo.report.report import plain

LONGEST = 300
"""Characters shown of a name or a reason; the rest is counted."""
LINKS = {
    "pearson": "all runs, Pearson",
    "spearman": "all runs, Spearman",
    "within": "within methods, Pearson",
}
HOW_TO_READ = (
    "Changes are candidate - base in points of accuracy, higher is better: the mean over the seeds, in brackets its "
    "{level} % interval for other items and other seeds. Target and retained are means over suites, every suite "
    "counting the same; watched suites count in neither. Drift is KL(base || candidate) in nats a token. Minutes, GB "
    "and tokens are means over the seeds; minutes depend on the machine."
)


def columns(comparison: Comparison) -> list[str]:
    """Titles of the main table; alpha stands there only when some method interpolates."""
    interpolates = any(words.alphas(row.alphas) for row in comparison.methods)
    titles = ["method", "target gain", "retained change", "worst suite", "drift", "minutes", "GB", "tokens"]
    return [*titles, *(["alpha"] if interpolates else []), "verdicts"]


def main(comparison: Comparison) -> list[list[str]]:
    """One row a method, in declared order; what is missing is said behind the name."""
    interpolates = "alpha" in columns(comparison)
    return [_row(row, interpolates=interpolates) for row in comparison.methods]


def _row(row: MethodResult, *, interpolates: bool) -> list[str]:
    worst = words.NONE if row.worst is None else f"{row.worst.suite} {words.points(row.worst.change.value)}"
    return [
        name(row),
        words.measured(row.target),
        words.measured(row.retained),
        plain(worst, LONGEST),
        words.nats(row.drift),
        words.minutes(row.seconds),
        words.gigabytes(row.peak_memory_gb),
        words.count(row.tokens),
        *([words.alphas(row.alphas)] if interpolates else []),
        words.verdicts(row.decisions),
    ]


def name(row: MethodResult) -> str:
    """A method's label, with what it lacks."""
    label = plain(row.label, LONGEST)
    if not row.seeds:
        return f"{label} (no result)"
    if row.missing:
        return f"{label} ({len(row.seeds)} of {len(row.seeds) + len(row.missing)} seeds)"
    return label


def missing(comparison: Comparison) -> list[str]:
    """A sentence for each run without a result."""
    labels = {row.method: row.label for row in comparison.methods}
    return [
        f"{plain(labels[run.method], LONGEST)}, seed {run.seed}: {plain(run.why, LONGEST)}"
        for run in comparison.missing
    ]


def suite_columns(comparison: Comparison) -> list[str]:
    """Titles of the table by suite: method, then one for each suite with its tier and the base's score."""
    return ["method", *(f"{s} ({tier}, base {100 * before:.1f})" for s, tier, before in _suites(comparison))]


def suites(comparison: Comparison) -> list[list[str]]:
    """Change of every suite, one row a method."""
    known = [suite for suite, _, _ in _suites(comparison)]
    return [
        [name(row), *(words.measured(changes[suite].change) if suite in changes else words.NONE for suite in known)]
        for row in comparison.methods
        for changes in [{change.suite: change for change in row.suites}]
    ]


def _suites(comparison: Comparison) -> list[tuple[str, str, float]]:
    measured = next((row.suites for row in comparison.methods if row.suites), ())
    return [(plain(change.suite, LONGEST), change.tier, change.before) for change in measured]


def better(comparison: Comparison) -> list[list[str]]:
    """Pairs of methods of which one is shown to be better: better, other, measure, by how much, adjusted p-value."""
    labels = {row.method: plain(row.label, LONGEST) for row in comparison.methods}
    found = []
    for row in comparison.differences:
        if row.better is not None:
            turned = row.better != row.first
            gap, other = row.difference, row.first if turned else row.second
            ends = (-gap.high, -gap.low) if turned else (gap.low, gap.high)
            amount = f"{words.points(abs(gap.value))} [{', '.join(map(words.points, ends))}]"
            found.append([labels[row.better], labels[other], row.measure, amount, _p(row.p_holm)])
    return found


def _p(p_value: float) -> str:
    return f"{p_value:.3f}" if p_value >= 0.001 else "<0.001"  # noqa: PLR2004  (three digits are enough)


def beaten(comparison: Comparison) -> list[list[str]]:
    """For each method and measure, the methods that it is shown to be better than."""
    labels = {row.method: plain(row.label, LONGEST) for row in comparison.methods}

    def losers(winner: str, measure: Measure) -> str:
        won = [row for row in comparison.differences if (row.better, row.measure) == (winner, measure)]
        others = [row.second if row.first == winner else row.first for row in won]
        return " · ".join(labels[other] for other in others) or words.NONE

    return [[name(row), *(losers(row.method, measure) for measure in MEASURES)] for row in comparison.methods]


def undecided(comparison: Comparison) -> str:
    """How many pairs of methods are not shown to differ."""
    open_ = sum(row.better is None for row in comparison.differences)
    return f"{open_} of {len(comparison.differences)} comparisons of two methods are not shown to differ."


def claims(comparison: Comparison) -> list[list[str]]:
    """Claim, what the paper reports, status, evidence."""
    return [[row.claim, row.paper, row.status, row.evidence] for row in comparison.claims]


def links(comparison: Comparison) -> list[list[str]]:
    """How drift and retained change go together: over what, runs, methods, correlation, what it shows."""
    return [_link(row) for row in comparison.links]


def _link(row: DriftLink) -> list[str]:
    value = words.correlation(row.value, row.low, row.high)
    return [LINKS[row.kind], str(row.n_runs), str(row.n_methods), value, row.note]


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length as lines of a terminal: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
