"""Claim: stopping early saves most items in clear cases, costs little power in unclear ones, and keeps the error rate.

Simulated scores of independent items, judged by the functions of the product in a vectorised form: capital at every
look, the exact test's critical value when all items are in. Left out: clusters, relative margins, real models.

    python benchmarks/gate_sequential.py                             prints the tables, about two minutes
    python benchmarks/gate_sequential.py --publish docs/gate.md      and writes them between the page's markers
"""

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from metagdpo.gate.betting import log_capital, mirrored, units_of
from metagdpo.gate.paired import critical_value, score

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Floats]

ALPHA, LOOK, SHARE = 0.05, 32, 0.1
MARKS = ("<!-- sequential -->", "<!-- /sequential -->")
_VALUES_AT_ONCE = 200_000

# items, margin, P(lost), P(gained), and the decision that is right
UNCLEAR = [
    (400, 0.04, 0.04, 0.04, "non-inferior"),
    (400, 0.04, 0.075, 0.075, "non-inferior"),
    (1000, 0.04, 0.1, 0.1, "non-inferior"),
    (1000, 0.03, 0.06, 0.06, "non-inferior"),
    (2000, 0.03, 0.15, 0.15, "non-inferior"),
    (400, 0.04, 0.11, 0.03, "worse"),
    (1000, 0.04, 0.15, 0.08, "worse"),
    (2000, 0.03, 0.12, 0.07, "worse"),
    # here the exact test's critical value jumps between 0.045 and 0.05
    (400, 0.05, 0.075, 0.0, "worse"),
    (400, 0.05, 0.2, 0.1, "worse"),
]
# items, margin, P(gained); P(lost) is larger by the margin
BOUNDARY = [(100, 0.05, 0.0), (400, 0.04, 0.0), (400, 0.04, 0.1), (1000, 0.03, 0.0), (1000, 0.03, 0.2)]


class Runs(NamedTuple):
    """What looks and the test of all items say about each simulated evaluation; side 0 passes, side 1 proves a loss."""

    capital: Floats
    """Largest log capital up to each look, shape [side, run, look]."""
    looks: npt.NDArray[np.int64]
    scores: Floats
    """Score of all items in favour of each side, shape [side, run]; of use for right-or-wrong items only."""


def main() -> None:
    """Print the tables and publish them on demand."""
    parser = argparse.ArgumentParser(description="What sequential looks save and cost.")
    parser.add_argument("--runs", type=int, default=200, help="simulated evaluations a cell (times ten for power)")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="write the tables into this page")
    arguments = parser.parse_args()
    tables = [
        clear(arguments.runs),
        unclear(10 * arguments.runs),
        boundary(10 * arguments.runs),
        graded(arguments.runs),
    ]
    text = "\n\n".join(tables)
    if arguments.publish:
        page = arguments.publish.read_text(encoding="utf-8")
        before, rest = page.split(MARKS[0])
        _, after = rest.split(MARKS[1])
        arguments.publish.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}", encoding="utf-8")


def clear(runs: int) -> str:
    """Items used where the truth is clear."""
    columns = [
        *((f"A/A, {flips:.0%} flips", lambda _, f=flips: (f / 2, f / 2)) for flips in (0.0, 0.01, 0.02, 0.05)),
        ("3 margins lost, no gains", lambda m: (3 * m, 0.0)),
        ("3 margins lost, 5 % gains", lambda m: (3 * m + 0.05, 0.05)),
        ("3 margins lost, 10 % gains", lambda m: (3 * m + 0.1, 0.1)),
    ]
    lines = [f"Mean share of the items that is scored (looks every {LOOK} items, share {SHARE:g}):", ""]
    lines += header(["items", "margin", *(name for name, _ in columns)])
    for n in (400, 1000, 2000, 4000):
        for margin in (0.03, 0.04, 0.05):
            cells = []
            for _, rates in columns:
                simulated = simulate(flipping(*rates(margin)), margin, n, runs)
                used, _, _ = sequential(simulated, n, margin, SHARE, exact=True)
                cells.append(f"{100 * used.mean() / n:.0f} %")
            lines.append(row([f"{n:,}", f"{100 * margin:g}", *cells]))
    return shown(lines)


def unclear(runs: int) -> str:
    """Power against the test of all items at full alpha, where the suite is just large enough or too small."""
    shares = (0.05, 0.1, 0.15, 0.2)
    lines = ["Power with looks, by the share of alpha that they spend; in brackets the change in points:", ""]
    columns = ["items", "margin", "lost", "gained", "decision", "all items", *(f"share {s:g}" for s in shares)]
    lines += header([*columns, f"scored at {SHARE:g}"])
    for n, margin, lost, gained, decision in UNCLEAR:
        simulated, side = simulate(flipping(lost, gained), margin, n, runs), int(decision == "worse")
        fixed = fixed_decisions(simulated, n, margin, ALPHA)[side].mean()
        looked = {share: sequential(simulated, n, margin, share, exact=True) for share in shares}
        power = [result[1 + side].mean() for result in looked.values()]
        cells = [f"{n:,}", f"{100 * margin:g}", f"{100 * lost:g} %", f"{100 * gained:g} %", decision]
        cells += [f"{100 * fixed:.1f} %", *(f"{100 * p:.1f} % ({100 * (p - fixed):+.1f})" for p in power)]
        lines.append(row([*cells, f"{100 * looked[SHARE][0].mean() / n:.0f} %"]))
    return shown(lines)


