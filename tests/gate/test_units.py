"""Knowledge units: the sign tests, the false-discovery control, and what is said of a unit."""

import bisect
import math
from collections import Counter

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, false_discovery_control

from metagdpo.gate import units as module
from metagdpo.gate.hypotheses import absolute, compare
from metagdpo.gate.policy import Policy, Relative, Sequential
from metagdpo.gate.units import (
    benjamini_hochberg,
    benjamini_yekutieli,
    count_votes,
    find_units,
    harmonic,
    mixture_p,
    sign_test_p,
    testable,
)
from metagdpo.records.paired import PairedScore

testable.__test__ = False  # a function of ours, not a test

# Benjamini and Hochberg, JRSS B 57:289-300 (1995), section 4.1: 15 hypotheses of Neuhaus et al. 1992.
NEUHAUS = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
    0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000,
]  # fmt: skip
# Benjamini and Hochberg, J. Educational and Behavioral Statistics 25:60-83 (2000), table 2: 34 changes between states,
# largest p-value first; the 18 largest adjusted ones as R's p.adjust prints them.
STATES = [
    0.85628, 0.60282, 0.44008, 0.41998, 0.3864, 0.3689, 0.31162, 0.23522, 0.20964, 0.19388, 0.15872, 0.14374,
    0.10026, 0.08226, 0.07912, 0.0659, 0.05802, 0.05572, 0.0549, 0.04678, 0.0465, 0.04104, 0.02036, 0.00964,
    0.00904, 0.00748, 0.00404, 0.00282, 0.002, 0.0018, 2e-05, 2e-05, 2e-05, 0.0,
]  # fmt: skip
STATES_BH = [
    0.8563, 0.6211, 0.4676, 0.4606, 0.4379, 0.4325, 0.3784, 0.2962, 0.2741,
    0.2637, 0.2249, 0.2125, 0.1549, 0.1332, 0.1332, 0.1179, 0.1096, 0.1096,
]  # fmt: skip
STATES_BY = [1.0] * 10 + [0.9260, 0.8751, 0.6381, 0.5485, 0.5485, 0.4856, 0.4513, 0.4513]


def policy(**changes):
    return Policy(**{"alpha": 0.05, "power": 0.8, "default_margin": 0.04, "min_items": 100, **changes})


def scored(*changes, cluster=None, start=0):
    """Items 0, 1, ... with the given (before, candidate) scores."""
    return [
        PairedScore(item_id=str(place), before=before, candidate=candidate, cluster=cluster)
        for place, (before, candidate) in enumerate(changes, start=start)
    ]


def everywhere(unit, pairs, suite="s"):
    return {(suite, pair.item_id): (unit,) for pair in pairs}


LOST, GAINED, RIGHT, WRONG = (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)


# --- false-discovery control -----------------------------------------------------------------------------------------


def test_hochbergs_example_rejects_four_and_yekutielis_correction_three():
    assert [p <= 0.05 for p in benjamini_hochberg(NEUHAUS)].count(True) == 4
    assert [p <= 0.05 for p in benjamini_yekutieli(NEUHAUS)].count(True) == 3


def test_adjusted_p_values_equal_the_published_ones():
    assert [round(p, 4) for p in benjamini_hochberg(STATES)[:18]] == STATES_BH
    assert [round(p, 4) for p in benjamini_yekutieli(STATES)[:18]] == STATES_BY


@pytest.mark.parametrize("m", [1, 2, 7, 100])
def test_adjusted_p_values_equal_those_of_scipy_in_any_order_and_with_ties(m):
    p = np.random.default_rng(m).integers(0, 12, m) / 11
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p, method="bh"))
    assert benjamini_yekutieli(p) == pytest.approx(false_discovery_control(p, method="by"))


def test_of_no_p_values_nothing_is_rejected():
    assert (benjamini_hochberg([]), benjamini_yekutieli([]), harmonic(0)) == ([], [], 0.0)


# --- the tests of one unit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "fewer"), [(0, 0), (5, 0), (7, 2), (3, 9)])
def test_the_sign_test_sums_binomial_probabilities(more, fewer):
    n = more + fewer
    assert sign_test_p(more, fewer) == pytest.approx(sum(math.comb(n, k) for k in range(more, n + 1)) / 2**n)


