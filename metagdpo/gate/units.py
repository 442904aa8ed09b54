"""Skill-level forgetting: which knowledge units were lost, gained or kept, with a bounded share of false names.

A unit's items come from several suites. Each item, or each cluster of dependent items, has one vote: lost, gained or
unchanged. If the candidate is not worse on the unit, a vote that changed is lost with probability at most 1/2, so the
sign test on the changed votes is exact (for right-or-wrong items it is McNemar's exact conditional test). Votes of
different suites may have different chances; with at most 1/2 on average the binomial tail still bounds the probability
of every majority of two votes or more (Hoeffding, Annals of Mathematical Statistics 27:713-721, 1956). Graded scores
vote by the direction of their change: the test is about how often a unit got worse, not by how much.

Naming units is many claims at once. Units share items, and "lost" and "gained" of one unit exclude each other, so that
their p-values depend on each other in both directions: positive dependence, which Benjamini-Hochberg needs, does not
hold. Benjamini-Yekutieli needs nothing. A unit enters with its two-sided p-value (twice the smaller one) and is named
in the direction of the smaller; a wrong direction counts as a false name, and the bound covers it, because the
direction that is wrong for a unit has probability at most t / 2 to be below t / 2.

`kept` is a claim of its own, under the same control: the loss is smaller than the policy's default margin.

Units that are too small for a claim are listed, not tested for it: they could only take power from the others. For lost
and gained these are the units that could not be named if all their votes went one way, for kept those that could not be
if no vote changed. Which they are is decided by counts alone, so it costs no error (Tarone, Biometrics 46:515-522,
1990).

All p-values but those of `mixture_p` hold for a number of items that was fixed beforehand. When the policy lets an
evaluation stop early, units are tested by `mixture_p`, which holds at every stop; all units are then tested, since the
counts are no longer fixed, and none is called kept.

Home of: Benjamini-Hochberg (JRSS B 57:289-300, 1995), Benjamini-Yekutieli (Annals of Statistics 29:1165-1188, 2001)
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from metagdpo.gate.hypotheses import Claim, absolute, arrays, counts, p_non_inferior, relative
from metagdpo.gate.policy import Policy, Relative
from metagdpo.records.paired import PairedScore
from metagdpo.records.unit_finding import UnitFinding, UnitOutcome

Floats = npt.NDArray[np.float64]
_SAME = 1e-12  # a change of score below this is rounding
_ORDER: tuple[UnitOutcome, ...] = ("lost", "gained", "kept", "undecided")


class Votes(NamedTuple):
    """What the independent parts of a unit say."""

    total: int
    lost: int
    gained: int


def find_units(
    pairs: Mapping[str, Sequence[PairedScore]],
    units: Mapping[tuple[str, str], Sequence[str]],
    policy: Policy,
    chances: Mapping[str, float] | None = None,
) -> tuple[UnitFinding, ...]:
    """What became of every unit that at least one scored item carries.

    Args:
        pairs: Both scores of every item by suite; `before` is the base's.
        units: The units of an item by (suite, item id); an item without an entry has none.
        policy: Its `unit_fdr` bounds the expected share of false names; `default_margin` is the loss accepted.
        chances: Chance level by suite, 0 where not given; read only when the margin is relative.

    Returns:
        Lost units first, then gained, kept and undecided ones, each kind by its p-value.
    """
    members = _members(pairs, units)
    tail = sign_test_p if policy.sequential is None else mixture_p
    tests = {unit: _sign_tests(found.pairs, tail) for unit, found in members.items()}
    changed = _adjusted({unit: tests[unit].two_sided for unit in _could_change(tests, policy)})
    p_kept = {unit: _p_kept(members[unit], policy, chances or {}) for unit in _could_be_kept(tests, policy)}
    kept = {unit for unit, adjusted in _adjusted(p_kept).items() if adjusted <= policy.unit_fdr}
    findings = []
    for unit, found in members.items():
        adjusted = changed.get(unit)
        outcome: UnitOutcome = "kept" if unit in kept else "undecided"
        if adjusted is not None and adjusted <= policy.unit_fdr:
            outcome = tests[unit].direction
        summary = _Summary(adjusted, p_kept.get(unit), unit in kept, outcome)
        findings.append(_finding(unit, found, tests[unit], summary))
    return tuple(sorted(findings, key=_rank))


def count_votes(pairs: Iterable[PairedScore]) -> Votes:
    """One vote an item without a cluster, one vote a cluster: the direction of its mean change."""
    changes: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for pair in pairs:
        voter = ("item", pair.item_id) if pair.cluster is None else ("cluster", pair.cluster)
        changes[voter].append(pair.candidate - pair.before)
    sums = [math.fsum(change) for change in changes.values()]
    return Votes(len(sums), sum(total < -_SAME for total in sums), sum(total > _SAME for total in sums))


def sign_test_p(more: int, fewer: int) -> float:
    """P(X >= more) for X ~ Binomial(more + fewer, 1/2): the exact p-value of H0 "`more` is not the likelier kind"."""
    from scipy.special import betainc

    return float(betainc(more, fewer + 1, 0.5)) if more else 1.0


def mixture_p(more: int, fewer: int) -> float:
    """A p-value of the same hypothesis that holds whenever one stops to count.

    Betting on each changed vote that it is of the first kind with probability q multiplies a stake by 2 q or 2 (1 - q).
    For every q >= 1/2 the stake is a supermartingale under H0, and so is the mean over q uniform on 1/2..1,

        E = 2 * integral of 2^n q^more (1 - q)^fewer dq = 2^(n + 1) B(more + 1, fewer + 1) P(X <= more)

    with n = more + fewer and X ~ Binomial(n + 1, 1/2). By Ville's inequality 1 / E is a p-value at every stop.
    Source: Robbins, Annals of Mathematical Statistics 41:1397-1409, 1970 (mixtures of likelihood ratios).
    """
    from scipy.special import betainc, betaln

    if more <= fewer:  # no stake has grown: (2 q)^more (2 (1 - q))^fewer <= (4 q (1 - q))^more <= 1
        return 1.0
    log_stake = (more + fewer + 1) * math.log(2) + betaln(more + 1, fewer + 1)
    return min(1.0, math.exp(-log_stake) / float(betainc(fewer + 1, more + 1, 0.5)))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: rejecting those at most q holds the false-discovery rate at q.

    For m sorted p-values, adjusted_(i) = min over j >= i of m p_(j) / j, at most 1. Valid under independence and
    positive regression dependence (Benjamini and Yekutieli 2001, theorem 1.2).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return [float(value) for value in adjusted]


def benjamini_yekutieli(p_values: Sequence[float]) -> list[float]:
    """As `benjamini_hochberg`, valid under every dependence: each p-value is multiplied by 1 + 1/2 + ... + 1/m.

    Source: Benjamini and Yekutieli 2001, theorem 1.3.
    """
    price = harmonic(len(p_values))
    return benjamini_hochberg([price * p for p in p_values])


def harmonic(m: int) -> float:
    """1 + 1/2 + ... + 1/m; 0 for m = 0."""
    return math.fsum(1 / k for k in range(1, m + 1))


def testable(best: Sequence[float], fdr: float) -> list[bool]:
    """Which units could be named if they had their best p-value and the others spoke for nothing.

    With m units tested, a lone p-value must be at most fdr / (m (1 + ... + 1/m)). The smallest m is taken that no more
    than m units can satisfy.

    Args:
        best: The p-value of each unit in its clearest case; depends on nothing but its number of votes.
        fdr: Largest expected share of false names.
    """
    for m in range(1, len(best) + 1):
        able = [p <= fdr / (m * harmonic(m)) for p in best]
        if sum(able) <= m:
            return able
    return []


class _Members(NamedTuple):
    """A unit's items, named so that those of different suites cannot be taken for one another."""

    suites: list[str]
    pairs: list[PairedScore]


