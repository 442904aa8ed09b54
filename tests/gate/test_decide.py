"""The three-way decision: every outcome, its reasons, and the evidence that it refuses."""

import numpy as np
import pytest
from scipy.stats import binom

from metagdpo.errors import ConfigError, EvidenceError
from metagdpo.gate.decide import SuiteInfo, decide, holm
from metagdpo.gate.policy import Policy
from metagdpo.records.drift import Drift

POLICY = Policy(alpha=0.05, power=0.8, default_margin=0.04, min_items=50)
CAPPED = POLICY.model_copy(update={"max_kl_per_token": 0.1})


def suite(name, tier="required"):
    return SuiteInfo(suite=name, tier=tier, skill=f"skill of {name}", chance=0.25)


def paired(n, lost=0, gained=0, kept=0):
    """Scores of n items: so many lost, gained and correct on both sides; the rest wrong on both."""
    wrong = n - lost - gained - kept
    return [(1.0, 0.0)] * lost + [(0.0, 1.0)] * gained + [(1.0, 1.0)] * kept + [(0.0, 0.0)] * wrong


def drift(low, high):
    return Drift(kl_per_token=(low + high) / 2, low=low, high=high, n_samples=40, n_tokens=4000)


GOOD, WORSE, UNCLEAR = paired(1000, 20, 20, 500), paired(1000, 150, 10, 500), paired(100, 6, 4, 50)


def test_promote_needs_every_required_suite_to_be_non_inferior():
    ruling = decide(POLICY, {"a": GOOD, "b": GOOD}, [suite("a"), suite("b")], None)
    assert ruling.decision == "PROMOTE"
    assert ruling.reasons[0].startswith("Every required skill is retained: on 2 suites")


def test_one_undecided_suite_makes_it_inconclusive_and_says_how_many_items_would_decide():
    ruling = decide(POLICY, {"a": GOOD, "b": UNCLEAR}, [suite("a"), suite("b")], None)
    assert ruling.decision == "INCONCLUSIVE"
    assert ruling.findings[1].items_needed > 100
    assert "does not suffice for: skill of b" in ruling.reasons[0]
    assert f"About {ruling.findings[1].items_needed:,} items would decide it." in ruling.reasons[1]


def test_one_suite_proven_worse_blocks_even_when_another_is_undecided_and_is_named():
    ruling = decide(POLICY, {"a": GOOD, "b": UNCLEAR, "c": WORSE}, [suite("a"), suite("b"), suite("c")], None)
    assert ruling.decision == "BLOCK"
    assert "Lost more than the margin: skill of c (corrected for 3 comparisons, Holm" in ruling.reasons[0]
    assert "150 lost, 10 gained" in ruling.reasons[1]


def test_a_block_that_holm_cannot_name_says_so():
    """A p-value of 0.03 alone is worse at 0.05, but not the smallest of three at 0.05 / 3."""
    borderline = paired(1000, 70, 13, 500)
    ruling = decide(POLICY, {"a": GOOD, "b": GOOD, "c": borderline}, [suite("a"), suite("b"), suite("c")], None)
    assert ruling.decision == "BLOCK"
    assert "most likely skill of c; no single name is certain" in ruling.reasons[0]


def test_watched_suites_are_reported_and_never_decide():
    ruling = decide(POLICY, {"w": WORSE, "a": GOOD}, [suite("w", "watched"), suite("a")], None)
    assert ruling.decision == "PROMOTE"
    assert [(f.suite, f.outcome) for f in ruling.findings] == [("a", "non_inferior"), ("w", "worse")]
    assert any("watched, does not decide" in reason for reason in ruling.reasons)


def test_too_few_items_stay_undecided_whatever_their_score():
    ruling = decide(POLICY, {"a": paired(49, lost=49)}, [suite("a")], None)
    assert (ruling.decision, ruling.findings[0].outcome) == ("INCONCLUSIVE", "undecided")
    assert ruling.findings[0].power_if_unchanged == 0