@pytest.mark.parametrize(("more", "fewer"), [(0, 0), (1, 0), (9, 1), (4, 6), (40, 15)])
def test_the_mixture_is_the_mean_stake_over_all_bets(more, fewer):
    stake, _ = quad(lambda q: 2 * 2 ** (more + fewer) * q**more * (1 - q) ** fewer, 0.5, 1)
    assert mixture_p(more, fewer) == pytest.approx(min(1.0, 1 / stake))


def test_p_values_of_many_votes_stay_finite():
    assert [mixture_p(0, 5000), mixture_p(5000, 0), mixture_p(5001, 5000)] == [1.0, 0.0, 1.0]
    assert [sign_test_p(0, 5000), sign_test_p(5000, 0)] == [1.0, 0.0]


def test_looking_after_every_vote_does_not_raise_the_error_of_the_mixture():
    """Of 2,000 fair sequences of 300 votes, the share that ever looks lost at 0.1; the sign test fails this."""
    level, n = 0.1, 300
    rng = np.random.default_rng(11)
    ups = (rng.random((2000, n)) < 0.5).cumsum(axis=1)
    ever = {}
    for tail in (mixture_p, sign_test_p):
        # The smallest k of m votes that looks lost; the p-value falls as k rises.
        least = [bisect.bisect_left(range(m + 1), -level, key=lambda k: -tail(k, m - k)) for m in range(1, n + 1)]
        ever[tail] = int((ups >= np.array(least)).any(axis=1).sum())
    assert beta.ppf(0.001, ever[mixture_p], 2001 - ever[mixture_p]) <= level
    assert beta.ppf(0.001, ever[sign_test_p], 2001 - ever[sign_test_p]) > level


def test_a_cluster_has_one_vote_and_items_without_one_have_theirs():
    pairs = [
        *scored(LOST, LOST, GAINED, cluster="passage"),
        *scored(LOST, GAINED, cluster="balanced", start=3),
        *scored(LOST, RIGHT, (0.25, 0.5), (0.3, 0.1 + 0.2), start=5),
    ]
    assert count_votes(pairs) == (6, 2, 1)


def test_a_unit_is_tested_when_its_clearest_case_would_be_named_among_those_tested():
    """One unit alone needs p <= 0.1; two need p <= 0.1 / (2 * 1.5) each."""
    assert testable([0.1], 0.1) == [True]
    assert testable([0.11], 0.1) == [False]
    assert testable([0.033, 0.033], 0.1) == [True, True]
    assert testable([0.033, 0.034], 0.1) == [True, False]
    assert testable([], 0.1) == []


@pytest.mark.parametrize("seed", range(5))
def test_every_tested_unit_could_be_named_alone_among_those_tested(seed):
    best = (2.0 ** -np.random.default_rng(seed).integers(0, 40, 60)).tolist()
    able = testable(best, 0.1)
    m = sum(able)
    assert m > 0
    assert all(p <= 0.1 / (m * harmonic(m)) for p, can in zip(best, able, strict=True) if can)


# --- what is said of units -------------------------------------------------------------------------------------------


def test_a_unit_that_collapsed_inside_an_unchanged_average_is_named():
    """5 % of 400 items lose 16 of 20; the others gain as many, so that the suite's difference is zero."""
    pairs = scored(*[LOST] * 16, *[RIGHT] * 4, *[GAINED] * 16, *[RIGHT] * 264, *[WRONG] * 100)
    tags = {("s", p.item_id): ("s", "fractions") if int(p.item_id) < 20 else ("s", "rest") for p in pairs}
    found = {finding.unit: finding for finding in find_units({"s": pairs}, tags, policy())}
    assert sum(pair.candidate - pair.before for pair in pairs) == 0
    assert {unit: finding.outcome for unit, finding in found.items()}["fractions"] == "lost"
    assert found["fractions"].p_lost == 2.0**-16
    assert (found["fractions"].n_items, found["fractions"].lost, found["fractions"].gained) == (20, 16, 0)
    assert (found["fractions"].before, found["fractions"].candidate) == (1.0, 0.2)
    assert found["s"].outcome != "lost"


def test_a_unit_collects_its_items_from_all_suites_even_with_equal_item_ids():
    pairs = {"a": scored(*[LOST] * 10), "b": scored(*[LOST] * 10, *[WRONG] * 5)}
    tags = {**everywhere("u", pairs["a"], "a"), **everywhere("u", pairs["b"], "b")}
    (found,) = find_units(pairs, tags, policy())
    assert (found.suites, found.n_items, found.n_independent, found.lost) == (("a", "b"), 25, 25, 20)
    assert found.outcome == "lost"