class _SignTests(NamedTuple):
    votes: Votes
    p_lost: float
    p_gained: float
    least_p: float

    @property
    def two_sided(self) -> float:
        return min(1.0, 2 * min(self.p_lost, self.p_gained))

    @property
    def direction(self) -> Literal["lost", "gained"]:
        return "lost" if self.p_lost < self.p_gained else "gained"


class _Summary(NamedTuple):
    adjusted: float | None
    p_kept: float | None
    within_margin: bool
    outcome: UnitOutcome


def _members(
    pairs: Mapping[str, Sequence[PairedScore]], units: Mapping[tuple[str, str], Sequence[str]]
) -> dict[str, _Members]:
    found: defaultdict[str, _Members] = defaultdict(lambda: _Members([], []))
    for suite, scores in pairs.items():
        for pair in scores:
            for unit in set(units.get((suite, pair.item_id), ())):
                found[unit].suites.append(suite)
                found[unit].pairs.append(_named_apart(suite, pair))
    return {unit: found[unit] for unit in sorted(found)}


def _named_apart(suite: str, pair: PairedScore) -> PairedScore:
    cluster = None if pair.cluster is None else f"{suite}: {pair.cluster}"
    return pair.model_copy(update={"item_id": f"{suite}: {pair.item_id}", "cluster": cluster})


