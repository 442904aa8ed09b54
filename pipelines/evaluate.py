"""evaluate: model + suites -> ItemScore, bound to the digests of the model; for the candidate its drift as well.

`python -m pipelines.evaluate base` and `... candidate` are two stages, so that the base is measured once.
"""

import sys
from pathlib import Path
from typing import Any

from metagdpo import params
from metagdpo.evaluation.drift import estimate_drift
from metagdpo.evaluation.harness import EvaluateParams, accuracy, evaluate
from metagdpo.evaluation.suite import load_suites
from metagdpo.models.load import load_model, load_tokenizer, locate, verify
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.drift import DriftSample
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.reference import ReferenceLogProb
from metagdpo.records.sample import ContextFreeSample
from metagdpo.schema import read_jsonl, read_record, write_jsonl, write_record
from metagdpo.training.candidate import read_manifest
from metagdpo.training.collate import context_free_sequences
from metagdpo.training.model import load_candidate
from metagdpo.training.reference import bound_to, reference_log_probs
from metagdpo.training.settings import SequenceParams

CANDIDATE = Path("models/candidate")
HELD_OUT = Path("data/context_free_held_out.jsonl")
ROLES = ("base", "candidate")


def main(role: str) -> None:
    """Score one of the two models on every suite."""
    base = params.section("base", BaseParams)
    settings = params.section("evaluate", EvaluateParams)
    sequences = params.section("reference", SequenceParams)
    origin = read_record(Path("data/base.json"), ModelIdentity)
    directory = locate(base.model)
    verify(origin, directory)
    loaded: list[Any] = []

    def load() -> tuple[Any, Any]:
        if not loaded:
            if role == "base":
                model = load_model(directory, base.dtype)
            else:
                model = load_candidate(CANDIDATE, directory, base.dtype)
            loaded.extend([model, load_tokenizer(directory)])
        return loaded[0], loaded[1]

    identity = origin if role == "base" else read_manifest(CANDIDATE).identity
    scores, manifest = evaluate(
        load,
        identity,
        load_suites(Path("registry/suites")),
        Path("data/suites"),
        dtype=base.dtype,
        batch_size=settings.batch_size,
        max_items=settings.max_items,
        work=Path(".work/evaluate"),
    )
    out = Path("evaluations") / role
    write_jsonl(out / "scores.jsonl", scores)
    write_record(out / "manifest.json", manifest)
    if role == "candidate":
        _drift(load()[0], identity, base, sequences, out)
    listed = ", ".join(f"{suite} {100 * value:.1f} %" for suite, value in accuracy(scores).items())
    done(f"evaluate_{role}", f"{len(scores)} scores to {out}/scores.jsonl ({listed})", "the gate compares item by item")


def _drift(model: Any, identity: ModelIdentity, base: BaseParams, settings: SequenceParams, out: Path) -> None:
    """KL(base || candidate) on the held-out context-free samples; the base's side was computed in `reference`."""
    samples = list(read_jsonl(HELD_OUT, ContextFreeSample))
    before = {row.key: row for row in read_jsonl(Path("data/reference.jsonl"), ReferenceLogProb)}
    validity = bound_to(identity, base.dtype, groups=None, context_free=HELD_OUT)
    after = list(
        reference_log_probs(
            model, list(context_free_sequences(samples)), settings, journal=Path(".work/drift"), identity=validity
        )
    )
    drift = estimate_drift(
        [before[row.key].log_prob for row in after], [row.log_prob for row in after], [row.n_tokens for row in after]
    )
    write_record(out / "drift.json", drift)
    rows = [
        DriftSample(key=row.key, nats_per_token=(before[row.key].log_prob - row.log_prob) / row.n_tokens)
        for row in after
    ]
    write_jsonl(out / "drift_samples.jsonl", rows)


if __name__ == "__main__":
    if sys.argv[1:] not in [[role] for role in ROLES]:
        raise SystemExit(f"usage: python -m pipelines.evaluate {'|'.join(ROLES)}")
    run_stage(f"evaluate_{sys.argv[1]}", lambda: main(sys.argv[1]))
