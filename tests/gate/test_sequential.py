"""Sequential looks: replay, error rate, what is saved in closed form, clusters, refusals."""

import functools

import numpy as np
import pytest
from scipy.stats import binom

from metagdpo.errors import EvidenceError
from metagdpo.gate import hypotheses, paired
from metagdpo.gate.betting import BETS_K, WEIGHTS_K
from metagdpo.gate.hypotheses import absolute, relative
from metagdpo.gate.policy import Sequential
from metagdpo.gate.sequential import decide_sequentially, outcome_of
from metagdpo.records.paired import PairedScore

ALPHA = 0.05
LOOKS = Sequential(items_per_look=32, alpha_share=0.1)


def scored(differences, clusters=None, *, graded=False):
    """Pairs with these differences; right-or-wrong ones where the differences are whole."""
    clusters = clusters or [None] * len(differences)
    pairs = []
    for i, (d, cluster) in enumerate(zip(differences, clusters, strict=True)):
        before = max(0.0, -d) if graded else float(d < 0 or (d == 0 and i % 2 == 0))
        pairs.append(PairedScore(item_id=str(i), before=before, candidate=before + d, cluster=cluster))
    return pairs


def drawn(seed, n, lost, gained):
    return np.random.default_rng(seed).choice([-1.0, 0.0, 1.0], p=[lost, 1 - lost - gained, gained], size=n)


SCENARIOS = [
    pytest.param(scored(drawn(1, 300, 0.0, 0.0)), absolute(0.04), id="no flips"),
    pytest.param(scored(drawn(2, 300, 0.3, 0.02)), absolute(0.04), id="loss"),
    pytest.param(scored(drawn(3, 90, 0.1, 0.06)), absolute(0.04), id="unclear"),
    pytest.param(scored(drawn(4, 300, 0.02, 0.02) / 2, graded=True), absolute(0.04), id="graded"),
    pytest.param(scored(drawn(5, 300, 0.02, 0.02)), relative(0.2, 0.25), id="relative"),
    pytest.param(
        scored(np.repeat(drawn(6, 100, 0.0, 0.02), 3), [f"c{i}" for i in np.repeat(np.arange(100), 3)]),
        absolute(0.1),
        id="clusters",
    ),
]


@pytest.mark.parametrize(("pairs", "claim"), SCENARIOS)
def test_looking_after_every_batch_and_once_at_the_stop_say_the_same(pairs, claim):
    n = len(pairs)

    def look_at(k):
        return decide_sequentially(pairs[:k], claim, ALPHA, LOOKS, n, largest_cluster=3)

    looks = [look_at(k) for k in (*range(32, n, 32), n)]
    decided = [looked for looked in looks if looked.outcome != "undecided"]
    assert {looks[-1]} == set(decided or looks[-1:])
    assert looks[-1] == look_at(looks[-1].n_used)


@pytest.mark.parametrize("margin", [0.03, 0.05])
def test_without_flips_it_stops_at_the_first_look_whose_capital_suffices(margin):
    """Equal values have a closed form: K_n = sum w (1 + b m / (1 - m))^n."""
    n = 1000
    capital = [np.sum(WEIGHTS_K * (1 + BETS_K * margin / (1 - margin)) ** look) for look in range(32, n, 32)]
    first = next(i for i, k in enumerate(capital) if k >= 1 / (0.1 * ALPHA))
    looked = decide_sequentially(scored(np.zeros(n)), absolute(margin), ALPHA, LOOKS, n)
    assert ("non_inferior", 32 * (first + 1)) == (looked.outcome, looked.n_used)
    assert 1 / (0.1 * capital[first]) == pytest.approx(looked.p_non_inferior)


@pytest.mark.parametrize(("lost", "gained"), [(0.08, 0.0), (0.3, 0.22), (0.13, 0.05)])
def test_looks_and_the_last_test_together_keep_the_error_rate(lost, gained, monkeypatch):
    """At the margin, looking after every item and testing exactly at the end is wrong in at most alpha of the runs."""
    monkeypatch.setattr(paired, "exact_interval", lambda *_: (-1.0, 1.0))  # bounds do not decide
    for name in ("exact_p_non_inferior", "exact_p_worse"):
        monkeypatch.setattr(paired, name, functools.cache(getattr(paired, name)))
    monkeypatch.setattr("metagdpo.gate.sequential.bounds", lambda *_: (-1.0, 1.0))
    runs, n, each = 800, 48, Sequential(items_per_look=1, alpha_share=0.3)
    found = [
        decide_sequentially(scored(drawn(seed, n, lost, gained)), absolute(0.08), ALPHA, each, n).outcome
        for seed in range(runs)
    ]
    assert max(found.count("non_inferior"), found.count("worse")) <= binom.isf(1e-6, runs, ALPHA)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("graded", [False, True])