def _sign_tests(pairs: Sequence[PairedScore], tail: Callable[[int, int], float]) -> _SignTests:
    votes = count_votes(pairs)
    return _SignTests(votes, tail(votes.lost, votes.gained), tail(votes.gained, votes.lost), tail(votes.total, 0))


def _p_kept(found: _Members, policy: Policy, chances: Mapping[str, float]) -> float:
    return p_non_inferior(found.pairs, _accepted(found, policy, chances))


def _accepted(found: _Members, policy: Policy, chances: Mapping[str, float]) -> Claim:
    margin = policy.default_margin
    if not isinstance(margin, Relative):
        return absolute(margin)
    # The claim is a mean over items, so the mean of the items' chances is exact for items of several suites.
    return relative(margin.relative, math.fsum(chances.get(suite, 0.0) for suite in found.suites) / len(found.suites))


def _could_change(tests: Mapping[str, _SignTests], policy: Policy) -> list[str]:
    if policy.sequential is not None:
        return list(tests)
    return _able(tests, [2 * found.least_p for found in tests.values()], policy)


def _could_be_kept(tests: Mapping[str, _SignTests], policy: Policy) -> list[str]:
    if policy.sequential is not None:
        return []
    margin = policy.default_margin
    share = margin.relative if isinstance(margin, Relative) else margin
    # (1 - margin)^n: the probability of no loss among n votes when the margin is lost.
    return _able(tests, [(1 - share) ** found.votes.total for found in tests.values()], policy)


def _able(tests: Mapping[str, _SignTests], best: Sequence[float], policy: Policy) -> list[str]:
    return [unit for unit, can in zip(tests, testable(best, policy.unit_fdr), strict=True) if can]


def _adjusted(p_values: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(p_values, benjamini_yekutieli(list(p_values.values())), strict=True))


def _finding(unit: str, found: _Members, tests: _SignTests, summary: _Summary) -> UnitFinding:
    before, candidate, _ = arrays(found.pairs)
    n_items, lost, gained = counts(found.pairs)
    return UnitFinding(
        unit=unit,
        suites=tuple(sorted(set(found.suites))),
        n_items=n_items,
        n_independent=tests.votes.total,
        before=float(before.mean()),
        candidate=float(candidate.mean()),
        lost=lost,
        gained=gained,
        p_lost=tests.p_lost,
        p_gained=tests.p_gained,
        p_kept=summary.p_kept,
        least_p=tests.least_p,
        adjusted=summary.adjusted,
        within_margin=summary.within_margin,
        outcome=summary.outcome,
    )


def _rank(finding: UnitFinding) -> tuple[int, float, str]:
    p = min(finding.p_lost, finding.p_gained) if finding.p_kept is None or finding.outcome != "kept" else finding.p_kept
    return (_ORDER.index(finding.outcome), p, finding.unit)
