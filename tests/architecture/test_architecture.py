"""The shape of the code: arrows, third-party doors, equation homes, importability, light command line."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from closure import ROOT, imports

MODULES = sorted([*(ROOT / "metagdpo").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])

# package -> what it may import of ours; a package may always import itself, errors and schema.
ARROWS = {
    "errors": set(),
    "schema": {"errors"},
    "params": set(),
    "records": set(),
    "progress": set(),
    "assets": {"params", "progress"},
    "verifiers": {"records"},
    "answers": {"records", "verifiers"},
    "words": set(),
    "spreadsheet": set(),
    "overlap": {"answers", "evaluation", "gate", "records", "words"},
    "parameter_sets": {"params"},
    "configuration": {"*"},
    "planning": {"evaluation", "gate", "records"},
    "runs": {"params"},
    "trained_on": {"overlap", "progress", "records"},
    "comparison": {
        "records",
        "report",
        "spreadsheet",
        "knowledge",
        "evaluation",
        "gate",
        "overlap",
        "params",
        "planning",
        "responses",
        "runs",
        "trained_on",
        "training",
    },
    "cli_compare": {"*"},
    "exchange": {"records", "params", "gate", "report"},
    "models": {"params", "records", "progress"},
    "objectives": {"params"},
    "sources": {"records", "models", "answers", "params", "progress"},
    "knowledge": {"records", "models", "answers", "params", "progress", "spreadsheet"},
    "responses": {"records", "models", "answers", "params", "progress"},
    "preservation": {"records", "models", "answers", "params", "progress"},
    "training": {"records", "objectives", "models", "params", "progress"},
    "evaluation": {"records", "models", "answers", "params", "progress"},
    "gate": {"records", "params"},
    "release": {"records", "params", "lineage", "progress"},
    "lineage": {"records", "params", "release"},
    "report": {"records", "params", "spreadsheet"},
    "cli": {"*"},
    "cli_knowledge": {"*"},
}

DOORS = {
    "lm_eval": {"metagdpo/evaluation/harness.py"},
    "mlflow": {"metagdpo/training/tracking.py", "metagdpo/release/model_registry.py", "metagdpo/lineage/"},
    "peft": {"metagdpo/training/"},
    "accelerate": {"metagdpo/training/parallel.py"},
    "trl": {"metagdpo/training/on_policy.py"},
    "transformers": {"metagdpo/training/", "metagdpo/models/", "metagdpo/assets.py"},
    "math_verify": {"metagdpo/verifiers/"},
    "datasets": {"metagdpo/evaluation/harness.py", "metagdpo/sources/hub.py", "metagdpo/training/on_policy.py"},
    "sklearn": {"metagdpo/knowledge/unit_map.py"},
    "reasoning_gym": {
        "metagdpo/verifiers/procedural.py",
        "metagdpo/sources/procedural.py",
        "metagdpo/evaluation/items.py",
    },
    "click": {"metagdpo/cli.py", "metagdpo/cli_compare.py", "metagdpo/cli_knowledge.py", "metagdpo/command_group.py"},
}

EQUATION_HOMES = {
    "correlation of drift and forgetting": "metagdpo/comparison/forgetting.py",
    "FLOW weight": "metagdpo/training/sample_weights.py",
    "STM mask": "metagdpo/training/token_mask.py",
    "crossed items and seeds": "metagdpo/comparison/crossed.py",
    "Wise-FT interpolation": "metagdpo/training/interpolate.py",
    "choice of alpha": "metagdpo/evaluation/validation.py",
    "SA-SFT loss": "metagdpo/objectives/anchors.py",
    "EWC": "metagdpo/objectives/anchors.py",
    "SA-SFT sampling": "metagdpo/preservation/self_dialogue.py",
    "seq-rep-4": "metagdpo/preservation/filters.py",
    "Algorithm 1": "metagdpo/knowledge/selection.py",
    "App. B.2": "metagdpo/knowledge/proficiency.py",
    "exact binomial interval": "metagdpo/knowledge/intervals.py",
    "Chernoff interval": "metagdpo/knowledge/intervals.py",
    "correlation between measures of mastery": "metagdpo/knowledge/correlation.py",
    "Krippendorff's alpha": "metagdpo/knowledge/label_sets.py",
    "MASI": "metagdpo/knowledge/label_sets.py",
    "Cohen's kappa": "metagdpo/knowledge/label_sets.py",
    "reconstruction prompt": "metagdpo/responses/prompts.py",
    "Eq. 3": "metagdpo/objectives/advantages.py",
    "Eq. 12": "metagdpo/objectives/gdpo.py",
    "Eq. 13": "metagdpo/objectives/gdpo.py",
    "sequence log-probability": "metagdpo/training/logprobs.py",
    "CFS loss": "metagdpo/objectives/anchors.py",
    "KL to the base": "metagdpo/training/divergence.py",
    "L2-SP": "metagdpo/objectives/anchors.py",
    "two-part attention": "metagdpo/training/attention.py",
    "CFS sampling": "metagdpo/preservation/context_free.py",
    "KL(p_base || p_candidate)": "metagdpo/evaluation/drift.py",
    "Tango": "metagdpo/gate/paired.py",
    "exact unconditional test": "metagdpo/gate/paired.py",
    "probability of a region of flips": "metagdpo/gate/trinomial.py",
    "betting capital": "metagdpo/gate/betting.py",
    "Benjamini-Hochberg": "metagdpo/gate/units.py",
    "Benjamini-Yekutieli": "metagdpo/gate/units.py",
    "continual metrics": "metagdpo/gate/continual_terms.py",
}


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _package(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", [p for p in MODULES if "metagdpo" in p.parts], ids=_relative)
def test_arrows_point_one_way(path):
    """A package imports only what design says it may."""
    package = path.relative_to(ROOT / "metagdpo").parts[0].removesuffix(".py")
    allowed = ARROWS.get(package, set()) | {package, "errors", "schema", ""}
    used = {_package(name) for name in imports(path) if name.split(".")[0] == "metagdpo"}
    known = {name for name in used if (ROOT / "metagdpo" / name).is_dir() or (ROOT / f"metagdpo/{name}.py").is_file()}
    assert "*" in allowed or known <= allowed, f"{_relative(path)} may not import {sorted(known - allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_third_parties_have_one_door(path):
    """A heavy third party is imported only where design gives it a door."""
    for name in {name.split(".")[0] for name in imports(path)} & set(DOORS):
        doors = DOORS[name]
        assert any(_relative(path).startswith(door) for door in doors), f"{_relative(path)} may not import {name}"


def test_pipelines_do_not_import_each_other():
    """A stage is a leaf; nothing imports it."""
    offenders = [_relative(p) for p in MODULES for name in imports(p) if name.startswith("pipelines.")]
    assert [] == offenders


@pytest.mark.parametrize(("equation", "home"), EQUATION_HOMES.items())
def test_each_equation_has_one_home(equation, home):
    """The marker `Home of:` names each equation in exactly one module."""
    homes = [
        _relative(p)
        for p in MODULES
        if any(equation in line for line in re.findall(r"Home of:(.*(?:\n(?!\n).*)*)", p.read_text(encoding="utf-8")))
    ]
    assert [home] == homes


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_every_module_imports(path):
    """No module fails to load."""
    importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def test_command_line_is_light():
    """`metagdpo --help` loads no heavy package."""
    code = "import sys, metagdpo.cli; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set() == set(loaded) & {"torch", "transformers", "mlflow", "lm_eval", "peft", "numpy", "scipy", "dvc"}


def test_no_pickle_and_no_remote_code():
    """The library never loads pickles, never runs code from models, never starts a shell."""
    forbidden = re.compile(r"torch\.load\(|pickle\.load|joblib|yaml\.load\(.*Loader|shell=True|trust_remote_code=True")
    assert [] == [_relative(p) for p in MODULES if forbidden.search(p.read_text(encoding="utf-8"))]
