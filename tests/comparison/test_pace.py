"""Pace: what runs took so far says what the others will take."""

from hypothesis import given
from hypothesis import strategies as st

from metagdpo.comparison.pace import StageTime, keep_time, read_times, seconds_left
from metagdpo.runs import Run


def times(*rows):
    return [StageTime(method=method, seed=seed, stage=stage, seconds=seconds) for method, seed, stage, seconds in rows]


def test_nothing_timed_is_unknown_and_not_zero():
    assert seconds_left([("a", 1)], []) is None


def test_a_run_takes_the_mean_of_its_methods_runs():
    found = times(
        ("a", 1, "train", 10.0), ("a", 1, "evaluate", 2.0), ("a", 2, "train", 20.0), ("a", 2, "evaluate", 4.0)
    )
    assert ((10 + 2) + (20 + 4)) / 2 == seconds_left([("a", 3)], found)


def test_a_method_without_runs_takes_the_mean_of_all_runs():
    found = times(("a", 1, "train", 10.0), ("b", 1, "train", 40.0))
    assert (10 + 40) / 2 == seconds_left([("c", 1)], found)
    assert (10 + 40) / 2 + 10 == seconds_left([("c", 1), ("a", 2)], found)


def test_a_stage_that_went_on_after_a_kill_counts_its_longer_time():
    assert 10.0 == seconds_left([("a", 2)], times(("a", 1, "train", 10.0), ("a", 1, "train", 0.5)))


def test_a_run_that_did_not_get_to_its_last_stage_makes_no_run_look_short():
    found = times(("a", 1, "train", 10.0), ("a", 1, "evaluate", 5.0), ("a", 2, "train", 1.0))
    assert 15.0 == seconds_left([("a", 2)], found)


def test_nothing_left_takes_no_time():
    assert 0.0 == seconds_left([], times(("a", 1, "train", 10.0)))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.just("train"), st.floats(0, 1e4)), min_size=1),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2))),
)
def test_an_estimate_lies_between_the_shortest_and_the_longest_run(rows, left):
    found = seconds_left(left, times(*rows))
    longest = {}
    for method, seed, _, seconds in rows:
        longest[method, seed] = max(seconds, longest.get((method, seed), 0.0))
    low, high = min(longest.values()), max(longest.values())
    assert low * len(left) <= found * (1 + 1e-9) + 1e-9
    assert found <= high * len(left) * (1 + 1e-9) + 1e-9


def test_a_stage_of_a_run_is_kept_and_the_main_jobs_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keep_time(Run(method="a", seed=0), "train")
    keep_time(Run(), "train")
    (kept,) = read_times()
    assert ("a", 0, "train") == (kept.method, kept.seed, kept.stage)
    assert kept.seconds > 0
