"""Continual metrics over a sequence of releases, with intervals: what was learned, kept, lost and transferred.

The metrics themselves are in `continual_terms`, the resampling in `paired_bootstrap`. Means of scores or of differences
have percentile intervals. Where the best of several rows or skills is taken, the value is too high on average, and a
percentile interval is shifted by the same amount once more: with ten skills and no forgetting it hardly ever covers the
truth. `_largest` says what is done instead.

All metrics describe. Whether a release is promoted is decided by the tests of `decide`, whose error rates are exact.

Legend of shapes: B resamples, T+1 rows (base first), I suites, C terms.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from metagdpo.errors import EvidenceError
from metagdpo.gate import continual_terms as equations
from metagdpo.gate.continual_terms import Terms, Trained
from metagdpo.gate.paired_bootstrap import Scores, sample_of
from metagdpo.records.release_scores import ReleaseScores, SuiteScores
from metagdpo.schema import Frozen

Floats = npt.NDArray[np.float64]
Clusters = Mapping[str, Mapping[str, str | None]]
"""Suite -> item -> passage, subject or template that it shares with others."""
Name = Literal[
    "average_accuracy",
    "backward_transfer",
    "forward_transfer",
    "forgetting",
    "intransigence",
    "general_delta",
    "worst_drop",
]
DEFINITIONS: dict[Name, str] = {
    "average_accuracy": "mean of R[t][i] over the skills trained up to release t",
    "backward_transfer": "mean of R[t][i] - R[s][i] over the skills whose latest training s came before release t",
    "forward_transfer": "mean of R[f-1][i] - R[0][i] over the skills first trained at a release f with 2 <= f <= t",
    "forgetting": "mean of max(R[0][i]..R[t-1][i]) - R[t][i] over the skills trained before release t",
    "intransigence": "mean of R*[i] - R[s][i] over the skills trained up to release t, s the latest training",
    "general_delta": "mean of R[t][i] - R[0][i] over the skills that no release up to t was trained for",
    "worst_drop": "largest of max(R[0][i]..R[t-1][i]) - R[t][i] over all skills",
}
_TITLES: dict[Name, str] = {
    "average_accuracy": "average accuracy",
    "backward_transfer": "backward transfer (BWT)",
    "forward_transfer": "forward transfer (FWT)",
    "forgetting": "forgetting",
    "intransigence": "intransigence",
    "general_delta": "general-ability delta",
    "worst_drop": "worst drop",
}
_BETTER: dict[Name, str] = {
    "average_accuracy": "higher",
    "backward_transfer": "higher",
    "forward_transfer": "higher",
    "forgetting": "lower",
    "intransigence": "lower",
    "general_delta": "higher",
    "worst_drop": "lower",
}


class Metric(Frozen):
    """One number about the matrix up to one release, with what it is a mean of."""

    name: Name
    value: float | None
    """Shares of a score (0.01 is a point); None when there is no term."""
    low: float | None
    """None when the items cannot give an interval: one item or cluster in a suite, or no resample that differs."""
    high: float | None
    n_terms: int
    """The denominator: number of skills."""
    skills: tuple[str, ...]
    """The suites that the terms are about."""
    left_out: tuple[str, ...]
    """Suites that belong in the mean but lack a measurement."""
    definition: str


class Drop(Frozen):
    """What one skill lost at the latest release against the best earlier row; negative: it was never better."""

    suite: str
    value: float
    low: float | None
    high: float | None
    best: str
    """The earlier release that was best."""


class History(Frozen):
    """The matrix and everything computed from it."""

    releases: tuple[str, ...]
    """Names of the rows; the first is the base."""
    suites: tuple[str, ...]
    trained: tuple[tuple[str, ...], ...]
    """Suites that each row's release was trained for."""
    matrix: tuple[tuple[float | None, ...], ...]
    """R[t][i]; None where it was not measured."""
    metrics: tuple[tuple[Metric, ...], ...]
    """For each release after the base, the metrics of the matrix up to it."""
    drops: tuple[Drop, ...]
    """Every skill at the latest release, worst first."""
    level: float
    """Confidence level of all intervals, each by itself."""


