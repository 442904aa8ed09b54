"""Stopping an evaluation as soon as a comparison is certain, with the error rate of a comparison of all items.

Items are scored in a fixed random order and looked at after every batch. Two cases:

    scores that are compared by betting   the capital is valid at every look, so looking costs nothing: all of alpha is
                                          used throughout, and no item is lost against the comparison of all items
    scores that have an exact test        betting at share * alpha at every look, the exact test at (1 - share) * alpha
                                          when all items are in: together at most alpha (union bound). The exact test
                                          needs fewer items than betting for small differences, so it is kept

The first decision stands. p-values and bounds belong to the look of that decision and share alpha in the same way.

With clusters, a look counts those that are complete, since the items of one cluster are not independent. The order must
keep each cluster together, and the size of the suite's largest cluster must be known beforehand: without it there are
no looks, only the comparison of all items. docs/gate.md shows what looking saves and what it costs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from metagdpo.errors import EvidenceError
from metagdpo.gate import hypotheses
from metagdpo.gate.betting import Units, bounds, log_capital, mirrored, p_value, units_of
from metagdpo.gate.hypotheses import Claim, Evidence, Method
from metagdpo.gate.policy import Sequential
from metagdpo.records.paired import PairedScore
from metagdpo.records.verdict import Outcome


class Looked(NamedTuple):
    """What the looks at one comparison show."""

    outcome: Outcome
    n_used: int
    """Items up to the decision; all that were given when there is none."""
    low: float
    """Lower one-sided (1 - alpha) bound of the difference candidate - before, valid at a look that scores chose."""
    high: float
    p_non_inferior: float
    """p-value of "the claim does not hold", valid at a look that scores chose."""
    p_worse: float
    method: Method
    """The test that all items together get; looks before are taken by betting."""


def decide_sequentially(
    pairs: Sequence[PairedScore],
    claim: Claim,
    alpha: float,
    settings: Sequential,
    n_planned: int,
    *,
    largest_cluster: int | None = None,
) -> Looked:
    """Compare candidate and reference at every look, up to the first decision.

    A call after each batch and one call with everything that was scored give the same answer.

    Args:
        pairs: Both scores of every item scored so far, in the suite's random order, clusters kept together.
        claim: What is asked.
        alpha: One-sided error rate of each of the two decisions, over all looks.
        settings: Distance of the looks and what they may spend.
        n_planned: Items of the suite.
        largest_cluster: Items of the suite's largest cluster; None: not known, so clustered items are not looked at
            before all are in.

    Raises:
        EvidenceError: There are no items or more than planned, a score is not a number in 0..1, a cluster is
            scattered over the order or larger than the largest.
    """
    n = len(pairs)
    if n > n_planned:
        raise EvidenceError(f"{n} items were scored, but the suite has {n_planned}. Evaluate the suite again.")
    method = hypotheses.method_for(pairs, claim)
    share = settings.alpha_share if method == "exact" else 1.0
    before, candidate, clusters = hypotheses.arrays(pairs)
    excess, lowest, highest = hypotheses.claimed(before, candidate, claim)
    units = units_of(excess, lowest, highest, clusters, largest_cluster)
    complete = _complete_units(pairs, n_planned, looking=clusters is None or largest_cluster is not None)
    units_planned = n_planned / (largest_cluster or 1) if method == "betting" else None
    rise, fall = log_capital(units, 0.0, units_planned), log_capital(mirrored(units), 0.0, units_planned)
    for look in (*range(settings.items_per_look, n, settings.items_per_look), n):
        seen = complete[look]
        passes, worse = p_value(rise[:seen]) / share, p_value(fall[:seen]) / share
        last = hypotheses.compare(pairs, claim, (1 - share) * alpha) if share < 1 and look == n_planned else None
        if last is not None:
            passes, worse = min(passes, last.p_non_inferior / (1 - share)), min(worse, last.p_worse / (1 - share))
        outcome = outcome_of(passes, worse, alpha)
        if outcome != "undecided":
            break
    differences = units_of(candidate - before, -1.0, 1.0, clusters, largest_cluster)
    low, high = _bounds(_first(differences, seen), share * alpha, units_planned, last)
    return Looked(outcome, look, low, high, min(passes, 1.0), min(worse, 1.0), method)


def outcome_of(p_non_inferior: float, p_worse: float, alpha: float) -> Outcome:
    """What the two p-values say."""
    return "non_inferior" if p_non_inferior <= alpha else "worse" if p_worse <= alpha else "undecided"


def _complete_units(pairs: Sequence[PairedScore], n_planned: int, *, looking: bool) -> list[int]:
    """How many units are known to be complete after 0, 1, ... items.

    The cluster of the last item seen may go on, unless it is the suite's last item; a lone item is complete.

    Raises:
        EvidenceError: A cluster is scattered over the order.
    """
    begun, known, counts = 0, set[str](), [0]
    for index, pair in enumerate(pairs):
        if pair.cluster is None or index == 0 or pair.cluster != pairs[index - 1].cluster:
            if pair.cluster in known:
                message = f"item {pair.item_id}: its cluster {pair.cluster} began before other items. "
                raise EvidenceError(f"{message}Order the suite so that the items of a cluster follow each other.")
            begun += 1
        if pair.cluster is not None:
            known.add(pair.cluster)
        counts.append((begun if pair.cluster is None else begun - 1) if looking else 0)
    if len(pairs) == n_planned:
        counts[-1] = begun
    return counts


def _first(units: Units, count: int) -> Units:
    return units._replace(sums=units.sums[:count], sizes=units.sizes[:count])


def _bounds(units: Units, alpha: float, units_planned: float | None, last: Evidence | None) -> tuple[float, float]:
    """Bounds by betting, cut by those of the exact test once all items are in."""
    low, high = bounds(units, alpha, units_planned)
    if last is not None:
        low, high = max(low, last.low), min(high, last.high)
    return min(low, high), max(low, high)  # contradicting looks: as in `betting.bounds`
