"""What every committed suite promises, whoever wrote it."""

import math
from pathlib import Path

import pytest

from metagdpo.evaluation.suite import load_suites
from metagdpo.gate.policy import check_suites, read_policy
from metagdpo.gate.power import power_if_unchanged

REGISTRY = Path(__file__).parents[2] / "registry"
SUITES = load_suites(REGISTRY / "suites")
REQUIRED = [suite for suite in SUITES if suite.tier == "required"]
POLICY = read_policy(REGISTRY / "policy.yaml")
FLIP_RATE = 0.067
"""The largest share of flipped items that a promoted run of ours showed on a required suite (docs/results.md)."""


@pytest.mark.parametrize("suite", REQUIRED, ids=lambda suite: suite.name)
def test_a_required_skill_is_measurably_there(suite):
    """What the base has only at chance cannot be forgotten: its accuracy is three standard errors above."""
    assert suite.measured is not None
    p, n = suite.measured.accuracy, suite.measured.n
    assert p - 3 * math.sqrt(p * (1 - p) / n) > suite.chance


@pytest.mark.parametrize("suite", REQUIRED, ids=lambda suite: suite.name)
def test_an_unchanged_model_passes(suite):
    """Items and margin give an unchanged model the policy's power at the flip rate that we measure."""
    assert suite.n_items >= POLICY.min_items
    found = power_if_unchanged(suite.n_items, FLIP_RATE, POLICY.margin(suite.name), POLICY.alpha)
    assert found >= POLICY.power


def test_policy_names_only_suites_that_exist():
    check_suites(POLICY, [suite.name for suite in SUITES])


def test_there_are_real_benchmarks_and_verifiable_families():
    """At least two of each, all required."""
    kinds = [suite.items.kind for suite in REQUIRED]
    assert kinds.count("asset") >= 2
    assert kinds.count("procedural") >= 2
