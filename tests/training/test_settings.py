"""Sections `reference` and `train`."""

import pytest

from metagdpo.errors import ConfigError
from metagdpo.params import validate
from metagdpo.training.settings import TrainParams


def test_an_objective_is_chosen_by_its_kind():
    found = validate({"learning_rate": 2e-6, "objective": {"kind": "dpo", "pairs": "all"}}, TrainParams, where="p")
    assert (found.objective.kind, found.objective.pairs) == ("dpo", "all")


def test_an_unknown_objective_is_refused_with_its_path():
    with pytest.raises(ConfigError, match=r"train.objective.*'ppo'"):
        validate({"learning_rate": 1, "objective": {"kind": "ppo"}}, TrainParams, where="p", prefix="train")


def test_an_anchor_is_chosen_by_its_kind():
    anchors = [{"kind": "kl", "weight": 0.1, "per_step": 2}, {"kind": "l2_sp", "weight": 1e-3}]
    found = validate({"learning_rate": 1e-4, "anchors": anchors}, TrainParams, where="p", prefix="train")
    assert [anchor.kind for anchor in found.anchors] == ["kl", "l2_sp"]


@pytest.mark.parametrize(
    "section", [{"early_stop": {}}, {"early_stop": {}, "measure_every": 2}, {"held_out_share": 0.1}]
)
def test_what_needs_a_measurement_is_refused_without(section):
    with pytest.raises(ConfigError, match=r"needs .*above 0"):
        validate({"learning_rate": 1e-4, **section}, TrainParams, where="p", prefix="train")
