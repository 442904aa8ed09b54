"""Continual metrics of a matrix R[t][i]: what each is the mean of.

R[t][i] is the mean score of suite i (a skill) after release t; row 0 is the base model before anything was trained. A
release is trained for some skills, for none or for several, and most skills are trained by no release. A cell that was
not measured is NaN: a term that needs it has no value, and is never taken for zero. All functions take leading axes, so
that one call serves the matrix and its resamples. What other libraries compute: docs/continual-metrics.md.

Legend of shapes: T+1 rows, I suites, C terms.

Home of: continual metrics (Lopez-Paz and Ranzato 2017, arXiv 1706.08840; Chaudhry et al. 2018, arXiv 1801.10112;
TRACE, arXiv 2310.06762)
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Trained = Sequence[Collection[int]]
"""The columns that each row's release was trained for; row 0 for none."""


class Terms(NamedTuple):
    """What a metric is the mean of."""

    columns: tuple[int, ...]
    values: Floats
    """(..., C); NaN where a cell that the term needs is missing."""

    def mean(self) -> Floats:
        """(...): the mean over the terms that have a value; NaN when there is none."""
        measured = self.values[..., self._measured()]
        return measured.mean(axis=-1) if measured.shape[-1] else np.full(self.values.shape[:-1], np.nan)

    def split(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The columns with and without a value."""
        measured = self._measured()
        known = tuple(column for column, has in zip(self.columns, measured, strict=True) if has)
        return known, tuple(column for column in self.columns if column not in known)

    def _measured(self) -> npt.NDArray[np.bool_]:
        one = self.values[(0,) * (self.values.ndim - 1)]  # all resamples lack the same cells
        known: npt.NDArray[np.bool_] = ~np.isnan(one)
        return known


def average_accuracy(matrix: Floats, trained: Trained, t: int) -> Terms:
    """ACC_t: R[t][i] of the skills trained up to release t (GEM's ACC at t = T, TRACE's overall performance)."""
    columns = list(latest_training(trained, t))
    return Terms(tuple(columns), matrix[..., t, _index(columns)])


def backward_transfer(matrix: Floats, trained: Trained, t: int) -> Terms:
    """BWT_t: R[t][i] - R[s][i] with s < t the latest training of i (GEM; T - 1 terms in its square case).

    A skill that release t was trained for has no term: nothing came after its training. Training once more starts anew.
    """
    since = {column: s for column, s in latest_training(trained, t).items() if s < t}
    columns = _index(since)
    return Terms(tuple(since), matrix[..., t, columns] - matrix[..., _index(since.values()), columns])


def forward_transfer(matrix: Floats, trained: Trained, t: int) -> Terms:
    """FWT_t: R[f-1][i] - R[0][i] with f >= 2 the first training of i (T - 1 terms in the square case).

    Departs from GEM, which subtracts a randomly initialised model's score: a language model starts with skills, and
    what the base could do was not transferred by releases.
    """
    first = {column: f for column, f in first_training(trained, t).items() if f > 1}
    columns = _index(first)
    return Terms(tuple(first), matrix[..., _index(first.values()) - 1, columns] - matrix[..., 0, columns])


def forgetting(matrix: Floats, trained: Trained, t: int) -> Terms:
    """F_t: max over l < t of R[l][i], minus R[t][i], for skills trained before t (Chaudhry: k - 1 terms).

    Departs from Chaudhry, who starts the maximum at row 1: what the base could do and the release cannot is forgotten
    too. Without a measured base both are equal. No floor at 0: a skill that grew has a negative term.
    """
    columns = [column for column, f in first_training(trained, t).items() if f < t]
    return Terms(tuple(columns), drops(matrix, t)[..., _index(columns)])


def intransigence(matrix: Floats, reference: Floats, trained: Trained, t: int) -> Terms:
    """I_t: R*[i] - R[s][i] with s the latest training of i (Chaudhry's I_k, averaged over the skills trained up to t).

    Args:
        matrix: (..., T+1, I).
        reference: (..., I): what training for the skill alone reaches; NaN where it is not known.
        trained: Columns trained by each row.
        t: Row.
    """
    since = latest_training(trained, t)
    columns = _index(since)
    return Terms(tuple(since), reference[..., columns] - matrix[..., _index(since.values()), columns])


def general_delta(matrix: Floats, trained: Trained, t: int) -> Terms:
    """R[t][i] - R[0][i] of the skills that no release up to t was trained for (TRACE's general-ability delta)."""
    learned = latest_training(trained, t)
    columns = [column for column in range(matrix.shape[-1]) if column not in learned]
    return Terms(tuple(columns), matrix[..., t, _index(columns)] - matrix[..., 0, _index(columns)])


def drops(matrix: Floats, t: int) -> Floats:
    """(..., I): max over l < t of R[l][i], minus R[t][i]; NaN where either side was not measured."""
    earlier = np.where(np.isnan(matrix[..., :t, :]), -np.inf, matrix[..., :t, :]).max(axis=-2)
    lost: Floats = np.where(np.isinf(earlier), np.nan, earlier) - matrix[..., t, :]
    return lost


def first_training(trained: Trained, t: int) -> dict[int, int]:
    """Column -> the first row up to t that was trained for it, in the order of the columns."""
    rows = {column: row for row in range(t, 0, -1) for column in trained[row]}
    return dict(sorted(rows.items()))


def latest_training(trained: Trained, t: int) -> dict[int, int]:
    """Column -> the latest row up to t that was trained for it, in the order of the columns."""
    rows = {column: row for row in range(1, t + 1) for column in trained[row]}
    return dict(sorted(rows.items()))


def _index(numbers: Collection[int]) -> npt.NDArray[np.int64]:
    return np.fromiter(numbers, dtype=np.int64, count=len(numbers))