def test_equal_cluster_names_of_two_suites_are_two_clusters():
    pairs = {"a": scored(LOST, LOST, cluster="1"), "b": scored(LOST, cluster="1")}
    tags = {**everywhere("u", pairs["a"], "a"), **everywhere("u", pairs["b"], "b")}
    (found,) = find_units(pairs, tags, policy())
    assert (found.n_items, found.n_independent, found.p_lost) == (3, 2, 0.25)


def test_a_gained_unit_is_named_with_its_two_sided_adjusted_p_value():
    pairs = scored(*[GAINED] * 12, LOST)
    (found,) = find_units({"s": pairs}, everywhere("u", pairs), policy())
    assert found.outcome == "gained"
    assert found.adjusted == pytest.approx(2 * sign_test_p(12, 1))


def test_kept_is_proven_and_not_the_absence_of_change():
    many, few = scored(*[RIGHT] * 400), scored(*[RIGHT] * 30, start=400)
    tags = {**everywhere("many", many), **everywhere("few", few)}
    found = {finding.unit: finding for finding in find_units({"s": many + few}, tags, policy())}
    assert found["many"].outcome == "kept"
    assert found["many"].p_kept == compare(many, absolute(0.04), 0.05).p_non_inferior
    assert found["few"].outcome == "undecided"
    assert (found["few"].lost, found["few"].gained) == (0, 0)


def test_a_proven_but_accepted_loss_is_called_lost_and_marked_as_within_the_margin():
    pairs = scored(*[LOST] * 12, *[RIGHT] * 1988)
    (found,) = find_units({"s": pairs}, everywhere("u", pairs), policy())
    assert (found.outcome, found.within_margin) == ("lost", True)


def test_a_unit_with_few_items_is_listed_with_the_smallest_p_it_could_reach():
    pairs = scored(LOST, LOST, LOST)
    (found,) = find_units({"s": pairs}, everywhere("u", pairs), policy())
    assert (found.outcome, found.adjusted, found.p_kept) == ("undecided", None, None)
    assert found.least_p == found.p_lost == 2.0**-3


def test_without_units_there_are_no_findings():
    assert find_units({"s": scored(LOST)}, {}, policy()) == ()
    assert find_units({}, {}, policy()) == ()
    assert find_units({"s": []}, {("s", "0"): ("u",)}, policy()) == ()


def test_one_item_is_undecided_even_when_a_unit_is_listed_twice():
    (found,) = find_units({"s": scored(LOST)}, {("s", "0"): ("u", "u")}, policy())
    assert (found.n_items, found.outcome) == (1, "undecided")


def test_lost_units_come_first_each_kind_by_its_p_value():
    suites = {
        "b": scored(*[LOST] * 15),
        "a": scored(*[LOST] * 20),
        "c": scored(*[GAINED] * 20),
        "d": scored(*[RIGHT] * 500),
        "e": scored(*[RIGHT] * 20),
    }
    tags = {key: unit for name, pairs in suites.items() for key, unit in everywhere(name, pairs, name).items()}
    found = find_units(suites, tags, policy())
    assert [(finding.unit, finding.outcome) for finding in found] == [
        ("a", "lost"),
        ("b", "lost"),
        ("c", "gained"),
        ("d", "kept"),
        ("e", "undecided"),
    ]


def test_graded_scores_vote_by_the_direction_of_their_change():
    pairs = scored(*[(0.8, 0.7)] * 12, *[(0.5, 0.5)] * 3)
    (found,) = find_units({"s": pairs}, everywhere("u", pairs), policy())
    assert (found.lost, found.p_lost, found.outcome) == (12, 2.0**-12, "lost")


def test_a_relative_margin_counts_from_the_mean_chance_of_the_units_items(monkeypatch):
    asked = []

    def ask(_pairs, claim):
        asked.append(claim)
        return 1.0

    monkeypatch.setattr(module, "p_non_inferior", ask)
    pairs = {"a": scored(*[RIGHT] * 30), "b": scored(*[RIGHT] * 10)}
    tags = {**everywhere("u", pairs["a"], "a"), **everywhere("u", pairs["b"], "b")}
    find_units(pairs, tags, policy(default_margin=Relative(relative=0.2)), {"a": 0.5, "b": 0.25})
    assert asked[0].keep == pytest.approx(0.8)
    assert asked[0].offset == pytest.approx(-0.2 * (30 * 0.5 + 10 * 0.25) / 40)