def boundary(runs: int) -> str:
    """How often a candidate that lost just the margin is passed, or called worse."""
    lines = [
        f"Wrong decisions at the margin (alpha {ALPHA:g}, share {SHARE:g}, {runs:,} evaluations, 95 % interval):",
        "",
    ]
    lines += header(["items", "margin", "lost", "gained", "passed", "called worse"])
    for n, margin, gained in [
        (100, 0.05, 0.0),
        (400, 0.04, 0.0),
        (400, 0.04, 0.1),
        (1000, 0.03, 0.0),
        (1000, 0.03, 0.2),
    ]:
        simulated = simulate(flipping(margin + gained, gained), margin, n, runs)
        _, passes, worse = sequential(simulated, n, margin, SHARE, exact=True)
        cells = [rate(int(side.sum()), runs) for side in (passes, worse)]
        lines.append(
            row([f"{n:,}", f"{100 * margin:g}", f"{100 * (margin + gained):g} %", f"{100 * gained:g} %", *cells])
        )
    return shown(lines)


def graded(runs: int) -> str:
    """Graded scores, where betting is the only test: its price against a t-test, and what looks save."""
    kinds = [
        ("5 % of items change by up to 1", changing(0.05, 1.0)),
        ("20 % of items change by up to 1", changing(0.2, 1.0)),
        ("all items change by up to 0.3", changing(1.0, 0.3)),
    ]
    lines = [
        "Graded scores, unchanged candidate. Power of betting on all items and with looks (the same), of a one-sided ",
        "t-test (valid for large samples only), and the mean share of items scored:",
        "",
        *header(["items", "margin", "scores", "betting", "t-test", "items scored"]),
    ]
    for n in (200, 400, 1000, 2000):
        for name, draw in kinds:
            margin = 0.04
            simulated = simulate(draw, margin, n, runs, exact=False)
            used, passes, _ = sequential(simulated, n, margin, 1.0, exact=False)
            values = draw(np.random.default_rng(2), runs, n) + margin
            t_test = values.mean(axis=1) > 1.645 * values.std(axis=1, ddof=1) / math.sqrt(n)
            percent = [f"{100 * x:.0f} %" for x in (passes.mean(), t_test.mean(), used.mean() / n)]
            lines.append(row([f"{n:,}", f"{100 * margin:g}", name, *percent]))
    return shown(lines)


def flipping(lost: float, gained: float) -> Draw:
    """Differences of right-or-wrong items."""
    return lambda rng, runs, n: rng.choice([-1.0, 0.0, 1.0], p=[lost, 1 - lost - gained, gained], size=(runs, n))


def changing(rate: float, largest: float) -> Draw:
    """Differences of graded items, uniform in +-largest where an item changes."""
    return lambda rng, runs, n: rng.uniform(-largest, largest, (runs, n)) * (rng.random((runs, n)) < rate)


def simulate(draw: Draw, margin: float, n: int, runs: int, *, exact: bool = True) -> Runs:
    """Evaluate many candidates; `exact`: an exact test of all items stands behind the looks."""
    looks = np.array([*range(LOOK, n, LOOK), n])
    capital, scores = [], []
    for values in _pieces(draw, n, runs):
        units = units_of(values + margin, margin - 1, margin + 1)
        sides = [log_capital(side, 0.0, None if exact else n) for side in (units, mirrored(units))]
        capital.append(np.maximum.accumulate(np.stack(sides), axis=-1)[..., looks - 1])
        lost, gained = (values < 0).sum(axis=1), (values > 0).sum(axis=1)
        scores.append(np.stack([score(n, lost, gained, -margin), score(n, gained, lost, margin)]))
    return Runs(np.concatenate(capital, axis=1), looks, np.concatenate(scores, axis=1))


def sequential(runs: Runs, n: int, margin: float, share: float, *, exact: bool) -> tuple[Floats, Floats, Floats]:
    """Items used, and whether each evaluation passed or was called worse: the first decision stands."""
    crossed = runs.capital >= math.log(1 / (share * ALPHA))
    if exact:
        crossed[..., -1] |= fixed_decisions(runs, n, margin, (1 - share) * ALPHA)
    never = len(runs.looks)
    first = np.where(crossed.any(axis=-1), crossed.argmax(axis=-1), never)
    used = runs.looks[np.minimum(first.min(axis=0), never - 1)]
    passes = (first[0] < never) & (first[0] <= first[1])
    return used, passes, (first[1] < never) & (first[1] < first[0])


def fixed_decisions(runs: Runs, n: int, margin: float, alpha: float) -> npt.NDArray[np.bool_]:
    """Whether the exact test of all items decides, shape [side, run]."""
    critical = [critical_value(n, margin, alpha), critical_value(n, -margin, alpha)]
    return runs.scores >= np.array(critical)[:, None]


def rate(count: int, runs: int) -> str:
    """A share with its Clopper-Pearson interval."""
    from scipy.stats import binomtest

    interval = binomtest(count, runs).proportion_ci()
    return f"{100 * count / runs:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def header(names: list[str]) -> list[str]:
    """The first two lines of a table."""
    return [row(names), row(["---"] * len(names))]


def row(cells: list[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def shown(lines: list[str]) -> str:
    """Print at once what takes a while, and return it."""
    text = "\n".join(lines)
    print(f"{text}\n", flush=True)
    return text


def _pieces(draw: Draw, n: int, runs: int) -> Iterator[Floats]:
    rng, at_once = np.random.default_rng(1), max(1, _VALUES_AT_ONCE // n)
    for start in range(0, runs, at_once):
        yield draw(rng, min(at_once, runs - start), n)


if __name__ == "__main__":
    main()
