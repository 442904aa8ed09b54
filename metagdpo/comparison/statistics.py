"""All numbers of the comparison: one row a method, every pair of methods, and what is missing.

Intervals and p-values are those of `crossed`: over items and seeds. Methods are compared pair by pair, on the same
items and the same seeds, and the p-values of one measure are adjusted by Holm's method for all its pairs, so that with
probability 1 - level at most any of them is called better wrongly. Costs have no interval: they depend on the machine.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from metagdpo.comparison import crossed
from metagdpo.comparison.aligned import Pairs, Suite, align
from metagdpo.comparison.forgetting import links
from metagdpo.comparison.ordering import OrderNames, check_order
from metagdpo.errors import EvidenceError
from metagdpo.records.comparison import (
    MEASURES,
    Comparison,
    Estimate,
    Measure,
    MethodDifference,
    MethodResult,
    MissingRun,
    RunPoint,
    RunResult,
    Spread,
    SuiteChange,
)
from metagdpo.records.verdict import Tier

LEVEL = 0.95
DRIFT_LEVEL = 0.95
"""Of the interval in a run's drift."""
TIERS: dict[Measure, frozenset[Tier]] = {
    "target": frozenset({"target"}),
    "retained": frozenset({"required", "safety"}),
    "overall": frozenset({"target", "required", "safety"}),
}
"""Suites that count in a measure."""


