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


def test_half_an_anchor_is_refused():
    with pytest.raises(ConfigError, match="either both 0 or both positive"):
        validate({"learning_rate": 1e-4, "context_free_weight": 0.5}, TrainParams, where="p", prefix="train")
