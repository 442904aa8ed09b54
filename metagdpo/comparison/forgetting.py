"""Drift against forgetting: how KL(base || candidate) and the change of retained skill go together over all runs.

Runs of one method are alike, so a correlation of all runs knows less than their number suggests. The interval is
Tukey's jackknife over methods, on Fisher's scale z = atanh(r), where errors are more even than on r:

    SE^2 = (M - 1) / M sum_m (z_-m - mean z_-m)^2,   z_-m without the runs of method m,   interval z -+ t(M - 1) SE

It is preferred to a bootstrap of methods because it needs no random numbers, and because resamples of eight methods
often hold no more than four or five of them. SE is at least Fisher's own 1 / sqrt(N - 3) for N unrelated runs: methods
that happen to agree prove no more. Noise of both measurements draws r towards 0, so the link of the true values is
rather stronger.

Source: Efron, The Jackknife, the Bootstrap and Other Resampling Plans (1982), chapter 3.
Home of: correlation of drift and forgetting
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from metagdpo.knowledge.correlation import pearson, ranks
from metagdpo.records.comparison import DriftLink, RunPoint

Floats = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]
Statistic = Callable[[Floats, Floats, Names], float | None]
LEAST_METHODS = 5
"""Fewer say nothing: with four, leaving one out decides everything."""


def links(runs: Sequence[RunPoint], level: float) -> tuple[DriftLink, ...]:
    """Pearson, Spearman, and Pearson within methods; a value of None comes with the reason.

    Args:
        runs: Those without a retained change are left out.
        level: Of the intervals.
    """
    used = [run for run in runs if run.retained is not None]
    drift = np.array([run.drift for run in used])
    change = np.array([run.retained for run in used], dtype=np.float64)
    methods = np.array([run.method for run in used], dtype=np.str_)
    return (
        _link("pearson", _pearson, drift, change, methods, level),
        _link("spearman", _spearman, drift, change, methods, level),
        _link("within", _within, drift, change, methods, level),
    )


def _link(  # noqa: PLR0917  (one row's parts)
    kind: str, statistic: Statistic, drift: Floats, change: Floats, methods: Names, level: float
) -> DriftLink:
    names = sorted(set(methods.tolist()))
    counts = {"n_runs": len(drift), "n_methods": len(names)}
    why = _too_few(kind, len(drift), len(names))
    value = None if why else statistic(drift, change, methods)
    if value is None:
        why = why or "one of the two does not vary"
        return DriftLink.model_validate({"kind": kind, **counts, "value": None, "low": None, "high": None, "note": why})
    low, high = _interval(statistic, value, drift, change, methods, level)
    note = _meaning(kind, low, high)
    return DriftLink.model_validate({"kind": kind, **counts, "value": value, "low": low, "high": high, "note": note})


def _too_few(kind: str, n_runs: int, n_methods: int) -> str:
    if n_methods < LEAST_METHODS:
        return f"too few methods: {n_methods}, at least {LEAST_METHODS} are needed"
    if kind == "within" and n_runs - n_methods < LEAST_METHODS:
        return "too few seeds: nothing is left when each method's mean is taken off"
    return ""


def _interval(  # noqa: PLR0917  (one row's parts)
    statistic: Statistic, value: float, drift: Floats, change: Floats, methods: Names, level: float
) -> tuple[float, float]:
    from scipy.stats import t

    names = sorted(set(methods.tolist()))
    n = len(drift) - (len(names) - 1 if statistic is _within else 0)
    left = [statistic(drift[methods != m], change[methods != m], methods[methods != m]) for m in names]
    scores = np.array([_fisher(value if r is None else r, n) for r in left])
    spread = (len(names) - 1) / len(names) * float(((scores - scores.mean()) ** 2).sum())
    error = math.sqrt(max(spread, 1 / (n - 3)))
    half = float(t.ppf((1 + level) / 2, len(names) - 1)) * error
    middle = _fisher(value, n)
    return min(value, math.tanh(middle - half)), max(value, math.tanh(middle + half))


def _fisher(r: float, n: int) -> float:
    """Fisher's z; a perfect order of n points counts as 1 - 1 / n^2, so that it stays finite."""
    most = 1 - 1 / n**2
    return math.atanh(min(most, max(-most, r)))


def _pearson(drift: Floats, change: Floats, methods: Names) -> float | None:  # noqa: ARG001  (one signature for all)
    return pearson(drift, change)


def _spearman(drift: Floats, change: Floats, methods: Names) -> float | None:  # noqa: ARG001  (one signature for all)
    return pearson(ranks(drift), ranks(change))


def _within(drift: Floats, change: Floats, methods: Names) -> float | None:
    names, places = np.unique(methods, return_inverse=True)
    counts = np.bincount(places, minlength=len(names))
    means = [np.bincount(places, weights=values) / counts for values in (drift, change)]
    return pearson(drift - means[0][places], change - means[1][places])


def _meaning(kind: str, low: float, high: float) -> str:
    among = "runs of one method" if kind == "within" else "runs"
    if high < 0:
        return f"shown: {among} that drifted further lost more"
    if low > 0:
        return f"shown the other way: {among} that drifted further lost less"
    return "not shown: the interval holds 0"
