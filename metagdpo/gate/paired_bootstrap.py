"""Paired bootstrap of mean scores: the same resample of a suite's items serves every model that answered them.

Differences between models keep their pairing that way. Whole clusters are drawn where items share a passage, subject or
template. Items with equal scores everywhere are interchangeable, so only the number of each kind is drawn: the same
distribution for far less work.

Legend of shapes: B resamples, R rows (models).
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 8.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from metagdpo.errors import EvidenceError

Floats = npt.NDArray[np.float64]
Scores = Mapping[str, Mapping[str, float]]
"""Suite -> item -> score in 0..1."""
_MOST_WEIGHTS = 1 << 22  # resampling weights held at once: 32 MiB


class Sample(NamedTuple):
    """One suite's independent units; units with equal sums are interchangeable and counted together."""

    sums: Floats
    """(patterns, measured rows + 1): sum of the unit's scores by row; its number of items."""
    counts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    """The rows that were measured."""
    n_rows: int

    @property
    def units(self) -> int:
        """Number of independent items or clusters."""
        return int(self.counts.sum())

    def means(self) -> Floats:
        """(R,): the mean score of every row, NaN where it was not measured."""
        means: Floats = self._ratio(self.counts[None, :].astype(np.float64))[0]
        return means

    def resample(self, resamples: int, rng: np.random.Generator) -> Floats:
        """(B, R): means of resamples; units are drawn with replacement, once for all rows."""
        if not self.units:
            return np.full((resamples, self.n_rows), np.nan)
        step = max(1, _MOST_WEIGHTS // len(self.counts))
        chances = self.counts / self.units
        return np.concatenate(
            [
                self._ratio(rng.multinomial(self.units, chances, size=min(step, resamples - start)).astype(np.float64))
                for start in range(0, resamples, step)
            ]
        )

    def _ratio(self, weights: Floats) -> Floats:
        totals = weights @ self.sums
        means = np.full((len(weights), self.n_rows), np.nan)
        means[:, self.rows] = totals[:, :-1] / totals[:, -1:]
        return means


def sample_of(suite: str, rows: Sequence[Scores], labels: Sequence[str], clusters: Mapping[str, str | None]) -> Sample:
    """What can be resampled of one suite.

    Args:
        suite: Its name.
        rows: The scores of every model; one without this suite did not answer it.
        labels: Names of the rows, for messages.
        clusters: Cluster by item; None or no entry: independent.

    Raises:
        EvidenceError: A row has other items than the first, no items, or a score outside 0..1; names suite and row.
    """
    measured = [row for row, scores in enumerate(rows) if suite in scores]
    items = list(rows[measured[0]][suite]) if measured else []
    for row in measured:
        _check_row(suite, rows[row][suite], labels[row], items, labels[measured[0]])
    values = np.array([[rows[row][suite][item] for row in measured] for item in items], dtype=np.float64)
    values = np.column_stack([values.reshape(len(items), len(measured)), np.ones(len(items))])
    places: dict[tuple[str, str], int] = {}
    units = [places.setdefault(_unit(item, clusters.get(item)), len(places)) for item in items]
    sums = np.zeros((len(places), values.shape[1]))
    np.add.at(sums, units, values)
    patterns, counts = np.unique(sums, axis=0, return_counts=True)
    return Sample(patterns, counts.astype(np.int64), np.array(measured, dtype=np.int64), len(rows))


def _unit(item: str, cluster: str | None) -> tuple[str, str]:
    return ("item", item) if cluster is None else ("cluster", cluster)


def _check_row(suite: str, row: Mapping[str, float], label: str, items: Sequence[str], first: str) -> None:
    if not row:
        message = f"suite {suite} of {label} has no items: leave out a suite that was not measured."
        raise EvidenceError(message)
    if row.keys() != set(items):
        lacking, more = sorted(set(items) - row.keys()), sorted(row.keys() - set(items))
        message = (
            f"suite {suite}: {label} has other items than {first} ({len(lacking)} missing, {len(more)} more, such as "
            f"{(lacking + more)[0]!r}). Rows are compared item by item: score both on the same items."
        )
        raise EvidenceError(message)
    bad = next((item for item, score in row.items() if not 0 <= score <= 1), None)
    if bad is not None:
        message = f"suite {suite} of {label}: item {bad!r} has the score {row[bad]}; a score is a number in 0..1."
        raise EvidenceError(message)
