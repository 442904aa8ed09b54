"""The comparison's numbers: what counts, what is left out, what is called better, and what is refused."""

import random

import numpy as np
import pytest
from comparison_world import LABELS, METHODS, SEEDS, finding, result, scores, world
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from metagdpo.comparison.crossed import Block
from metagdpo.comparison.crossed import estimate as crossed_estimate
from metagdpo.comparison.statistics import compare, drift_estimate, holm
from metagdpo.errors import EvidenceError
from metagdpo.records.drift import Drift

NOTHING = [0.0] * 20


def run_of(method, seed, after, tiers, before=NOTHING, **changed):
    """A run and its pairs: `after` maps a suite to the candidate's scores."""
    run = result(method, seed, [finding(suite, tiers[suite]) for suite in after], **changed)
    return run, {suite: scores(before, values) for suite, values in after.items()}


def compared(*runs, **how):
    return compare([run for run, _ in runs], {(run.method, run.seed): pairs for run, pairs in runs}, **how)


def right(n, of=20):
    return [1.0] * n + [0.0] * (of - n)


TIERS = {"t": "target", "a": "required", "b": "safety", "w": "watched"}
FOUR = {"t": right(10), "a": right(4), "b": right(2), "w": right(20)}


def test_target_and_retained_are_means_over_their_suites():
    row = compared(run_of("m", 1, FOUR, TIERS)).methods[0]
    assert (10 / 20, (4 / 20 + 2 / 20) / 2) == pytest.approx((row.target.value, row.retained.value))


def test_overall_is_the_plain_mean_over_all_suites_that_decide():
    row = compared(run_of("m", 1, FOUR, TIERS)).methods[0]
    assert (10 / 20 + 4 / 20 + 2 / 20) / 3 == pytest.approx(row.overall.value)


def test_a_watched_suite_is_shown_and_counts_nowhere():
    row = compared(run_of("m", 1, FOUR, TIERS)).methods[0]
    assert ["t", "a", "b", "w"] == [change.suite for change in row.suites]
    assert "b" == row.worst.suite


def test_without_a_target_there_is_no_target_gain():
    assert compared(run_of("m", 1, {"a": right(4)}, TIERS)).methods[0].target is None


def test_only_findings_against_the_base_are_suites():
    run, pairs = run_of("m", 1, {"a": right(4)}, TIERS)
    run = run.model_copy(update={"findings": (*run.findings, finding("a", "required", against="champion"))})
    assert ["a"] == [change.suite for change in compared((run, pairs)).methods[0].suites]


def test_a_rows_value_is_the_mean_over_its_seeds():
    runs = [run_of("m", seed, {"a": right(n)}, TIERS) for seed, n in ((1, 2), (2, 6), (3, 7))]
    assert (2 + 6 + 7) / 60 == pytest.approx(compared(*runs).methods[0].retained.value)


def test_the_difference_of_two_methods_is_paired_by_item_and_seed():
    """Equal flips in each seed, however the seeds differ: the difference is 0, with the room of no flips."""
    counts = {1: 2, 2: 9, 3: 16}
    runs = [run_of(name, seed, {"a": right(n)}, TIERS) for name in ("m", "o") for seed, n in counts.items()]
    found = next(row for row in compared(*runs).differences if row.measure == "retained")
    empty = crossed_estimate([Block(np.zeros((3, 20)), np.arange(20))], 0.95)
    assert empty == found.difference


def test_a_difference_uses_the_seeds_that_both_have():
    runs = [run_of("m", s, {"a": right(8)}, TIERS) for s in (1, 2)] + [run_of("o", 2, {"a": right(3)}, TIERS)]
    found = next(row for row in compared(*runs).differences if row.measure == "retained")
    assert (5 / 20, 1) == (pytest.approx(found.difference.value), found.difference.n_seeds)


def test_methods_without_a_common_seed_have_no_difference():
    runs = [run_of("m", 1, {"a": right(8)}, TIERS), run_of("o", 2, {"a": right(3)}, TIERS)]
    assert () == compared(*runs).differences


def test_better_is_said_of_the_method_with_the_higher_value_and_only_when_shown():
    large = {"a": right(190, 200)}, {"a": right(10, 200)}
    low, high = run_of("low", 1, large[1], TIERS, [0.0] * 200), run_of("high", 1, large[0], TIERS, [0.0] * 200)
    same = run_of("same", 1, large[1], TIERS, [0.0] * 200)
    found = {(d.first, d.second): d.better for d in compared(low, high, same).differences if d.measure == "retained"}
    assert {("low", "high"): "high", ("low", "same"): None, ("high", "same"): "high"} == found


def test_better_needs_the_adjusted_p_value(whole):
    for row in whole.differences:
        assert (row.better is not None) == (row.p_holm < 0.05)


def test_p_values_are_adjusted_within_each_measure(whole):
    for measure in ("target", "retained", "overall"):
        rows = [row for row in whole.differences if row.measure == measure]
        assert [row.p_holm for row in rows] == holm([row.difference.p_value for row in rows])
        assert 8 * 7 / 2 == len(rows)


def test_holm_multiplies_the_smallest_by_all_and_the_next_by_one_less():
    assert [3 * 0.01, 2 * 0.02, 0.04] == pytest.approx(holm([0.01, 0.02, 0.04]))


def test_holm_never_puts_a_larger_p_value_before_a_smaller_one():
    assert [3 * 0.02, 3 * 0.02, 3 * 0.02] == pytest.approx(holm([0.02, 0.021, 0.022]))