def test_many_small_units_do_not_keep_a_large_one_from_being_called_kept():
    """Without any change p is about 0.96^200 = 0.0003; corrected for 101 units instead of one it would be 0.15."""
    pairs = scored(*[RIGHT] * 300)
    tags = {("s", p.item_id): ("large",) if int(p.item_id) < 200 else (f"small{p.item_id[1:]}",) for p in pairs}
    found = {finding.unit: finding for finding in find_units({"s": pairs}, tags, policy(unit_fdr=0.01))}
    assert found["large"].outcome == "kept"
    assert {finding.p_kept for unit, finding in found.items() if unit != "large"} == {None}


def test_an_evaluation_that_may_stop_early_uses_the_mixture_and_calls_nothing_kept():
    pairs = {"a": scored(*[LOST] * 12), "b": scored(*[RIGHT] * 1000)}
    tags = {**everywhere("u", pairs["a"], "a"), **everywhere("v", pairs["b"], "b")}
    found = {finding.unit: finding for finding in find_units(pairs, tags, policy(sequential=Sequential()))}
    assert (found["u"].p_lost, found["u"].outcome) == (mixture_p(12, 0), "lost")
    assert (found["v"].p_kept, found["v"].outcome) == (None, "undecided")


# --- the share of false names, by simulation -------------------------------------------------------------------------

N_UNITS, N_ITEMS = 24, 720


def simulated(rng, p_lost, p_gained):
    """Findings of one draw: block k of 240 items has the k-th chances and 8 units of its own, two of them an item."""
    block = np.arange(N_ITEMS) // 240
    draw = rng.random(N_ITEMS)
    lost, gained = np.array(p_lost)[block], np.array(p_gained)[block]
    changes = np.where(draw < lost, -1, np.where(draw < lost + gained, 1, 0))
    pairs = scored(*[{-1: LOST, 0: RIGHT, 1: GAINED}[change] for change in changes.tolist()])
    names = rng.integers(0, 8, (N_ITEMS, 2)) + 8 * block[:, None]
    tags = {("s", str(place)): tuple(f"{name:02d}" for name in row) for place, row in enumerate(names.tolist())}
    return find_units({"s": pairs}, tags, policy(unit_fdr=LEVEL))


LEVEL = 0.3
REPEATS = 150


@pytest.fixture
def without_kept(monkeypatch):
    """What is called kept is another family of claims; leaving it out makes the simulations fast."""
    monkeypatch.setattr(module, "p_non_inferior", lambda *_: 1.0)


@pytest.mark.usefixtures("without_kept")
def test_when_nothing_changed_any_name_is_rare():
    rng = np.random.default_rng(3)
    named = sum(
        any(finding.outcome != "undecided" for finding in simulated(rng, [0.1] * 3, [0.1] * 3)) for _ in range(REPEATS)
    )
    assert beta.ppf(0.001, max(named, 1), REPEATS - named + 1) <= LEVEL


@pytest.mark.usefixtures("without_kept")
def test_among_lost_gained_and_unchanged_units_the_share_of_false_names_is_bounded():
    """Block 0 is unchanged, block 1 lost, block 2 gained; units of a block share items. A normal interval, 3 sigma."""
    truth = {f"{k:02d}": ("unchanged", "lost", "gained")[k // 8] for k in range(N_UNITS)}
    rng = np.random.default_rng(4)
    false_share, right = [], Counter()
    for _ in range(REPEATS):
        named = [f for f in simulated(rng, [0.1, 0.25, 0.05], [0.1, 0.05, 0.25]) if f.outcome != "undecided"]
        wrong = sum(finding.outcome != truth[finding.unit] for finding in named)
        false_share.append(wrong / max(1, len(named)))
        right.update(finding.outcome for finding in named if finding.outcome == truth[finding.unit])
    assert np.mean(false_share) - 3 * np.std(false_share) / math.sqrt(REPEATS) <= LEVEL
    assert min(right["lost"], right["gained"]) > 0.5 * 8 * REPEATS  # the bound is not met by silence
