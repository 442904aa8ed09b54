"""Drift against forgetting: correlations whose intervals know that runs of one method hang together."""

import math

import numpy as np
import pytest
from scipy.stats import binom, pearsonr, spearmanr, t

from metagdpo.comparison.forgetting import LEAST_METHODS, links
from metagdpo.records.comparison import RunPoint

LEVEL = 0.95


def point(method, seed, drift, retained):
    return RunPoint(method=method, seed=seed, target=0.1, retained=retained, drift=drift, decision="BLOCK")


def drawn(seed=0, *, methods=8, seeds=3, slope=-0.7, noise=0.3, own=0.2):
    """Methods differ in drift; what is retained follows it, with noise common to a method and noise of its runs."""
    rng = np.random.default_rng(seed)
    points = []
    for m in range(methods):
        drift, luck = rng.normal(), rng.normal() * noise
        for s in range(seeds):
            mine = drift + own * rng.normal()
            points.append(point(f"m{m}", s, float(mine), float(slope * mine + luck + own * rng.normal())))
    return points


def by_kind(points):
    return {link.kind: link for link in links(points, LEVEL)}


def columns(points):
    return [p.drift for p in points], [p.retained for p in points]


def test_values_are_pearsons_and_spearmans():
    points = drawn()
    found = by_kind(points)
    assert found["pearson"].value == pytest.approx(pearsonr(*columns(points)).statistic, abs=1e-6)
    assert found["spearman"].value == pytest.approx(spearmanr(*columns(points)).statistic, abs=1e-6)


def test_within_methods_is_pearson_of_what_is_left_without_the_methods_means():
    points = drawn()
    rows = []
    for p in points:
        mine = [q for q in points if q.method == p.method]
        rows.append((p.drift - np.mean([q.drift for q in mine]), p.retained - np.mean([q.retained for q in mine])))
    expected = pearsonr(*zip(*rows, strict=True)).statistic
    assert by_kind(points)["within"].value == pytest.approx(expected, abs=1e-6)


def test_interval_is_the_jackknife_over_methods_on_fishers_scale():
    points = drawn(noise=1.0)
    names = sorted({p.method for p in points})
    left = [math.atanh(pearsonr(*columns([p for p in points if p.method != name])).statistic) for name in names]
    error = math.sqrt((len(left) - 1) / len(left) * sum((z - np.mean(left)) ** 2 for z in left))
    middle = math.atanh(pearsonr(*columns(points)).statistic)
    half = t.ppf(0.975, len(left) - 1) * error
    found = by_kind(points)["pearson"]
    assert error > 1 / math.sqrt(len(points) - 3)
    assert (found.low, found.high) == pytest.approx((math.tanh(middle - half), math.tanh(middle + half)), abs=1e-4)


def test_more_runs_of_the_same_methods_do_not_buy_certainty():
    """Each run thrice: no new method, so nearly the interval of before, not one narrower by the root of three."""
    points = drawn(noise=1.0, own=0.0, seeds=1)
    copied = [point(p.method, s, p.drift, p.retained) for p in points for s in range(3)]
    once, thrice = by_kind(points)["pearson"], by_kind(copied)["pearson"]
    assert thrice.high - thrice.low > 0.9 * (once.high - once.low)


def test_a_perfect_correlation_is_not_certain():
    points = [point(f"m{m}", 1, float(m), -float(m)) for m in range(8)]
    found = by_kind(points)["spearman"]
    assert -1 == found.value
    assert found.low <= found.value < found.high


def test_no_link_is_said_to_be_not_shown():
    points = [point(f"m{m}", 1, float(m), float((-1) ** m)) for m in range(8)]
    assert "not shown: the interval holds 0" == by_kind(points)["pearson"].note


@pytest.mark.parametrize(("sign", "words"), [(-1, "lost more"), (1, "lost less")])
def test_a_strong_link_is_said_with_its_direction(sign, words):
    points = drawn(slope=sign, noise=0.05)
    found = by_kind(points)["pearson"]
    assert found.note.endswith(words)


def test_few_methods_give_a_reason_and_no_number():
    found = by_kind(drawn(methods=LEAST_METHODS - 1))
    assert {None} == {link.value for link in found.values()}
    assert "too few methods: 4, at least 5 are needed" == found["pearson"].note


def test_one_seed_leaves_nothing_within_methods():
    found = by_kind(drawn(seeds=1))
    assert found["pearson"].value is not None
    assert (None, "too few seeds: nothing is left when each method's mean is taken off") == (
        found["within"].value,
        found["within"].note,
    )


def test_no_variation_gives_a_reason_and_no_number():
    points = [point(f"m{m}", s, 0.1 * m, 0.0) for m in range(6) for s in range(3)]
    assert {"one of the two does not vary"} == {link.note for link in links(points, LEVEL)}


def test_runs_without_a_retained_change_are_left_out():
    points = drawn()
    more = [*points, point("other", 1, 9.0, None)]
    assert links(points, LEVEL) == links(more, LEVEL)


def test_no_runs_at_all_give_reasons():
    assert all(link.value is None and link.note for link in links([], LEVEL))


def test_intervals_cover_the_correlation_of_the_population():
    """Eight methods of three runs, both noises normal: r of the population is cov / sqrt(var var)."""
    slope, noise, own, runs = -0.7, 0.5, 0.2, 300
    variance = 1 + own**2
    expected = slope * variance / math.sqrt(variance * (slope**2 * variance + noise**2 + own**2))
    hits = 0
    for seed in range(runs):
        found = by_kind(drawn(seed, slope=slope, noise=noise, own=own))["pearson"]
        hits += found.low <= expected <= found.high
    assert hits >= binom.ppf(0.0005, runs, 0.93)
