"""Scores in 0..1, one for each item, and suites put together."""

import math

import pytest

from metagdpo.errors import ConfigError, EvidenceError
from metagdpo.exchange.score_set import Reading, Scored, ScoreSet, add, as_score, chosen, pool


@pytest.mark.parametrize(("value", "score"), [(0, 0.0), (1, 1.0), (True, 1.0), (False, 0.0), (0.25, 0.25)])
def test_a_number_in_0_to_1_is_a_score(value, score):
    assert score == as_score(value, suite="s", item="i", what="acc")


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 1.0000001, -1e-9, 87, 1e300, 10**400, None, "1", [1, 0], {"acc": 1}]
)
def test_anything_else_is_refused_with_its_item(value):
    """A missing score is no zero, and a percentage is no share."""
    with pytest.raises(EvidenceError, match=r"suite s, item i: acc is .*a score is a number in 0\.\.1"):
        as_score(value, suite="s", item="i", what="acc")


def test_an_item_has_one_score():
    items = {"a": Scored(1.0)}
    with pytest.raises(EvidenceError, match="suite s, item a: has more than one score"):
        add(items, "s", "a", Scored(1.0))


def test_the_first_pattern_that_fits_is_the_choice():
    choices = {"mmlu_*": "acc_norm", "*": "acc"}
    assert ["acc_norm", "acc"] == [chosen(choices, suite) for suite in ("mmlu_law", "piqa")]
    assert chosen({"a": "x"}, "b") is None


def test_skipped_suites_fit_a_pattern():
    reading = Reading(skip=("wiki*",))
    assert (True, False) == (reading.skips("wikitext"), reading.skips("piqa"))


SUBJECTS = ScoreSet(
    "table",
    {
        "m_law": {"0": Scored(1.0, cluster="x")},
        "m_art": {"0": Scored(0.0), "1": Scored(1.0)},
        "piqa": {"0": Scored(1.0)},
    },
    chances={"m_law": 0.25, "m_art": 0.5, "piqa": 0.5},
)


def test_pooled_suites_keep_every_item_under_its_own_name():
    pooled = pool(SUBJECTS, {"m": "m_*"})
    assert {"m": {"m_law/0", "m_art/0", "m_art/1"}, "piqa": {"0"}} == {s: set(i) for s, i in pooled.suites.items()}


def test_clusters_of_two_suites_stay_apart():
    assert "m_law/x" == pool(SUBJECTS, {"m": "m_*"}).suites["m"]["m_law/0"].cluster


def test_chance_of_a_pool_is_the_mean_over_its_items():
    assert {"m": pytest.approx((1 * 0.25 + 2 * 0.5) / 3), "piqa": 0.5} == pool(SUBJECTS, {"m": "m_*"}).chances


def test_chance_of_a_pool_is_unknown_when_it_is_of_one_member():
    known = ScoreSet("table", SUBJECTS.suites, chances={"m_law": 0.25})
    assert {} == pool(known, {"m": "m_*"}).chances


@pytest.mark.parametrize(
    ("groups", "problem"),
    [({"m": "x_*"}, "fits no suite"), ({"a": "m_*", "b": "m_law"}, "in two pools"), ({"piqa": "m_*"}, "is a suite")],
)
def test_a_pool_that_is_not_clear_is_refused(groups, problem):
    with pytest.raises(ConfigError, match=problem):
        pool(SUBJECTS, groups)


def test_without_pools_nothing_changes():
    assert SUBJECTS == pool(SUBJECTS, {})
