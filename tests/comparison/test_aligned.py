"""Runs are compared item by item, or not at all."""

import numpy as np
import pytest
from comparison_world import finding, result, scores

from metagdpo.comparison.aligned import align
from metagdpo.errors import EvidenceError

BEFORE = [1, 0, 1, 0]


def runs(*methods, suites=("a",)):
    return [result(method, 1, [finding(suite) for suite in suites]) for method in methods]


def pairs(**after):
    return {(method, 1): {"a": scores(BEFORE, values)} for method, values in after.items()}


def test_scores_become_one_array_a_run_in_the_order_of_the_first():
    given = pairs(m=[1, 1, 0, 0], o=[0, 0, 1, 1])
    given["o", 1]["a"].reverse()
    (suite,), notes = align(runs("m", "o"), given)
    assert [[1, 1, 0, 0], [0, 0, 1, 1]] == [suite.candidates[method, 1].tolist() for method in ("m", "o")]
    assert () == notes


def test_changes_and_differences_are_what_they_say():
    (suite,), _ = align(runs("m", "o"), pairs(m=[1, 1, 0, 0], o=[0, 0, 1, 1]))
    assert [[0, 1, -1, 0]] == suite.changes("m", [1]).values.tolist()
    assert [[1, 1, -1, -1]] == suite.difference("m", "o", [1]).values.tolist()


def test_items_that_a_run_lacks_are_left_out_of_all_and_counted():
    given = pairs(m=[1, 1, 0, 0], o=[0, 0, 1, 1])
    del given["o", 1]["a"][2:]
    (suite,), notes = align(runs("m", "o"), given)
    assert [1, 1] == suite.candidates["m", 1].tolist()
    assert notes[0].startswith("Suite a: 2 of 4 items are left out, because not every run answered them.")


def test_items_of_a_cluster_are_one_unit_and_lone_items_their_own():
    """A cluster may be named like a lone item."""
    given = {("m", 1): {"a": scores(BEFORE, BEFORE, ["i3", "i3", "x", None])}}
    (suite,), _ = align(runs("m"), given)
    assert [0, 0, 1, 2] == suite.units.tolist()


def test_suites_keep_the_order_of_the_findings():
    given = {("m", 1): {name: scores(BEFORE, BEFORE) for name in ("a", "b")}}
    found, _ = align(runs("m", suites=("b", "a")), given)
    assert ["b", "a"] == [suite.suite for suite in found]


def test_another_suite_is_refused():
    some = [*runs("m"), *runs("o", suites=("a", "b"))]
    with pytest.raises(
        EvidenceError, match="o with seed 1 was measured on other suites or tiers than m with seed 1: b"
    ):
        align(some, pairs(m=BEFORE, o=BEFORE))


def test_another_tier_is_refused():
    some = [*runs("m"), result("o", 1, [finding("a", "target")])]
    with pytest.raises(EvidenceError, match=r"other suites or tiers than m with seed 1: a\."):
        align(some, pairs(m=BEFORE, o=BEFORE))


def test_a_run_without_pairs_is_refused():
    with pytest.raises(EvidenceError, match="o with seed 1 has no paired scores of a"):
        align(runs("m", "o"), pairs(m=BEFORE))


def test_another_score_of_the_base_is_refused():
    given = pairs(m=BEFORE) | {("o", 1): {"a": scores([1, 1, 1, 0], BEFORE)}}
    with pytest.raises(EvidenceError, match="suite a, item 'i1': o with seed 1 was compared with another score"):
        align(runs("m", "o"), given)


def test_an_item_that_is_there_twice_is_refused():
    twice = {("m", 1): {"a": [*scores(BEFORE, BEFORE), *scores([1], [1])]}}
    with pytest.raises(EvidenceError, match="m with seed 1, suite a: item 'i0' is there twice"):
        align(runs("m"), twice)


def test_no_common_item_is_refused():
    given = pairs(m=BEFORE, o=BEFORE)
    given["o", 1]["a"] = []
    with pytest.raises(EvidenceError, match="suite a: no item was answered by all 2 runs"):
        align(runs("m", "o"), given)


@pytest.mark.parametrize("score", [-0.1, 1.5])
def test_a_score_outside_0_to_1_is_refused(score):
    with pytest.raises(EvidenceError, match=r"a score is a number in 0\.\.1"):
        align(runs("m"), pairs(m=[score, 0, 0, 0]))


def test_partial_scores_are_kept():
    (suite,), _ = align(runs("m"), pairs(m=[0.25, 0.5, 1, 0]))
    assert np.array_equal([[-0.75, 0.5, 0, 0]], suite.changes("m", [1]).values)
