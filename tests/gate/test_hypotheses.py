"""The gate's one test: which claim a margin is, which method fits, and the error rate of what betting decides."""

import numpy as np
import pytest
from scipy.stats import binom

from metagdpo.gate import betting, paired
from metagdpo.gate.hypotheses import absolute, arrays, claimed, compare, counts, method_for, relative
from metagdpo.records.paired import PairedScore

ALPHA = 0.05


def scored(before, candidate, clusters=None):
    return [
        PairedScore(item_id=str(i), before=b, candidate=c, cluster=clusters[i] if clusters else None)
        for i, (b, c) in enumerate(zip(before, candidate, strict=True))
    ]


BINARY = scored([1.0, 1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0])
GRADED = scored([1.0, 0.5, 0.0, 0.2, 1.0], [1.0, 0.0, 1.0, 0.3, 1.0])
CLUSTERED = scored([1.0, 1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0], ["a", "a", None, "b", "b"])


@pytest.mark.parametrize(
    ("pairs", "claim", "method"),
    [
        pytest.param(BINARY, absolute(0.04), "exact", id="right or wrong"),
        pytest.param(BINARY, absolute(-0.1), "exact", id="gain"),
        pytest.param(BINARY, relative(0.1, 0.25), "betting", id="relative"),
        pytest.param(GRADED, absolute(0.04), "betting", id="graded"),
        pytest.param(CLUSTERED, absolute(0.04), "betting", id="clustered"),
    ],
)
def test_the_kind_of_scores_chooses_the_method(pairs, claim, method):
    assert (method, method) == (method_for(pairs, claim), compare(pairs, claim, ALPHA).method)


def test_right_or_wrong_items_get_the_exact_test():
    shown = compare(BINARY, absolute(0.04), ALPHA)
    assert (5, 1, 1) == counts(BINARY)
    assert paired.exact_interval(5, 1, 1, ALPHA) == (shown.low, shown.high)
    assert paired.exact_p_non_inferior(5, 1, 1, 0.04) == shown.p_non_inferior
    assert paired.exact_p_worse(5, 1, 1, 0.04) == shown.p_worse


@pytest.mark.parametrize("pairs", [GRADED, CLUSTERED])
def test_other_items_are_bet_on_as_claimed(pairs):
    before, candidate, clusters = arrays(pairs)
    shown = compare(pairs, absolute(0.1), ALPHA)
    assert betting.interval(candidate - before, -1.0, 1.0, ALPHA, clusters) == (shown.low, shown.high)
    assert betting.p_positive(candidate - before + 0.1, -0.9, 1.1, clusters) == shown.p_non_inferior
    assert betting.p_positive(before - candidate - 0.1, -1.1, 0.9, clusters) == shown.p_worse


@pytest.mark.parametrize("claim", [absolute(0.04), absolute(-0.1), relative(0.1, 0.25), relative(0.3, 0.0)])
def test_a_claims_range_is_that_of_the_worst_and_the_best_item(claim):
    worst, best = scored([1.0], [0.0]), scored([0.0], [1.0])
    values = [claimed(*arrays(pairs)[:2], claim) for pairs in (worst, best)]
    assert (values[0][0][0], values[1][0][0]) == pytest.approx(values[0][1:])


def test_a_relative_margin_is_a_share_of_what_lies_above_chance():
    """Chance 0.25, reference 0.65: a loss of a tenth of the 0.40 above chance brings the candidate to 0.61."""
    excess, _, _ = claimed(np.array([0.65]), np.array([0.61]), relative(0.1, 0.25))
    assert pytest.approx(0.0) == excess[0]


def test_a_required_gain_is_a_negative_margin():
    excess, _, _ = claimed(np.array([0.5]), np.array([0.6]), absolute(-0.1))
    assert pytest.approx(0.0) == excess[0]


def test_a_lone_item_and_a_cluster_of_the_same_name_stay_apart():
    pairs = [
        PairedScore(item_id="a", before=1.0, candidate=1.0),
        PairedScore(item_id="b", before=1.0, candidate=1.0, cluster="a"),
    ]
    _, _, clusters = arrays(pairs)
    assert 2 == len(set(clusters))


@pytest.mark.parametrize("reference", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_candidate_that_lost_just_the_relative_margin_rarely_passes(reference, share):
    """Four options, so chance is 0.25; the reference is right with `reference`, the candidate loses only."""
    rng, runs, n, chance = np.random.default_rng(4), 400, 120, 0.25
    claim, false = relative(share, chance), np.zeros(2)
    lost = share * (reference - chance) / reference  # of the items that the reference answers
    for _ in range(runs):
        before = (rng.random(n) < reference).astype(float)
        excess, lowest, highest = claimed(before, before * (rng.random(n) >= lost), claim)
        false[0] += betting.p_positive(excess, lowest, highest) <= ALPHA
        false[1] += betting.p_positive(-excess, -highest, -lowest) <= ALPHA
    assert false.max() <= binom.isf(1e-6, runs, ALPHA)


def test_a_candidate_that_gained_just_what_is_demanded_rarely_passes():
    rng, runs, n, false = np.random.default_rng(5), 400, 120, 0
    for _ in range(runs):
        before = rng.beta(1, 1, n)
        excess, lowest, highest = claimed(before, before + 0.2 * (1 - before), absolute(-0.1))  # gains 0.1 on average
        false += betting.p_positive(excess, lowest, highest) <= ALPHA
    assert false <= binom.isf(1e-6, runs, ALPHA)


def test_an_unchanged_candidate_keeps_its_relative_margin():
    before = np.tile([1.0, 1.0, 1.0, 0.0], 400)
    shown = compare(scored(before, before), relative(0.1, 0.25), ALPHA)
    assert shown.p_non_inferior <= ALPHA
    assert shown.low < 0 < shown.high


def test_clusters_weaken_the_evidence():
    before = np.ones(400)
    names = [f"passage {i // 10}" for i in range(400)]
    alone = compare(scored(before, before), relative(0.1, 0.0), ALPHA)
    clustered = compare(scored(before, before, names), relative(0.1, 0.0), ALPHA)
    assert clustered.p_non_inferior > alone.p_non_inferior
    assert clustered.low < alone.low
