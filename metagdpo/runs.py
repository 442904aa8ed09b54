"""Which training a stage works on: the main job's, or one method with one seed of the comparison.

Both go through the same scripts. A run of the comparison has params.yaml with parts of comparison.yaml laid over it,
and a folder of its own; the data, the base and the suites are shared.
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, JsonValue, model_validator

from metagdpo.errors import ConfigError
from metagdpo.params import load_yaml, validate
from metagdpo.schema import Frozen

P = TypeVar("P", bound=Frozen)
Sections = dict[str, dict[str, JsonValue]]

PARAMS = Path("params.yaml")
COMPARISON = Path("comparison.yaml")
FOLDER = Path("comparison")
RUNS = FOLDER / "runs"
BASE = FOLDER / "base"
"""The base's scores on the items, and in the batches, of the comparison."""
RESULTS = FOLDER / "results"

OF_A_METHOD = ("train", "interpolate")
"""Sections that methods may differ in. Another data set, base or measurement would be another comparison."""
OF_ALL = (*OF_A_METHOD, "evaluate")
"""Sections that the comparison may have of its own."""


class Method(Frozen):
    """One row of the comparison."""

    label: str = Field(min_length=1)
    """Name for people: tables and pictures show it."""
    changes: Sections = Field(default_factory=dict)
    """Sections of params.yaml, with what this method has instead of the shared values."""


class ComparisonParams(Frozen):
    """comparison.yaml: what is compared, and what all of it has in common."""

    compare: tuple[str, ...] = Field(min_length=1)
    """Names of the methods that run, in the order of the table."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Each method is trained once with each; the seed decides LoRA's random half and the order of the data."""
    shared: Sections = Field(default_factory=dict)
    """Sections of params.yaml, with what every method has instead of its values."""
    methods: dict[str, Method]
    """All methods by name, also those that are not compared at the moment."""

    @model_validator(mode="after")
    def _known_and_once(self) -> "ComparisonParams":
        wrong = [name for name in self.methods if not name.replace("-", "").replace("_", "").isalnum()]
        if wrong or not all(name.isascii() for name in self.methods):
            message = f"names of methods are letters, digits, - and _ (got {', '.join(wrong or self.methods)}): "
            raise ValueError(message + "folders and stages are named so")
        unknown = [name for name in self.compare if name not in self.methods]
        if unknown:
            raise ValueError("; ".join(f"compare names {name}{unknown_method(name, self.methods)}" for name in unknown))
        if len(set(self.compare)) < len(self.compare) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("compare and seeds name everything once")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds are 0 or more (got {min(self.seeds)})")
        return self

    @model_validator(mode="after")
    def _same_data_and_measurement(self) -> "ComparisonParams":
        found = [f"shared.{name}" for name in self.shared if name not in OF_ALL]
        for method, row in self.methods.items():
            found += [f"methods.{method}.changes.{name}" for name in row.changes if name not in OF_A_METHOD]
        if found:
            message = (
                f"{', '.join(found)}: all methods have the same data, base and items, so `shared` may change "
                f"{', '.join(OF_ALL)} and a method {' and '.join(OF_A_METHOD)}; the rest is set in {PARAMS}"
            )
            raise ValueError(message)
        return self


