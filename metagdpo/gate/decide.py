"""The three-way decision over all suites and the drift.

PROMOTE needs every required suite to be non-inferior. This is an intersection-union test: a candidate that truly lost a
margin anywhere must get past that suite's own test, so each suite is tested at alpha without a correction. BLOCK needs
one required suite that is proven worse, or drift proven beyond its cap. Everything else is INCONCLUSIVE. Naming which
skills were lost is many claims at once, so names are corrected by Holm's method.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from metagdpo.errors import ConfigError, EvidenceError
from metagdpo.gate.paired import count_flips, p_worse, score_interval
from metagdpo.gate.policy import Policy, check_suites
from metagdpo.gate.power import items_needed, power_if_unchanged
from metagdpo.records.drift import Drift
from metagdpo.records.verdict import Decision, SuiteFinding
from metagdpo.schema import Frozen

Pairs = Sequence[tuple[float, float]]
"""(base score, candidate score) of each item of a suite."""


class SuiteInfo(Frozen):
    """What the gate needs to know about a suite besides its scores."""

    suite: str
    tier: Literal["required", "watched"]
    skill: str
    chance: float


class Ruling(Frozen):
    """The part of the verdict that the numbers decide."""

    decision: Decision
    reasons: tuple[str, ...]
    """Sentences for people, the deciding ones first."""
    findings: tuple[SuiteFinding, ...]
    """Required suites first, each tier in the order given."""


def decide(policy: Policy, pairs: Mapping[str, Pairs], suites: Sequence[SuiteInfo], drift: Drift | None) -> Ruling:
    """Judge a candidate.

    Args:
        policy: Margins and error rates.
        pairs: Paired item scores (0 or 1) by suite.
        suites: Every suite of the evaluation.
        drift: Divergence from the base; None when it was not measured.

    Raises:
        ConfigError: No suite is required, or the policy names an unknown suite.
        EvidenceError: Scores and suites do not match, a suite has no items, or a score is not 0 or 1.
    """
    _check(policy, pairs, suites)
    ordered = sorted(suites, key=lambda suite: suite.tier != "required")
    findings = tuple(find(policy, suite, pairs[suite.suite]) for suite in ordered)
    required = [finding for finding in findings if finding.tier == "required"]
    drift_outcome, drift_reason = judge_drift(policy, drift)
    outcomes = {finding.outcome for finding in required} | {drift_outcome}
    decision: Decision = "BLOCK" if "worse" in outcomes else "INCONCLUSIVE" if "undecided" in outcomes else "PROMOTE"
    deciding = _deciding(decision, policy, required)
    rest = [_sentence(finding) for finding in findings if not _decides(decision, finding)]
    return Ruling(
        decision=decision, reasons=(*deciding, *([drift_reason] if drift_reason else []), *rest), findings=findings
    )


def find(policy: Policy, suite: SuiteInfo, pairs: Pairs) -> SuiteFinding:
    """Compare candidate and base on one suite."""
    n = len(pairs)
    lost, gained = count_flips(suite.suite, pairs)
    low, high = score_interval(n, lost, gained, policy.alpha)
    margin = policy.margin(suite.suite)
    outcome = _outcome(low, high, margin, enough=n >= policy.min_items)
    difference, flip_rate = (gained - lost) / n, (gained + lost) / n
    return SuiteFinding(
        suite=suite.suite,
        tier=suite.tier,
        skill=suite.skill,
        n_items=n,
        base=sum(base for base, _ in pairs) / n,
        candidate=sum(candidate for _, candidate in pairs) / n,
        difference=difference,
        low=low,
        high=high,
        lost=lost,
        gained=gained,
        margin=margin,
        chance=suite.chance,
        outcome=outcome,
        power_if_unchanged=0.0 if n < policy.min_items else power_if_unchanged(n, flip_rate, margin, policy.alpha),
        items_needed=_needed(policy, flip_rate, difference, margin) if outcome == "undecided" else None,
    )


def holm(p_values: Mapping[str, float], alpha: float) -> list[str]:
    """Names whose hypotheses Holm's step-down method rejects at family-wise rate alpha, smallest p first.

    Source: Holm, Scandinavian Journal of Statistics 6:65-70, 1979.
    """
    rejected: list[str] = []
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p > alpha / (len(p_values) - rank):
            break
        rejected.append(name)
    return rejected


def judge_drift(policy: Policy, drift: Drift | None) -> tuple[str, str]:
    """Outcome (as for a suite) and a sentence; without a cap the drift is reported and never decides."""
    cap = policy.max_kl_per_token
    if drift is None:
        if cap is None:
            return "non_inferior", ""
        return "undecided", f"The policy caps drift at {cap:g} nats a token, but no drift was measured."
    measured = (
        f"Drift on context-free text is {drift.kl_per_token:.4f} nats a token "
        f"(95 % interval {drift.low:.4f} to {drift.high:.4f}, {drift.n_samples} samples)"
    )
    if cap is None:
        return "non_inferior", f"{measured}; the policy sets no cap."
    if drift.low > cap:
        return "worse", f"{measured}: proven above the cap of {cap:g}."
    if drift.high > cap:
        return "undecided", f"{measured}: the interval straddles the cap of {cap:g}; measure more samples."
    return "non_inferior", f"{measured}: below the cap of {cap:g}."


_DECIDING_OUTCOME: dict[Decision, str] = {"PROMOTE": "", "BLOCK": "worse", "INCONCLUSIVE": "undecided"}


def _check(policy: Policy, pairs: Mapping[str, Pairs], suites: Sequence[SuiteInfo]) -> None:
    names = [suite.suite for suite in suites]
    check_suites(policy, names)
    if len(set(names)) < len(names):
        raise ConfigError("two suites have the same name. Names in registry/suites must differ.")
    if not any(suite.tier == "required" for suite in suites):
        message = (
            "no suite is required, so nothing protects the model. "
            "Set `tier: required` in at least one file of registry/suites."
        )
        raise ConfigError(message)
    if set(names) != set(pairs):
        message = (
            f"scores and suites do not match: no scores for {sorted(set(names) - set(pairs)) or 'none'}, "
            f"no suite for {sorted(set(pairs) - set(names)) or 'none'}. Run `dvc repro` to evaluate all suites."
        )
        raise EvidenceError(message)
    empty = sorted(name for name in names if not pairs[name])
    if empty:
        raise EvidenceError(f"suites without items prove nothing: {', '.join(empty)}. Check their item files.")


def _outcome(low: float, high: float, margin: float, *, enough: bool) -> Literal["non_inferior", "worse", "undecided"]:
    if not enough:
        return "undecided"
    if low > -margin:
        return "non_inferior"
    return "worse" if high < -margin else "undecided"


def _needed(policy: Policy, flip_rate: float, difference: float, margin: float) -> int | None:
    needed = items_needed(flip_rate, difference, margin, policy.alpha, policy.power)
    return None if needed is None else max(needed, policy.min_items)


def _decides(decision: Decision, finding: SuiteFinding) -> bool:
    return finding.tier == "required" and finding.outcome == _DECIDING_OUTCOME[decision]


def _deciding(decision: Decision, policy: Policy, required: Sequence[SuiteFinding]) -> list[str]:
    sentences = [_sentence(finding) for finding in required if _decides(decision, finding)]
    if decision == "PROMOTE":
        headline = (
            f"Every required skill is retained: on {_count(len(required), 'suite')} the loss is shown to be smaller "
            f"than the margin (one-sided tests at alpha = {policy.alpha:g}, all must pass)."
        )
        return [headline]
    if not sentences:
        return []
    if decision == "INCONCLUSIVE":
        names = ", ".join(finding.skill for finding in required if finding.outcome == "undecided")
        return [f"No required skill is proven lost, but the evidence does not suffice for: {names}.", *sentences]
    return [_naming(policy, required), *sentences]


def _naming(policy: Policy, required: Sequence[SuiteFinding]) -> str:
    p_values = {
        finding.suite: p_worse(finding.n_items, finding.lost, finding.gained, finding.margin)
        for finding in required
        if finding.n_items >= policy.min_items
    }
    proven = set(holm(p_values, policy.alpha))
    named = [finding.skill for finding in required if finding.suite in proven]
    corrected = f"corrected for {_count(len(p_values), 'comparison')}, Holm, alpha = {policy.alpha:g}"
    if named:
        return f"Lost more than the margin: {', '.join(named)} ({corrected})."
    suspects = ", ".join(finding.skill for finding in required if finding.outcome == "worse")
    return (
        f"A required skill lost more than its margin, most likely {suspects}; no single name is certain ({corrected})."
    )


def _sentence(finding: SuiteFinding) -> str:
    label = finding.skill if finding.tier == "required" else f"{finding.skill} (watched, does not decide)"
    text = (
        f"{label}: {100 * finding.base:.1f} % to {100 * finding.candidate:.1f} % on "
        f"{_count(finding.n_items, 'item')} ({finding.lost} lost, {finding.gained} gained); difference "
        f"{100 * finding.difference:+.1f} points, interval {100 * finding.low:+.1f} to {100 * finding.high:+.1f}, "
        f"accepted loss {100 * finding.margin:g}: {'improved' if finding.low > 0 else _WORDS[finding.outcome]}."
    )
    if finding.outcome != "undecided":
        return text
    if finding.items_needed is None:
        return f"{text} The difference is so close to the margin that no feasible number of items would decide it."
    return f"{text} About {finding.items_needed:,} items would decide it."


_WORDS = {"non_inferior": "retained", "worse": "lost", "undecided": "undecided"}


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
