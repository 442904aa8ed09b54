"""Whom a suite is compared with, and the ratchet over releases."""

import pytest

from metagdpo.errors import ConfigError
from metagdpo.gate.comparisons import Design, comparisons, designs, with_ratchet
from metagdpo.gate.decide import SuiteInfo
from metagdpo.gate.policy import Policy
from metagdpo.records.champion import Champion
from metagdpo.records.item_score import ItemScore
from metagdpo.records.paired import PairedScore

POLICY = Policy(alpha=0.05, power=0.8, default_margin=0.04, min_items=1)


def suite(name, tier):
    return SuiteInfo(suite=name, tier=tier, skill=name, chance=0.0)


SUITES = (suite("piqa", "required"), suite("sums", "target"), suite("rhymes", "watched"))
PAIRS = {name: [PairedScore(item_id="1", before=1.0, candidate=0.0)] for name in ("piqa", "sums", "rhymes")}
PLANNED = dict.fromkeys(PAIRS, Design(1, None))
SECOND = Champion(version=2, entry="sha256:e", manifest="sha256:m", retained=("rhymes", "sums"))


def tiers(suites):
    return {found.suite: found.tier for found in suites}


def test_a_watched_suite_that_a_release_was_trained_for_becomes_required_and_a_target_stays_one():
    assert tiers(with_ratchet(SUITES, SECOND)) == {"piqa": "required", "sums": "target", "rhymes": "required"}


def test_before_the_first_release_nothing_changes():
    assert with_ratchet(SUITES, Champion()) == SUITES


def test_a_released_skill_whose_suite_vanished_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"trained for rhymes, sums, and registry/suites has no such suite"):
        with_ratchet(SUITES[:1], SECOND)


def test_every_suite_is_compared_with_base_and_champion():
    found = comparisons(POLICY, SUITES, SECOND, PAIRS, PAIRS, PLANNED)
    assert [(c.suite.suite, c.against) for c in found] == [
        (name, against) for against in ("base", "champion") for name in ("piqa", "sums", "rhymes")
    ]


def test_without_a_champion_or_by_policy_only_the_base_counts():
    alone = comparisons(POLICY, SUITES, Champion(), PAIRS, None, PLANNED)
    off = comparisons(POLICY.model_copy(update={"champion": False}), SUITES, SECOND, PAIRS, PAIRS, PLANNED)
    assert {c.against for c in (*alone, *off)} == {"base"}
    assert tiers(c.suite for c in off) == tiers(SUITES)


def test_the_design_counts_items_and_the_largest_cluster():
    def score(suite, cluster):
        return ItemScore(suite=suite, item_id="", doc="", prompt="", target="", score=1.0, answer="", cluster=cluster)

    found = designs([score("a", None), score("a", None), *(score("b", c) for c in ("x", "y", "y", None, None))])
    assert found == {"a": Design(2, None), "b": Design(5, 2)}