def test_ten_identical_items_prove_nothing():
    ruling = decide(POLICY.model_copy(update={"min_items": 1}), {"a": paired(10, kept=10)}, [suite("a")], None)
    assert ruling.decision == "INCONCLUSIVE"
    assert ruling.findings[0].low < -0.2


def test_the_finding_states_the_counts_and_the_difference_as_candidate_minus_base():
    finding = decide(POLICY, {"a": paired(200, 12, 4, 100)}, [suite("a")], None).findings[0]
    assert (finding.base, finding.candidate, finding.difference) == (112 / 200, 104 / 200, (4 - 12) / 200)


@pytest.mark.parametrize(
    ("interval", "decision", "words"),
    [
        ((0.01, 0.05), "PROMOTE", "below the cap"),
        ((0.05, 0.15), "INCONCLUSIVE", "straddles the cap"),
        ((0.12, 0.15), "BLOCK", "proven above the cap"),
    ],
)
def test_drift_is_judged_by_its_interval_against_the_cap(interval, decision, words):
    ruling = decide(CAPPED, {"a": GOOD}, [suite("a")], drift(*interval))
    assert ruling.decision == decision
    assert words in " ".join(ruling.reasons[:2])


def test_a_capped_drift_that_was_not_measured_is_inconclusive():
    assert decide(CAPPED, {"a": GOOD}, [suite("a")], None).decision == "INCONCLUSIVE"


def test_drift_without_a_cap_never_decides():
    ruling = decide(POLICY, {"a": GOOD}, [suite("a")], drift(5, 6))
    assert ruling.decision == "PROMOTE"
    assert "the policy sets no cap" in ruling.reasons[1]


def test_a_release_that_nothing_protects_is_refused():
    with pytest.raises(ConfigError, match="no suite is required"):
        decide(POLICY, {"w": GOOD}, [suite("w", "watched")], None)


@pytest.mark.parametrize(
    ("pairs", "match"),
    [
        ({}, r"no scores for \['a'\]"),
        ({"a": GOOD, "x": GOOD}, r"no suite for \['x'\]"),
        ({"a": []}, "without items prove nothing: a"),
        ({"a": [(0.5, 1.0)]}, "suite a, item 0"),
    ],
)
def test_evidence_that_does_not_fit_is_refused(pairs, match):
    with pytest.raises(EvidenceError, match=match):
        decide(POLICY, pairs, [suite("a")], None)


def test_two_suites_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="same name"):
        decide(POLICY, {"a": GOOD}, [suite("a"), suite("a")], None)


def test_holm_steps_down_and_stops_at_the_first_failure():
    """Thresholds 0.05/4, 0.05/3, 0.05/2, 0.05/1: the example of Holm's own procedure with p = .005 .011 .02 .04."""
    assert holm({"a": 0.04, "b": 0.011, "c": 0.005, "d": 0.02}, 0.05) == ["c", "b", "d", "a"]
    assert holm({"a": 0.04, "b": 0.02, "c": 0.005, "d": 0.03}, 0.05) == ["c"]


def test_one_lost_skill_among_five_is_promoted_at_most_as_often_as_alpha():
    """Intersection-union: four unchanged suites cannot carry a fifth that lost just the margin."""
    rng, runs, n = np.random.default_rng(3), 60, 400
    suites = [suite(name) for name in "abcde"]
    promoted = 0
    for _ in range(runs):
        pairs = {}
        for name in "abcde":
            lost, gained, kept, _wrong = rng.multinomial(
                n, [0.07, 0.03, 0.5, 0.4] if name == "e" else [0.02, 0.02, 0.5, 0.46]
            )
            pairs[name] = paired(n, int(lost), int(gained), int(kept))
        promoted += decide(POLICY, pairs, suites, None).decision == "PROMOTE"
    assert promoted <= binom.isf(1e-4, runs, 0.055)
