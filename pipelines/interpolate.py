"""interpolate: trained weights + suites -> Candidate at the alpha that serves target and retention best (Wise-FT).

With one alpha nothing is measured: [1.0], the default, hands the trained weights on as they are.
`python -m pipelines.interpolate` is the main job; `... METHOD SEED` is one run of the comparison.
"""

import functools
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metagdpo.comparison.pace import keep_time
from metagdpo.evaluation.harness import EvaluateParams, accuracy, evaluate
from metagdpo.evaluation.items import Item
from metagdpo.evaluation.suite import Suite, load_suites
from metagdpo.evaluation.validation import (
    InterpolateParams,
    choose_alpha,
    choosing_suites,
    measured_point,
    validation_items,
)
from metagdpo.models.load import load_model, load_tokenizer, locate, verify
from metagdpo.params import BaseParams
from metagdpo.progress import done, note, run_stage
from metagdpo.records.group import ResponseGroup
from metagdpo.records.interpolation import Interpolation, ValidationSuite
from metagdpo.records.item_score import documents_digest
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.runs import Run, run_from
from metagdpo.schema import read_jsonl, read_record, write_jsonl, write_record
from metagdpo.training.interpolate import interpolate_candidate
from metagdpo.training.model import load_candidate

WORK = Path(".work/interpolate")
ONE_ALPHA = "one alpha is given, so there is nothing to choose"
RULE = (
    "the largest {target:g} x mean change on target suites + {retention:g} x mean change on required and safety suites "
    "against the base, on items that the gate does not see; of equal ones the smallest alpha"
)
Measure = Callable[[ModelIdentity, Callable[[], Any]], dict[str, float]]
"""Accuracy of each suite, of the model with this identity; it is loaded only if it was not measured before."""


def main(run: Run) -> None:
    """Choose a point between base and trained weights, and write it as the candidate."""
    found = _interpolate(run)
    keep_time(run, "interpolate")
    curve = ", ".join(f"{point.alpha:g} {100 * point.gain:+.1f}" for point in found.points)
    wrote = f"the candidate at alpha {found.chosen:g} to {run.candidate}"
    wrote += f" (gain in points by alpha: {curve})" if curve else " (one alpha, nothing was measured)"
    done("interpolate", wrote, f"evaluate_candidate measures it; {run.interpolation} says how alpha was chosen")


def _interpolate(run: Run) -> Interpolation:
    settings = run.section("interpolate", InterpolateParams)
    base = run.section("base", BaseParams)
    origin, directory = read_record(Path("data/base.json"), ModelIdentity), locate(base.model)
    verify(origin, directory)
    if settings.chooses:
        found = _chosen(run, settings, base, origin, directory)
    else:
        found = Interpolation(chosen=settings.alphas[0], rule=ONE_ALPHA, retention=settings.retention)
    interpolate_candidate(run.trained, directory, run.candidate, found.chosen)
    write_record(run.interpolation, found)
    return found


def _chosen(
    run: Run, settings: InterpolateParams, base: BaseParams, origin: ModelIdentity, directory: Path
) -> Interpolation:
    """Measure the base and every alpha on the validation items, and choose."""
    suites = choosing_suites(load_suites(Path("registry/suites")), settings.retention)
    work = WORK / (run.name or "main")
    validation = [_write_items(suite, work / "items", settings.n_items) for suite in suites]
    measure = _measure(suites, work / "items", run.section("evaluate", EvaluateParams), base, directory)
    before = measure(origin, lambda: load_model(directory, base.dtype))
    place = functools.partial(
        measured_point,
        base=before,
        tiers={suite.name: suite.tier for suite in suites},
        retention=settings.retention,
    )
    points = [place(0.0, origin.weights, before)]
    point = work / "point"
    try:
        for alpha in settings.alphas:
            note("interpolate", f"alpha {alpha:g}")
            identity = interpolate_candidate(run.trained, directory, point, alpha).identity
            # From the files that would be released, so that what is measured is what is chosen.
            found = measure(identity, lambda: load_candidate(point, directory, base.dtype))
            points.append(place(alpha, identity.adapter or identity.weights, found))
    finally:
        shutil.rmtree(point, ignore_errors=True)
    return Interpolation(
        chosen=choose_alpha(points),
        rule=RULE.format(target=1 - settings.retention, retention=settings.retention),
        retention=settings.retention,
        suites=tuple(validation),
        points=tuple(points),
    )


def _write_items(suite: Suite, folder: Path, n_items: int) -> ValidationSuite:
    """The suite's validation items, for the harness to read; says so when there are fewer than wanted."""
    own = read_jsonl(Path(f"data/suites/{suite.name}.jsonl"), Item)
    groups = read_jsonl(Path("data/groups.jsonl"), ResponseGroup)
    items = validation_items(suite, own, Path("assets"), n_items, groups)
    write_jsonl(folder / f"{suite.name}.jsonl", items)
    if len(items) < n_items:
        note("interpolate", f"{suite.name} has only {len(items)} items left to choose on, of {n_items} wanted")
    return ValidationSuite(
        suite=suite.name,
        tier=suite.tier,
        n_items=len(items),
        n_wanted=n_items,
        documents=documents_digest((item.id, item.doc, item.target, item.cluster) for item in items),
    )


def _measure(
    suites: Sequence[Suite], items: Path, settings: EvaluateParams, base: BaseParams, directory: Path
) -> Measure:
    """Scores on the validation items; kept under the weights' digests, so that all runs share those of the base."""

    def measure(identity: ModelIdentity, load: Callable[[], Any]) -> dict[str, float]:
        scores, _ = evaluate(
            lambda: (load(), load_tokenizer(directory)),
            identity,
            suites,
            items,
            dtype=base.dtype,
            batch_size=settings.batch_size,
            items_per_look=settings.items_per_look,
            max_items=None,
            work=WORK / "scores",
        )
        return accuracy(scores)

    return measure


if __name__ == "__main__":
    run_stage("interpolate", lambda: main(run_from(sys.argv[1:])), of=sys.argv[1:])
