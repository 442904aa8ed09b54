"""The one test of the gate: was the accepted loss exceeded? Chooses the method by the kind of the scores.

Every margin is a linear claim about an item's two scores. With b the reference's score and c the candidate's,

    H0: mean(c - keep * b + offset) <= 0        rejected: the candidate is non-inferior
    H1: mean(c - keep * b + offset) >= 0        rejected: the candidate is proven worse than accepted

    absolute margin m:                     keep = 1,     offset = m
    required gain g (superiority):         keep = 1,     offset = -g
    relative margin r over chance k:       keep = 1 - r, offset = -r k     (c - k >= (1 - r) (b - k) on average)

Right-or-wrong items that are independent: the exact test of `paired`. Graded or clustered items and relative margins:
the betting test of `betting`, valid for every bounded score and every number of clusters.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from metagdpo.gate import betting, paired
from metagdpo.records.paired import PairedScore

Floats = npt.NDArray[np.float64]
Method = Literal["exact", "betting"]


class Claim(NamedTuple):
    """What is asked of a candidate on a suite: mean(candidate - keep * before + offset) > 0."""

    keep: float
    offset: float


class Evidence(NamedTuple):
    """What one comparison shows."""

    low: float
    """Lower one-sided (1 - alpha) bound of the difference candidate - before."""
    high: float
    """Upper one-sided (1 - alpha) bound."""
    p_non_inferior: float
    """p-value of H0 "the claim does not hold": small means non-inferior."""
    p_worse: float
    """p-value of the opposite: small means proven worse than accepted."""
    method: Method


def absolute(margin: float) -> Claim:
    """A loss of at most `margin` of accuracy is accepted; a negative margin asks for a gain."""
    return Claim(keep=1.0, offset=margin)


def relative(share: float, chance: float) -> Claim:
    """A loss of at most `share` of what the reference has above chance is accepted."""
    return Claim(keep=1.0 - share, offset=-share * chance)


def method_for(pairs: Sequence[PairedScore], claim: Claim) -> Method:
    """Which test fits these scores."""
    binary = all(pair.before in {0.0, 1.0} and pair.candidate in {0.0, 1.0} for pair in pairs)
    return "exact" if binary and claim.keep == 1.0 and all(pair.cluster is None for pair in pairs) else "betting"


def compare(pairs: Sequence[PairedScore], claim: Claim, alpha: float) -> Evidence:
    """Compare candidate and reference on one suite, all items at once.

    Args:
        pairs: Both scores of every item.
        claim: What is asked.
        alpha: One-sided error rate of the interval's ends.

    Raises:
        EvidenceError: There are no items.
    """
    method = method_for(pairs, claim)
    if method == "exact":
        n, lost, gained = counts(pairs)
        low, high = paired.exact_interval(n, lost, gained, alpha)
        passes = paired.exact_p_non_inferior(n, lost, gained, claim.offset)
        worse = paired.exact_p_worse(n, lost, gained, claim.offset)
        # Exact p-values are not quite monotone in the margin: an end is moved out rather than contradict the decision.
        low = low if passes <= alpha else min(low, -claim.offset)
        high = high if worse <= alpha else max(high, -claim.offset)
        return Evidence(low, high, passes, worse, method)
    before, candidate, clusters = arrays(_by_item(pairs))
    low, high = betting.interval(candidate - before, -1.0, 1.0, alpha, clusters)
    excess, lowest, highest = claimed(before, candidate, claim)
    return Evidence(
        low,
        high,
        betting.p_positive(excess, lowest, highest, clusters),
        betting.p_positive(-excess, -highest, -lowest, clusters),
        method,
    )


def p_non_inferior(pairs: Sequence[PairedScore], claim: Claim) -> float:
    """The p-value of `compare` alone, without the interval, which costs most."""
    if method_for(pairs, claim) == "exact":
        return paired.exact_p_non_inferior(*counts(pairs), claim.offset)
    before, candidate, clusters = arrays(_by_item(pairs))
    return betting.p_positive(*claimed(before, candidate, claim), clusters)


def _by_item(pairs: Sequence[PairedScore]) -> list[PairedScore]:
    """In an order that does not depend on the file's: shuffling a file must not change a verdict."""
    return sorted(pairs, key=lambda pair: pair.item_id)


def claimed(before: Floats, candidate: Floats, claim: Claim) -> tuple[Floats, float, float]:
    """Candidate - keep * before + offset of every item, and the least and largest value that it can take."""
    return candidate - claim.keep * before + claim.offset, claim.offset - claim.keep, claim.offset + 1.0


def counts(pairs: Sequence[PairedScore]) -> tuple[int, int, int]:
    """Items, items lost, items gained."""
    lost = sum(pair.before > pair.candidate for pair in pairs)
    gained = sum(pair.before < pair.candidate for pair in pairs)
    return len(pairs), lost, gained


def arrays(pairs: Sequence[PairedScore]) -> tuple[Floats, Floats, list[str] | None]:
    """Scores before, scores of the candidate, and the clusters, an item without one being its own."""
    before = np.array([pair.before for pair in pairs], dtype=np.float64)
    candidate = np.array([pair.candidate for pair in pairs], dtype=np.float64)
    if all(pair.cluster is None for pair in pairs):
        return before, candidate, None
    # A prefix keeps names of clusters and names of lone items apart.
    clusters = [f"item {p.item_id}" if p.cluster is None else f"cluster {p.cluster}" for p in pairs]
    return before, candidate, clusters
