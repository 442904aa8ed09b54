"""The paper's own ordering, held against the runs, whichever way it comes out.

MetaGDPO (arXiv 2511.12113, tables 5 to 8, one run each, no intervals) reports as plain mean over its benchmarks: GDPO
80.86, GDPO without weights 80.25, the original 78.98, SFT 74.14. Here `overall` is that plain mean over suites, and
`retained` leaves the trained target out. Each claim is decided by its own interval: the paper stated it before these
runs, so it is not one find among many, and no claim is corrected for the others.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from metagdpo.comparison.words import measured
from metagdpo.records.comparison import Estimate, Measure, MethodDifference, MethodResult, OrderClaim, Status


class OrderNames(NamedTuple):
    """Which methods of the comparison stand for those of the paper."""

    sft: str = "sft"
    unweighted: str = "gdpo-unweighted"
    gdpo: str = "gdpo"


class _Above(NamedTuple):
    """A claim that one is above the other; None stands for the original model."""

    claim: str
    paper: str
    measure: Measure
    first: str | None
    second: str | None


def check_order(
    methods: Sequence[MethodResult],
    differences: Sequence[MethodDifference],
    accepted_loss: float | None,
    names: OrderNames,
) -> tuple[OrderClaim, ...]:
    """Every claim with its status and the numbers that decide it.

    Args:
        methods: Rows of the comparison.
        differences: Pairs of methods.
        accepted_loss: Largest loss of retained skill that is accepted, in accuracy.
        names: A method that is not in the comparison leaves its claims "not checked".
    """
    rows = {row.method: row for row in methods}
    pairs = {(row.measure, row.first, row.second): row.difference for row in differences}
    sft, unweighted, gdpo = names
    above = (
        _Above("GDPO retains more than SFT", "80.86 against 74.14 overall", "retained", gdpo, sft),
        _Above(
            "GDPO without weights retains more than SFT", "80.25 against 74.14 overall", "retained", unweighted, sft
        ),
        _Above("GDPO retains more than without weights", "80.86 against 80.25 overall", "retained", gdpo, unweighted),
        _Above("overall, the original is above SFT", "78.98 against 74.14", "overall", None, sft),
        _Above(
            "overall, GDPO without weights is above the original", "80.25 against 78.98", "overall", unweighted, None
        ),
        _Above("overall, GDPO is above GDPO without weights", "80.86 against 80.25", "overall", gdpo, unweighted),
    )
    return (
        _forgets(rows.get(sft), sft, accepted_loss),
        _keeps(rows.get(gdpo), gdpo, accepted_loss),
        *(_above(claim, rows, pairs) for claim in above),
    )


def _forgets(row: MethodResult | None, name: str, accepted_loss: float | None) -> OrderClaim:
    """Shown by a loss; contradicted when no loss is shown, and one beyond the accepted is ruled out."""
    claim, paper = "SFT forgets", "overall 78.98 to 74.14, AIME24 72.71 to 39.38"
    if row is None or row.retained is None or accepted_loss is None:
        return _unchecked(claim, paper, name)
    change = row.retained
    status: Status = "not decided"
    if change.high < 0:
        status = "shown"
    elif change.low > -accepted_loss:
        status = "contradicted"
    return OrderClaim(claim=claim, paper=paper, status=status, evidence=_kept(change, accepted_loss))


def _keeps(row: MethodResult | None, name: str, accepted_loss: float | None) -> OrderClaim:
    """Shown when a loss beyond the accepted is ruled out; contradicted by a loss that may be beyond it."""
    claim, paper = "GDPO does not forget", "overall 78.98 to 80.86"
    if row is None or row.retained is None or accepted_loss is None:
        return _unchecked(claim, paper, name)
    change = row.retained
    status: Status = "not decided"
    if change.low > -accepted_loss:
        status = "shown"
    elif change.high < 0:
        status = "contradicted"
    return OrderClaim(claim=claim, paper=paper, status=status, evidence=_kept(change, accepted_loss))


def _kept(change: Estimate, accepted_loss: float) -> str:
    text = f"retained change {measured(change)}; accepted loss {100 * accepted_loss:.3g} points"
    return (
        f"{text}; a loss is shown, and it is smaller than the accepted"
        if -accepted_loss < change.low and change.high < 0
        else text
    )


def _above(
    claim: _Above, rows: Mapping[str, MethodResult], pairs: Mapping[tuple[Measure, str, str], Estimate]
) -> OrderClaim:
    found = {measure: _difference(claim, measure, rows, pairs) for measure in ("overall", "target", "retained")}
    gap = found[claim.measure]
    if gap is None:
        absent = [name for name in (claim.first, claim.second) if name is not None and name not in rows]
        return _unchecked(claim.claim, claim.paper, " and ".join(absent) or "a common seed of both")
    status: Status = "not decided"
    if gap.low > 0:
        status = "shown"
    elif gap.high < 0:
        status = "contradicted"
    parts = [f"difference {measured(gap)}"]
    if claim.measure == "overall":
        others = [(name, found[name]) for name in ("target", "retained")]
        parts += [f"{name} {measured(other)}" for name, other in others if other is not None]
    return OrderClaim(claim=claim.claim, paper=claim.paper, status=status, evidence="; ".join(parts))


def _difference(
    claim: _Above,
    measure: Measure,
    rows: Mapping[str, MethodResult],
    pairs: Mapping[tuple[Measure, str, str], Estimate],
) -> Estimate | None:
    """First - second; the original's change is 0 by definition."""
    first, second = claim.first, claim.second
    if first is None or second is None:
        name = first or second
        row = rows.get(name) if name else None
        change: Estimate | None = getattr(row, measure) if row else None
        return change if first is not None or change is None else _turned(change)
    if (measure, first, second) in pairs:
        return pairs[measure, first, second]
    other = pairs.get((measure, second, first))
    return None if other is None else _turned(other)


def _turned(estimate: Estimate) -> Estimate:
    return estimate.model_copy(update={"value": -estimate.value, "low": -estimate.high, "high": -estimate.low})


def _unchecked(claim: str, paper: str, name: str) -> OrderClaim:
    return OrderClaim(claim=claim, paper=paper, status="not checked", evidence=f"no result of {name}")
