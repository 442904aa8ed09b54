"""evaluate: base + suites -> ItemScore, bound to the digests of the model.

Stages, so that each measurement is made once: `python -m pipelines.evaluate base`; `... noise`, the base again under
the settings of `evaluate.noise`: what numerics alone can change; and `... comparison`, the base on the items, and in
the batches, of the comparison, whose runs are paired with it.
"""

import functools
import sys
from pathlib import Path
from typing import Any

from metagdpo.evaluation.harness import EvaluateParams, evaluate_to
from metagdpo.evaluation.suite import load_suites
from metagdpo.models.load import load_model, load_tokenizer, locate, verify
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.runs import Run, base_run, read_comparison
from metagdpo.schema import read_record, write_jsonl

ROLES = ("base", "noise", "comparison")


def main(role: str) -> None:
    """Score the base on every suite."""
    run = base_run(read_comparison()) if role == "comparison" else Run(evaluation=Path("evaluations") / role)
    base = run.section("base", BaseParams)
    settings = run.section("evaluate", EvaluateParams)
    dtype: str = base.dtype
    out = run.evaluation
    if role == "noise":
        if settings.noise is None:
            write_jsonl(out / "scores.jsonl", [])
            done("evaluate_noise", f"nothing to {out} (`evaluate.noise` is null)", "docs/gate.md says what it is for")
            return
        dtype = settings.noise.dtype or dtype
        settings = settings.model_copy(update={"batch_size": settings.noise.batch_size})
    origin = read_record(Path("data/base.json"), ModelIdentity)
    directory = locate(base.model)
    verify(origin, directory)

    @functools.cache
    def load() -> tuple[Any, Any]:
        return load_model(directory, dtype), load_tokenizer(directory)

    found = evaluate_to(out, load, origin, load_suites(Path("registry/suites")), settings, dtype=dtype)
    done(f"evaluate_{role}", found, "`metagdpo gate plan` says what these suites can show")


if __name__ == "__main__":
    if sys.argv[1:] not in [[role] for role in ROLES]:
        raise SystemExit(f"usage: python -m pipelines.evaluate {'|'.join(ROLES)}")
    run_stage(f"evaluate_{sys.argv[1]}", lambda: main(sys.argv[1]))
