"""What each run of the comparison has, and what is wrong with it: told before anything is paid for."""

import importlib.util
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from metagdpo.errors import MetagdpoError
from metagdpo.evaluation.harness import EvaluateParams
from metagdpo.evaluation.validation import InterpolateParams
from metagdpo.params import BaseParams, problems
from metagdpo.responses.rewards import RewardParams
from metagdpo.runs import COMPARISON, ComparisonParams, Run, run_of
from metagdpo.schema import Frozen
from metagdpo.training.settings import SequenceParams, TrainParams

SECTIONS: dict[str, type[Frozen]] = {
    "base": BaseParams,
    "reference": SequenceParams,
    "train": TrainParams,
    "reward": RewardParams,
    "interpolate": InterpolateParams,
    "evaluate": EvaluateParams,
}
"""Sections that a run may have of its own, or that decide what becomes of it."""
STAGES: dict[str, tuple[str, ...]] = {
    "train": ("base", "reference", "train", "reward"),
    "interpolate": ("base", "interpolate", "evaluate"),
    "evaluate": ("base", "evaluate", "reference"),
}
"""The sections that each stage of a run reads."""


def stage_settings(run: Run, stage: str) -> dict[str, JsonValue]:
    """The sections that a stage of a run reads, as it has them.

    Raises:
        ConfigError: A section is missing or not valid.
    """
    found: dict[str, JsonValue] = {
        name: run.section(name, SECTIONS[name]).model_dump(mode="json") for name in STAGES[stage]
    }
    if stage == "train" and run.section("train", TrainParams).on_policy is None:
        del found["reward"]  # answers are only scored where the policy writes them
    return found


def check(declared: ComparisonParams, root: Path) -> list[str]:
    """Every problem of the parameters that the methods have, also of those that are not compared at the moment.

    Args:
        declared: comparison.yaml.
        root: The project's root.

    Returns:
        One line for each; empty when all are valid.
    """
    lines: list[str] = []
    for method in declared.methods:
        lines += _method_problems(run_of(method, declared.seeds[0], declared), root)
    lines += [
        f"{COMPARISON}: method {method} needs TRL, which is not installed. Run `pip install '.[grpo]'`, or take it out "
        "of `compare`."
        for method in declared.compare
        if importlib.util.find_spec("trl") is None and _on_policy(run_of(method, declared.seeds[0], declared), root)
    ]
    return lines


def _method_problems(run: Run, root: Path) -> list[str]:
    try:
        document = run.document(root)
    except MetagdpoError as error:
        return [str(error)]
    found = [
        line
        for name in ("train", "interpolate", "evaluate")
        for line in problems(document.get(name), SECTIONS[name], prefix=name)[1]
    ]
    return [f"{run.where} is not valid:", *found] if found else []


def _on_policy(run: Run, root: Path) -> Any:
    section = run.document(root).get("train")
    return isinstance(section, dict) and section.get("on_policy")