@dataclass(frozen=True)
class Run:
    """Where one training's files are, and its parameters."""

    trained: Path = Path("models/trained")
    """What train writes."""
    cost: Path = Path("models/training_cost.json")
    interpolation: Path = Path("models/interpolation.json")
    candidate: Path = Path("models/candidate")
    """What is evaluated and released: the trained weights, or a point between them and the base."""
    evaluation: Path = Path("evaluations/candidate")
    method: str | None = None
    """Name in comparison.yaml; None for the main job."""
    seed: int | None = None
    layers: tuple[Mapping[str, Any], ...] = ()
    """What is laid over params.yaml, one after the other."""

    @property
    def name(self) -> str:
        """Of its folder, and for messages; empty for the main job."""
        return "" if self.method is None else f"{self.method}-{self.seed}"

    @property
    def where(self) -> str:
        """The files that its parameters come from, for messages."""
        if self.method is None and not self.layers:
            return str(PARAMS)
        return f"{PARAMS} with {COMPARISON}" + (f" (method {self.method})" if self.method else "")

    def document(self, root: Path = Path()) -> dict[str, Any]:
        """params.yaml as this run has it, unchecked.

        Raises:
            ConfigError: It cannot be read, or lacks a section that comparison.yaml changes.
        """
        document = load_yaml(root / PARAMS)
        for layer in self.layers:
            missing = [name for name in layer if not isinstance(document, dict) or name not in document]
            if missing:
                raise ConfigError(f"{COMPARISON} changes `{missing[0]}`, and {PARAMS} has no such section.")
            for name, changes in layer.items():
                document[name] = merged(document[name], changes)
        return document if isinstance(document, dict) else {}

    def section(self, name: str, kind: type[P]) -> P:
        """One section of params.yaml, as this run has it.

        Raises:
            ConfigError: The section is missing or has problems; all are listed.
        """
        document = self.document()
        if name not in document:
            raise ConfigError(f"{PARAMS} has no section `{name}`. Every stage has one; see docs/parameters.md.")
        return validate(document[name], kind, where=self.where, prefix=name)


def read_comparison(path: Path = COMPARISON) -> ComparisonParams:
    """comparison.yaml, checked by itself; what a method's sections hold is checked where they are read.

    Raises:
        ConfigError: It is missing or has problems; all are listed.
    """
    return validate(load_yaml(path), ComparisonParams, where=str(path))


def run_of(method: str, seed: int, comparison: ComparisonParams) -> Run:
    """The run of a method with a seed.

    Raises:
        ConfigError: comparison.yaml has no such method.
    """
    if method not in comparison.methods:
        raise ConfigError(f"{COMPARISON} has no method {method}{unknown_method(method, comparison.methods)}.")
    folder = RUNS / f"{method}-{seed}"
    return Run(
        trained=folder / "trained",
        cost=folder / "training_cost.json",
        interpolation=folder / "interpolation.json",
        candidate=folder / "candidate",
        evaluation=folder / "evaluation",
        method=method,
        seed=seed,
        layers=(
            comparison.shared,
            comparison.methods[method].changes,
            {"base": {"seed": seed, "experiment": experiment()}},
        ),
    )


def runs_of(comparison: ComparisonParams) -> list[Run]:
    """Every run that comparison.yaml declares, method by method."""
    return [run_of(method, seed, comparison) for method in comparison.compare for seed in comparison.seeds]


def base_run(comparison: ComparisonParams) -> Run:
    """The base, measured as the comparison measures: what its runs are paired with."""
    return Run(evaluation=BASE, layers=(comparison.shared,))


def run_from(arguments: Sequence[str]) -> Run:
    """The run that a stage's command line names: nothing for the main job, or METHOD SEED.

    Raises:
        SystemExit: Anything else.
        ConfigError: comparison.yaml has no such method.
    """
    if not arguments:
        return Run()
    if len(arguments) != 2 or not (arguments[1].isascii() and arguments[1].isdecimal()):  # noqa: PLR2004
        print("usage: python -m pipelines.<stage> [METHOD SEED]")
        raise SystemExit(ConfigError.exit_code)
    return run_of(arguments[0], int(arguments[1]), read_comparison())


def experiment() -> str:
    """The MLflow experiment of the comparison's runs: beside the main job's, whose candidates may be released.

    Raises:
        ConfigError: params.yaml names none.
    """
    try:
        return f"{load_yaml(PARAMS)['base']['experiment']}-comparison"
    except (KeyError, TypeError):
        raise ConfigError(f"{PARAMS} has no `base.experiment`. See docs/parameters.md.") from None


def unknown_method(name: str, known: Mapping[str, Any]) -> str:
    """The end of a sentence about a method that is not there: which there are, and which was perhaps meant."""
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{hint}, which `methods` does not have: {', '.join(known)}"


def merged(old: Any, new: Any) -> Any:
    """A value with changes laid over it, leaf by leaf; a mapping with another `kind` replaces as a whole.

    A key that is nobody's is refused by the type of its section, not here.
    """
    both = isinstance(old, dict) and isinstance(new, dict)
    if not both or new.get("kind", old.get("kind")) != old.get("kind"):
        return copy.deepcopy(new)
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