def compare(
    runs: Sequence[RunResult],
    pairs: Pairs,
    *,
    labels: Mapping[str, str] | None = None,
    seeds: Sequence[int] | None = None,
    failed: Mapping[tuple[str, int], str] | None = None,
    level: float = LEVEL,
    order: OrderNames | None = None,
) -> Comparison:
    """All numbers of the comparison.

    Args:
        runs: Finished runs, in any order.
        pairs: Their paired scores, (method, seed) -> suite -> items; an entry for every run.
        labels: Name for people of every declared method, in the order of the table; None: as in the runs.
        seeds: Declared seeds; a run of them that is not in `runs` is named as missing. None: those of the runs.
        failed: Why a run is missing, by (method, seed); the others were not run.
        level: Of the intervals, in (0, 1).
        order: Methods that stand for those of the paper; None: the default names.

    Raises:
        EvidenceError: There are no runs, one is there twice or undeclared, or they cannot be compared (see `align`).
    """
    labels = {run.method: run.label for run in runs} if labels is None else labels
    seeds = sorted({run.seed for run in runs}) if seeds is None else seeds
    _check(runs, labels, seeds)
    ordered = sorted(runs, key=lambda run: (list(labels).index(run.method), list(seeds).index(run.seed)))
    suites, notes = align(ordered, pairs)
    missing = _missing(ordered, labels, seeds, failed or {})
    by_method = {name: [run for run in ordered if run.method == name] for name in labels}
    methods = tuple(_method(name, labels[name], found, suites, seeds, level) for name, found in by_method.items())
    differences = _differences(by_method, suites, level)
    points = tuple(_point(run, suites) for run in ordered)
    kept = [suite.margin for suite in suites if suite.tier in TIERS["retained"]]
    accepted_loss = float(np.mean(kept)) if kept else None
    return Comparison(
        level=level,
        methods=methods,
        runs=points,
        missing=missing,
        differences=differences,
        claims=check_order(methods, differences, accepted_loss, order or OrderNames()),
        links=links(points, level),
        accepted_loss=accepted_loss,
        notes=(*_seed_notes(methods), *notes),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, step down: the k-th smallest of m times m - k + 1, and never falling.

    Source: Holm, Scandinavian Journal of Statistics 6:65-70, 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def drift_estimate(runs: Sequence[RunResult], level: float) -> Estimate:
    """Mean drift over the seeds, nats a token, with an interval over held-out texts and seeds.

    The runs share their texts, and only each run's own interval is at hand. So the errors from the texts are taken as
    fully correlated, which they are at most: V = (mean error)^2 + variance of the seeds' values / S.
    """
    from scipy.stats import t

    values = np.array([run.drift.kl_per_token for run in runs])
    texts = min(run.drift.n_samples for run in runs)
    quantiles = [float(t.ppf((1 + DRIFT_LEVEL) / 2, run.drift.n_samples - 1)) for run in runs]
    errors = [(run.drift.high - run.drift.low) / 2 / q for run, q in zip(runs, quantiles, strict=True)]
    v_texts = float(np.mean(errors)) ** 2
    v_seeds = float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0
    value, variance = float(values.mean()), v_texts + v_seeds
    if variance == 0:  # a candidate that equals the base to the last bit drifts by exactly nothing
        return Estimate(value=value, low=value, high=value, n_seeds=len(runs), n_units=texts, p_value=float(value == 0))
    df = variance**2 / (v_texts**2 / (texts - 1) + v_seeds**2 / max(1, len(values) - 1))
    low, high, p_value = crossed.bounds(value, variance, df, level)
    return Estimate(value=value, low=low, high=high, n_seeds=len(runs), n_units=texts, p_value=p_value)


def _check(runs: Sequence[RunResult], labels: Mapping[str, str], seeds: Sequence[int]) -> None:
    if not runs:
        raise EvidenceError("no run of the comparison has finished: there is nothing to compare. See the runs' errors.")
    keys = [(run.method, run.seed) for run in runs]
    for method, seed in keys:
        if keys.count((method, seed)) > 1:
            raise EvidenceError(f"{method} with seed {seed} is there twice. Hand in each run once.")
        if method not in labels or seed not in seeds:
            message = f"{method} with seed {seed} is not declared. Add it to comparison.yaml, or leave its result out."
            raise EvidenceError(message)


def _missing(
    runs: Sequence[RunResult], labels: Mapping[str, str], seeds: Sequence[int], failed: Mapping[tuple[str, int], str]
) -> tuple[MissingRun, ...]:
    there = {(run.method, run.seed) for run in runs}
    planned = itertools.product(labels, seeds)
    return tuple(
        MissingRun(method=method, seed=seed, why=failed.get((method, seed), "not run"))
        for method, seed in planned
        if (method, seed) not in there
    )


def _method(  # noqa: PLR0917  (one row's parts)
    name: str, label: str, runs: Sequence[RunResult], suites: Sequence[Suite], seeds: Sequence[int], level: float
) -> MethodResult:
    done = tuple(run.seed for run in runs)
    rows = [(suite, suite.changes(name, done)) for suite in suites] if done else []
    means = {
        measure: _mean([block for suite, block in rows if suite.tier in tiers], level)
        for measure, tiers in TIERS.items()
    }
    changes = [
        SuiteChange(
            suite=suite.suite,
            tier=suite.tier,
            skill=suite.skill,
            before=float(suite.before.mean()),
            change=crossed.estimate([block], level),
        )
        for suite, block in rows
    ]
    return MethodResult(
        method=name,
        label=label,
        seeds=done,
        missing=tuple(seed for seed in seeds if seed not in done),
        target=means["target"],
        retained=means["retained"],
        overall=means["overall"],
        suites=tuple(changes),
        drift=drift_estimate(runs, level) if runs else None,
        seconds=_spread([run.cost.seconds for run in runs]),
        peak_memory_gb=_spread([run.cost.peak_memory_gb for run in runs]),
        tokens=_spread([float(run.cost.n_tokens + run.cost.n_sampled_tokens) for run in runs]),
        alphas=tuple(run.alpha for run in runs),
        decisions=tuple(run.decision for run in runs),
    )


def _mean(blocks: Sequence[crossed.Block], level: float) -> Estimate | None:
    return crossed.estimate(blocks, level) if blocks else None


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(mean=math.fsum(values) / len(values), least=min(values), most=max(values)) if values else None


def _differences(
    by_method: Mapping[str, Sequence[RunResult]], suites: Sequence[Suite], level: float
) -> tuple[MethodDifference, ...]:
    """Every pair of methods with a common seed, measure by measure."""
    found: list[MethodDifference] = []
    for measure in MEASURES:
        counted = [suite for suite in suites if suite.tier in TIERS[measure]]
        compared: list[tuple[str, str, Estimate]] = []
        for first, second in itertools.combinations(by_method, 2):
            common = [run.seed for run in by_method[first] if run.seed in {other.seed for other in by_method[second]}]
            blocks = [suite.difference(first, second, common) for suite in counted] if common else []
            if blocks:
                compared.append((first, second, crossed.estimate(blocks, level)))
        adjusted = holm([difference.p_value for _, _, difference in compared])
        found += [_difference(measure, *row, p, level) for row, p in zip(compared, adjusted, strict=True)]
    return tuple(found)


def _difference(  # noqa: PLR0917  (one row's parts)
    measure: Measure, first: str, second: str, difference: Estimate, p_holm: float, level: float
) -> MethodDifference:
    winner = first if difference.value > 0 else second
    return MethodDifference(
        measure=measure,
        first=first,
        second=second,
        difference=difference,
        p_holm=p_holm,
        better=winner if p_holm < 1 - level else None,
    )


def _point(run: RunResult, suites: Sequence[Suite]) -> RunPoint:
    def mean(measure: Measure) -> float | None:
        counted = [suite for suite in suites if suite.tier in TIERS[measure]]
        blocks = [suite.changes(run.method, (run.seed,)) for suite in counted]
        return float(np.mean([block.values.mean() for block in blocks])) if blocks else None

    return RunPoint(
        method=run.method,
        seed=run.seed,
        target=mean("target"),
        retained=mean("retained"),
        drift=run.drift.kl_per_token,
        decision=run.decision,
    )


def _seed_notes(methods: Sequence[MethodResult]) -> list[str]:
    single = [method.label for method in methods if len(method.seeds) == 1]
    if not single:
        return []
    return [
        f"One seed only: {', '.join(single)}. The interval is over items alone and says nothing about another training."
    ]
