"""Claim: the gate's test passes a candidate that lost just the margin with probability alpha at most; others exceed it.

Four tests of the same paired outcomes at alpha = 0.05, all probabilities by enumeration, no simulation:

    exact      the gate: Tango's score against its exact critical value
    Tango      the same score against the normal quantile
    Wald t     a paired t test of the differences against the margin; no flips at all count as proof
    McNemar    the habit of passing whatever is not significantly worse (one-sided)

Left out: graded and clustered scores, and relative margins, which the gate judges by betting.

    python benchmarks/gate_exactness.py [--publish docs/gate.md]
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from scipy.stats import binom, t

from metagdpo.gate.paired import critical_value, score, z_value
from metagdpo.schema import write_text

ALPHA = 0.05
ITEMS = (20, 100, 400, 2000, 10_000)
MARGINS = (0.02, 0.04)
FLIP_RATES = (0.02, 0.05, 0.1)  # of an unchanged candidate
BEGIN, END = "<!-- exactness -->", "<!-- /exactness -->"
Holds = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main() -> None:
    """Print the table, and write it into a page where that is asked."""
    parser = argparse.ArgumentParser(description="False passes and power of paired tests.")
    parser.add_argument("--publish", type=Path, help="page with the two markers; only printed where there is none")
    arguments = parser.parse_args()
    lines = []
    for line in table():
        print(line, flush=True)
        lines.append(line)
    if arguments.publish and arguments.publish.exists():
        publish(arguments.publish, lines)


def table() -> Iterable[str]:
    """Lines of a Markdown table."""
    powers = " | ".join(f"{100 * rate:g} % flips" for rate in FLIP_RATES)
    yield f"| items | margin | test | false passes at worst | just losses | 10 % more flips | unchanged: {powers} |"
    yield "| ---: | ---: | --- | ---: | ---: | ---: |" + " ---: |" * len(FLIP_RATES)
    for n in ITEMS:
        for margin in MARGINS:
            for name, holds in tests(n, margin).items():
                most = most_lost(n, holds)
                false = [worst(most, margin), passes(most, margin, 0.0), passes(most, margin + 0.05, 0.05)]
                kept = [passes(most, rate / 2, rate / 2) for rate in FLIP_RATES]
                cells = " | ".join([*(f"{p:.4f}" for p in false), *(f"{p:.3f}" for p in kept)])
                yield f"| {n:,} | {100 * margin:g} | {name} | {cells} |"


def tests(n: int, margin: float) -> dict[str, Holds]:
    """Whether a test passes the candidate, by name."""
    exact, normal, student = critical_value(n, margin, ALPHA), z_value(ALPHA), t.isf(ALPHA, n - 1)

    def wald(lost: np.ndarray, gained: np.ndarray) -> np.ndarray:
        mean = (gained - lost) / n
        error = np.sqrt(np.maximum(lost + gained - n * mean * mean, 0.0) / (n - 1) / n)
        return mean + margin > student * error

    return {
        "exact": lambda lost, gained: score(n, lost, gained, -margin) >= exact,
        "Tango": lambda lost, gained: score(n, lost, gained, -margin) > normal,
        "Wald t": wald,
        "McNemar": lambda lost, gained: lost - gained <= normal * np.sqrt(lost + gained),
    }


def most_lost(n: int, holds: Holds) -> np.ndarray:
    """For each number of flips the largest count of losses that passes together with all smaller ones."""
    low, high = np.full(n + 1, -1), np.arange(n + 1)
    flips = np.arange(n + 1)
    while np.any(low < high):
        middle = (low + high + 1) // 2
        passed = holds(middle, flips - middle) | (middle < 0)
        low, high = np.where(passed, middle, low), np.where(passed, high, middle - 1)
    return low


def passes(most: np.ndarray, lost_rate: float, gained_rate: float) -> float:
    """Probability of a pass under these rates."""
    n, flip_rate = len(most) - 1, lost_rate + gained_rate
    if flip_rate <= 0:
        return float(most[0] >= 0)
    flips = np.arange(int(binom.ppf(1e-12, n, flip_rate)), int(binom.isf(1e-12, n, flip_rate)) + 1)
    inside = binom.cdf(most[flips], flips, lost_rate / flip_rate)
    return float(binom.pmf(flips, n, flip_rate) @ inside)


def worst(most: np.ndarray, margin: float) -> float:
    """Largest probability of a pass of a candidate that lost just the margin: a grid of rates, then two finer ones."""
    n, top = len(most) - 1, (1 - margin) / 2
    rates = np.unique([0.0, *np.geomspace(0.01 / n, top, 100), *np.linspace(0, top, 40)])
    best = 0.0
    for _ in range(3):
        found = [passes(most, rate + margin, rate) for rate in rates]
        at = int(np.argmax(found))
        best = max(best, found[at])
        rates = np.linspace(rates[max(at - 1, 0)], rates[min(at + 1, len(rates) - 1)], 21)
    return best


def publish(page: Path, lines: list[str]) -> None:
    """Replace what stands between the markers."""
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        sys.exit(f"{page} has no {BEGIN} and {END}: add both lines where the table should stand.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_text(page, "\n".join([before + BEGIN, *lines, END + after]))


if __name__ == "__main__":
    main()