def test_bounds_and_decision_agree(seed, graded):
    pairs = scored(drawn(seed, 64, 0.05, 0.2) / (2 if graded else 1), graded=graded)
    for margin in (0.02, 0.2, -0.1, -0.2):
        looked = decide_sequentially(pairs, absolute(margin), ALPHA, LOOKS, 64)
        assert (looked.outcome == "non_inferior", looked.outcome == "worse") == (
            looked.low > -margin,
            looked.high < -margin,
        )


@pytest.mark.parametrize(("pairs", "claim"), SCENARIOS)
def test_a_small_p_value_is_the_decision(pairs, claim):
    looked = decide_sequentially(pairs[:250], claim, ALPHA, LOOKS, 400, largest_cluster=3)
    assert looked.outcome == outcome_of(looked.p_non_inferior, looked.p_worse, ALPHA)


def test_the_exact_test_of_all_items_keeps_the_rest_of_alpha():
    """30 items are too few for a look; the last test decides at (1 - share) alpha and its p-value is spread alike."""
    pairs = scored(drawn(0, 30, 0.0, 0.3))
    looked = decide_sequentially(pairs, absolute(0.1), ALPHA, Sequential(items_per_look=30), 30)
    fixed = hypotheses.compare(pairs, absolute(0.1), 0.9 * ALPHA)
    assert (fixed.p_non_inferior / 0.9, fixed.low) == pytest.approx((looked.p_non_inferior, looked.low))


@pytest.mark.parametrize("seed", range(10))
def test_where_betting_is_the_test_looking_costs_nothing(seed):
    """Looks after every item decide as one look at the end does: there is no power to lose."""
    pairs = scored(drawn(seed, 200, 0.1, 0.1) / 2, graded=True)
    outcomes = {
        decide_sequentially(pairs, absolute(0.04), ALPHA, Sequential(items_per_look=k), 200).outcome
        for k in (1, 32, 200)
    }
    assert 1 == len(outcomes)


def test_a_cluster_counts_once_it_is_complete():
    """Two of the last cluster's three items change nothing; the first item of the next cluster completes it."""
    differences, names = np.repeat([0.0, 0.0, 1.0, -1.0], 3), [f"c{i}" for i in np.repeat(np.arange(4), 3)]
    pairs = scored(differences, names)
    every = Sequential(items_per_look=1)
    p = [
        decide_sequentially(pairs[:k], absolute(0.3), ALPHA, every, 12, largest_cluster=3).p_non_inferior
        for k in range(1, 13)
    ]
    assert p[3] == p[4] == p[5]
    assert p[6] < p[3]  # c1 is complete
    assert p[9] < p[6]  # c2, which gained


def test_a_lone_item_is_complete_at_once():
    pairs = scored([0.0, 0.0, 1.0], ["c", "c", None])
    looked = [
        decide_sequentially(pairs[:k], absolute(0.3), ALPHA, LOOKS, 9, largest_cluster=2).p_non_inferior for k in (2, 3)
    ]
    assert looked[0] == 1
    assert looked[1] < 1


def test_clusters_of_unknown_size_wait_for_the_last_item():
    names = [f"c{i}" for i in np.repeat(np.arange(150), 2)]
    pairs = scored(np.zeros(300), names)
    waiting = decide_sequentially(pairs[:290], absolute(0.1), ALPHA, LOOKS, 300)
    assert ("undecided", -1.0, 1.0) == (waiting.outcome, waiting.low, waiting.high)
    assert ("non_inferior", 300) == decide_sequentially(pairs, absolute(0.1), ALPHA, LOOKS, 300)[:2]
    assert decide_sequentially(pairs, absolute(0.1), ALPHA, LOOKS, 300, largest_cluster=2).n_used < 300


@pytest.mark.parametrize(
    ("pairs", "n_planned", "message"),
    [
        (scored([0.0, 0.0, 0.0], ["a", "b", "a"]), 3, "item 2: its cluster a began before other items"),
        (scored([0.0] * 3, ["a"] * 3), 9, "a cluster has 3 items, but the suite's largest was said to have 2"),
        (scored([0.0] * 3), 2, "3 items were scored, but the suite has 2"),
        ([], 2, "at least one item"),
        ([PairedScore(item_id="x", before=0.0, candidate=1.5)], 2, "item 0: 1.54 is not a number in -0.96..1.04"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(pairs, n_planned, message):
    with pytest.raises(EvidenceError, match=message):
        decide_sequentially(pairs, absolute(0.04), ALPHA, LOOKS, n_planned, largest_cluster=2)