def measure(
    scores: Sequence[Scores],
    trained: Sequence[Collection[str]],
    rng: np.random.Generator,
    *,
    releases: Sequence[str] | None = None,
    clusters: Clusters | None = None,
    reference: Scores | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> History:
    """Compute the matrix and its metrics.

    Args:
        scores: For each row, base first, the scores of its suites; a suite that is not there was not measured.
        trained: For each row, the suites that it was trained for; none for the base.
        rng: Source of the resamples.
        releases: Names of the rows; `base`, `1`, `2`, ... when not given.
        clusters: Clusters by suite and item; items without one are independent.
        reference: R*: scores that training for a skill alone reaches, on the same items; without it, no intransigence.
        resamples: Number of resamples B.
        level: Confidence level of each interval.

    Raises:
        EvidenceError: There is no row, the base was trained, items differ between rows, or a score is not in 0..1.
    """
    names = tuple(releases or ("base", *(str(t) for t in range(1, len(scores)))))
    _check(scores, trained, names)
    suites = tuple(dict.fromkeys(suite for row in (*scores, *trained) for suite in row))
    rows = [*scores, reference or {}]
    labels = (*names, "reference")
    samples = [sample_of(suite, rows, labels, (clusters or {}).get(suite, {})) for suite in suites]
    point = np.stack([sample.means() for sample in samples], axis=-1)
    resampled = np.stack([sample.resample(resamples, rng) for sample in samples], axis=-1)
    columns = [[suites.index(suite) for suite in dict.fromkeys(row)] for row in trained]
    few = frozenset(i for i, sample in enumerate(samples) if sample.units < 2)  # noqa: PLR2004  (one unit has no spread)
    seen = _Seen(point, resampled, columns, suites, few, 1 - level)
    last = len(names) - 1
    return History(
        releases=names,
        suites=suites,
        trained=tuple(tuple(dict.fromkeys(row)) for row in trained),
        matrix=tuple(tuple(None if np.isnan(cell) else float(cell) for cell in row) for row in point[:-1]),
        metrics=tuple(_metrics(seen, t) for t in range(1, last + 1)),
        drops=_all_drops(seen, last, names) if last else (),
        level=level,
    )


def measure_releases(
    rows: Sequence[ReleaseScores],
    rng: np.random.Generator,
    *,
    reference: ReleaseScores | None = None,
    level: float = 0.95,
) -> History:
    """`measure` of stored rows: the base, then the releases in their order.

    Args:
        rows: Rows of one model over the same items (`score_history.read_history` checks that).
        rng: Source of the resamples.
        reference: Scores of single-skill training, on the same items.
        level: Confidence level of each interval.

    Raises:
        EvidenceError: The base's row is missing, or see `measure`.
    """
    if not rows or rows[0].version != 0:
        message = "the first row must be the base (version 0): without it nothing says what the releases changed."
        raise EvidenceError(message)
    return measure(
        [_by_item(row) for row in rows],
        [row.trained for row in rows],
        rng,
        releases=["base", *(f"v{row.version}" for row in rows[1:])],
        clusters={suite.suite: _clusters(suite) for row in rows for suite in row.suites},
        reference=None if reference is None else _by_item(reference),
        level=level,
    )


def table(history: History) -> list[str]:
    """The matrix and the latest release's metrics as Markdown that is aligned for a terminal.

    Scores in %, changes in points; a trained cell is marked with `*`, one that was not measured is `-`.
    """
    cells = [["release", *history.suites]]
    for release, row, trained in zip(history.releases, history.matrix, history.trained, strict=True):
        marks = ["*" if suite in trained else "" for suite in history.suites]
        shown = ["-" if cell is None else f"{100 * cell:.1f}" for cell in row]
        cells.append([release, *(text + mark for text, mark in zip(shown, marks, strict=True))])
    lines = [*_aligned(cells), ""]
    if not history.metrics:
        return [*lines, "No release yet: nothing to compare the base with."]
    latest = history.metrics[-1]
    heads = ["metric", "value", f"{100 * history.level:g} % interval", "better", "skills", "definition"]
    lines += _aligned([heads, *(_metric_row(metric) for metric in latest)])
    gaps = [f"{_TITLES[m.name]}: not measured for {', '.join(m.left_out)}" for m in latest if m.left_out]
    return [*lines, *(["", *gaps] if gaps else [])]


class _Seen(NamedTuple):
    """Everything that the metrics read; the last row of both arrays is the reference."""

    point: Floats
    """(T+2, I)."""
    resampled: Floats
    """(B, T+2, I)."""
    trained: Trained
    suites: tuple[str, ...]
    few: frozenset[int]
    """Columns with fewer than two independent units."""
    alpha: float


def _metrics(seen: _Seen, t: int) -> tuple[Metric, ...]:
    plain: list[tuple[Name, Callable[[Floats], Terms]]] = [
        ("average_accuracy", lambda r: equations.average_accuracy(r, seen.trained, t)),
        ("backward_transfer", lambda r: equations.backward_transfer(r, seen.trained, t)),
        ("forward_transfer", lambda r: equations.forward_transfer(r, seen.trained, t)),
        ("intransigence", lambda r: equations.intransigence(r, r[..., -1, :], seen.trained, t)),
        ("general_delta", lambda r: equations.general_delta(r[..., :-1, :], seen.trained, t)),
    ]
    found = {name: _of_mean(seen, name, of) for name, of in plain}
    lost = equations.forgetting(seen.point, seen.trained, t)
    found["forgetting"] = _of_best(seen, "forgetting", lost, t)
    every = Terms(tuple(range(len(seen.suites))), equations.drops(seen.point, t))
    found["worst_drop"] = _of_best(seen, "worst_drop", every, t)
    return tuple(found[name] for name in DEFINITIONS)


def _of_mean(seen: _Seen, name: Name, of: Callable[[Floats], Terms]) -> Metric:
    terms = of(seen.point)
    known, _ = terms.split()
    ends = np.quantile(of(seen.resampled).mean(), [seen.alpha / 2, 1 - seen.alpha / 2]) if known else ()
    return _metric(seen, name, terms, float(terms.mean()), ends)


def _of_best(seen: _Seen, name: Name, terms: Terms, t: int) -> Metric:
    known, _ = terms.split()
    if not known:
        return _metric(seen, name, terms, np.nan, ())
    value, ends = _largest(seen, known, t, over_skills=name == "worst_drop")
    return _metric(seen, name, terms, value, ends)


def _largest(seen: _Seen, columns: Sequence[int], t: int, *, over_skills: bool) -> tuple[float, Floats]:
    """Mean over skills of the largest drop, or the largest over skills too, with its interval.

    Let D[l,i] = R[l][i] - R[t][i] be the true drops and e[l,i] the errors of their estimates, whose distribution the
    resamples show. Then, for the mean over i,

        mean_i e[best(i),i]  <=  estimate - truth  <=  mean_i max_l e[l,i]

    so the lower end estimate - quantile_(1-alpha/2)(mean_i max_l e) holds whichever row is the best one: exact when
    all are equally good, conservative otherwise. The upper end takes the row that looks best for the best one. The same
    holds with one maximum over rows and skills. The value is the textbook's: it is too high on average and may even be
    above the interval.
    """
    index = list(columns)
    estimates = _against_last(seen.point[: t + 1, index])
    errors = _never_best(_against_last(seen.resampled[:, : t + 1, index]) - estimates)
    estimates = _never_best(estimates)
    if over_skills:
        estimates, errors = estimates.reshape(-1, 1), errors.reshape(len(errors), -1, 1)
    highest = estimates.max(axis=0)
    worst_error = errors.max(axis=1).mean(axis=-1)
    error_of_best = errors[:, estimates.argmax(axis=0), np.arange(len(highest))].mean(axis=-1)
    value = highest.mean()
    low = value - np.quantile(worst_error, 1 - seen.alpha / 2)
    high = value - np.quantile(error_of_best, seen.alpha / 2)
    return float(value), np.array([low, high])


def _against_last(rows: Floats) -> Floats:
    """(..., t, C): every earlier row minus the last one."""
    return rows[..., :-1, :] - rows[..., -1:, :]


def _never_best(drops: Floats) -> Floats:
    """A row that was not measured cannot be the best one."""
    return np.where(np.isnan(drops), -np.inf, drops)


def _metric(seen: _Seen, name: Name, terms: Terms, value: float, ends: Sequence[float] | Floats) -> Metric:
    known, left_out = terms.split()
    if name == "intransigence" and not known:
        left_out = ()  # without any reference nothing was left out
    low, high = _ends(seen, known, ends)
    return Metric(
        name=name,
        value=value if known else None,
        low=low,
        high=high,
        n_terms=len(known),
        skills=tuple(seen.suites[column] for column in known),
        left_out=tuple(seen.suites[column] for column in left_out),
        definition=DEFINITIONS[name],
    )


def _ends(
    seen: _Seen, columns: Sequence[int], ends: Sequence[float] | Floats
) -> tuple[float, float] | tuple[None, None]:
    """The interval, unless the items cannot give one: too few to vary, or none that varies."""
    if not len(ends) or seen.few.intersection(columns) or np.isclose(ends[0], ends[1], rtol=0, atol=1e-12):
        return None, None
    return float(ends[0]), float(ends[1])


def _all_drops(seen: _Seen, t: int, names: Sequence[str]) -> tuple[Drop, ...]:
    found = []
    for column in Terms(tuple(range(len(seen.suites))), equations.drops(seen.point, t)).split()[0]:
        value, ends = _largest(seen, [column], t, over_skills=False)
        low, high = _ends(seen, [column], ends)
        best = names[int(np.nanargmax(seen.point[:t, column]))]
        found.append(Drop(suite=seen.suites[column], value=value, low=low, high=high, best=best))
    return tuple(sorted(found, key=lambda drop: -drop.value))


def _check(scores: Sequence[Scores], trained: Sequence[Collection[str]], names: Sequence[str]) -> None:
    if not scores or not len(scores) == len(trained) == len(names):
        counts = f"{len(scores)} rows of scores, {len(trained)} of trained suites and {len(names)} names"
        message = f"{counts}: there must be as many of each, the base first, and at least the base."
        raise EvidenceError(message)
    if trained[0]:
        skills = ", ".join(trained[0])
        message = f"the first row, {names[0]}, must be the base before any training, but was trained for {skills}."
        raise EvidenceError(message)


def _by_item(row: ReleaseScores) -> dict[str, dict[str, float]]:
    return {suite.suite: {str(place): score for place, score in enumerate(suite.scores)} for suite in row.suites}


def _clusters(suite: SuiteScores) -> dict[str, str | None]:
    return {str(place): cluster for place, cluster in enumerate(suite.clusters or ())}


def _metric_row(metric: Metric) -> list[str]:
    sign = "" if metric.name == "average_accuracy" else "+"
    value = "-" if metric.value is None else _points(metric.value, sign)
    known = metric.low is not None and metric.high is not None
    interval = f"{_points(metric.low, sign)} .. {_points(metric.high, sign)}" if known else "-"
    return [_TITLES[metric.name], value, interval, _BETTER[metric.name], str(metric.n_terms), metric.definition]


def _points(share: float | None, sign: str) -> str:
    """A share in points; -0.0 is shown as 0."""
    return f"{round(100 * (share or 0.0), 1) + 0.0:{sign}.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table with columns of equal width, its first row as head."""
    cells = [[text.replace("|", "\\|") for text in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]]