@given(st.lists(st.floats(0, 1), max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_as_the_step_down_procedure_does(p_values, alpha):
    """Step down by definition: the k-th smallest is rejected while it stays at most alpha / (m - k + 1)."""
    rejected = set()
    for k, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if (len(p_values) - k) * p_values[index] > alpha:
            break
        rejected.add(index)
    assert rejected == {index for index, p in enumerate(holm(p_values)) if p <= alpha}


def test_an_empty_family_has_nothing_to_adjust():
    assert [] == holm([])


def drifting(*values, half=0.02, n_samples=32):
    return [
        result("m", seed, drift=Drift(kl_per_token=v, low=v - half, high=v + half, n_samples=n_samples, n_tokens=900))
        for seed, v in enumerate(values)
    ]


def test_the_drift_of_one_seed_has_its_own_interval():
    found = drift_estimate(drifting(0.1), 0.95)
    assert (0.1, 0.08, 0.12) == pytest.approx((found.value, found.low, found.high))


def test_the_drift_of_seeds_adds_their_variance_to_that_of_the_texts():
    values, half, n = (0.1, 0.2, 0.3), 0.02, 32
    v_texts = (half / t.ppf(0.975, n - 1)) ** 2
    v_seeds = np.var(values, ddof=1) / 3
    df = (v_texts + v_seeds) ** 2 / (v_texts**2 / (n - 1) + v_seeds**2 / 2)
    found = drift_estimate(drifting(*values, half=half, n_samples=n), 0.95)
    assert found.high - found.value == pytest.approx(t.ppf(0.975, df) * (v_texts + v_seeds) ** 0.5)


def test_a_candidate_that_equals_the_base_does_not_drift():
    found = drift_estimate(drifting(0.0, 0.0, half=0.0), 0.95)
    assert (0.0, 0.0, 0.0, 1.0) == (found.value, found.low, found.high, found.p_value)


def test_missing_runs_are_named_with_the_reason_or_as_not_run():
    run = run_of("m", 1, {"a": right(3)}, TIERS)
    found = compared(run, labels={"m": "M", "o": "O"}, seeds=[1, 2], failed={("m", 2): "out of memory"})
    assert [("m", 2, "out of memory"), ("o", 1, "not run"), ("o", 2, "not run")] == [
        (gone.method, gone.seed, gone.why) for gone in found.missing
    ]


def test_a_method_without_a_result_keeps_its_row():
    found = compared(run_of("m", 1, {"a": right(3)}, TIERS), labels={"o": "O", "m": "M"}, seeds=[1])
    assert [("o", (), (1,), None), ("m", (1,), (), found.methods[1].retained)] == [
        (row.method, row.seeds, row.missing, row.retained) for row in found.methods
    ]


def test_one_seed_is_said_to_speak_of_items_only():
    found = compared(run_of("m", 1, {"a": right(3)}, TIERS))
    assert found.notes == (
        "One seed only: m. The interval is over items alone and says nothing about another training.",
    )


def test_methods_stand_in_declared_order_whatever_the_order_of_the_runs(whole):
    runs, pairs = world()
    random.Random(5).shuffle(runs)
    assert compare(runs, pairs, labels=LABELS, seeds=SEEDS) == whole
    assert list(METHODS) == [row.method for row in whole.methods]


def test_tokens_count_what_an_on_policy_training_wrote():
    run, pairs = run_of("m", 1, {"a": right(3)}, TIERS)
    cost = run.cost.model_copy(update={"n_tokens": 100, "n_sampled_tokens": 11})
    assert 111 == compared((run.model_copy(update={"cost": cost}), pairs)).methods[0].tokens.mean


def test_the_accepted_loss_is_the_mean_margin_of_the_retained_suites():
    run, pairs = run_of("m", 1, FOUR, TIERS)
    margins = {"t": -0.5, "a": 0.02, "b": 0.06, "w": 0.9}
    findings = tuple(f.model_copy(update={"margin": margins[f.suite]}) for f in run.findings)
    found = compared((run.model_copy(update={"findings": findings}), pairs))
    assert pytest.approx(0.04) == found.accepted_loss


def test_every_interval_of_the_whole_has_a_width(whole):
    estimates = [e for row in whole.methods for e in (row.target, row.retained, row.overall, row.drift)]
    estimates += [change.change for row in whole.methods for change in row.suites]
    assert all(e.low < e.high for e in estimates)


def test_every_run_is_a_point(whole):
    assert [(m, s) for m in METHODS for s in SEEDS] == [(run.method, run.seed) for run in whole.runs]


def test_points_average_to_the_rows(whole):
    for row in whole.methods:
        mine = [run for run in whole.runs if run.method == row.method]
        assert row.retained.value == pytest.approx(sum(run.retained for run in mine) / 3)
        assert row.target.value == pytest.approx(sum(run.target for run in mine) / 3)


def test_no_runs_are_refused():
    with pytest.raises(EvidenceError, match="no run of the comparison has finished"):
        compare([], {})


def test_a_run_that_is_there_twice_is_refused():
    run = run_of("m", 1, {"a": right(3)}, TIERS)
    with pytest.raises(EvidenceError, match="m with seed 1 is there twice"):
        compared(run, run)


@pytest.mark.parametrize("declared", [{"labels": {"o": "O"}}, {"seeds": [2]}])
def test_an_undeclared_run_is_refused(declared):
    with pytest.raises(EvidenceError, match="m with seed 1 is not declared"):
        compared(run_of("m", 1, {"a": right(3)}, TIERS), **declared)
