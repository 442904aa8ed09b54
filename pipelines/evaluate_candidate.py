"""evaluate_candidate: candidate + suites -> ItemScore and drift; stops early when the policy allows it.

The evaluation ends as soon as the verdict is certain against the base and the champion, whose scores are there already.
A run of the comparison (`... METHOD SEED`) answers every item: methods are compared on the same ones.
"""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metagdpo.comparison.pace import keep_time
from metagdpo.evaluation.drift import drift_of
from metagdpo.evaluation.harness import EvaluateParams, evaluate_to
from metagdpo.evaluation.rounds import Stop
from metagdpo.evaluation.suite import Suite, load_suites
from metagdpo.gate.comparisons import comparisons, designs
from metagdpo.gate.decide import finished_suites
from metagdpo.gate.policy import read_policy
from metagdpo.models.load import load_model, load_tokenizer, locate, verify
from metagdpo.params import BaseParams
from metagdpo.planning import suite_infos
from metagdpo.progress import done, run_stage
from metagdpo.records.champion import Champion
from metagdpo.records.drift import DriftSample
from metagdpo.records.item_score import ItemScore
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.paired import PairedScore
from metagdpo.records.reference import ReferenceLogProb
from metagdpo.records.sample import ContextFreeSample
from metagdpo.runs import Run, run_from
from metagdpo.schema import read_jsonl, read_record, write_jsonl, write_record
from metagdpo.training.candidate import read_manifest
from metagdpo.training.collate import context_free_sequences
from metagdpo.training.drift_meter import measure
from metagdpo.training.logprobs import Scorer
from metagdpo.training.model import load_candidate
from metagdpo.training.reference import bound_to
from metagdpo.training.settings import SequenceParams

EVALUATIONS = Path("evaluations")
Load = Callable[[], tuple[Any, Any]]
"""Gives the base and the candidate."""
HELD_OUT = Path("data/context_free_held_out.jsonl")


def main(run: Run) -> None:
    """Score the candidate, as far as the policy wants it, and measure how far it has moved."""
    base = run.section("base", BaseParams)
    settings = run.section("evaluate", EvaluateParams)
    sequences = run.section("reference", SequenceParams)
    origin = read_record(Path("data/base.json"), ModelIdentity)
    directory = locate(origin.reference)
    verify(origin, directory)

    @functools.cache
    def load() -> tuple[Any, Any]:
        return load_candidate(run.candidate, directory, base.dtype), load_tokenizer(directory)

    identity, suites = read_manifest(run.candidate).identity, load_suites(Path("registry/suites"))
    stop = _stop_rule(suites) if run.method is None else None
    found = evaluate_to(run.evaluation, load, identity, suites, settings, dtype=base.dtype, stop=stop)
    _drift(run.evaluation, lambda: (load_model(directory, base.dtype), load()[0]), origin, base, sequences)
    keep_time(run, "evaluate")
    done("evaluate_candidate", found, "the gate compares item by item")


def _stop_rule(suites: Sequence[Suite]) -> Stop | None:
    """Ends the evaluation of suites that are decided against every reference; None when the policy wants all items."""
    policy = read_policy(Path("registry/policy.yaml"))
    if policy.sequential is None:
        return None
    champion = read_record(Path("data/champion.json"), Champion)
    infos = suite_infos(suites)
    before = list(read_jsonl(EVALUATIONS / "base/scores.jsonl", ItemScore))
    champions = list(read_jsonl(EVALUATIONS / "champion/scores.jsonl", ItemScore))
    planned = designs(before)

    def stop(so_far: Mapping[str, Sequence[ItemScore]]) -> frozenset[str]:
        against_base = _pairs_so_far(before, so_far)
        against_champion = _pairs_so_far(champions, so_far) if champions else None
        found = comparisons(policy, infos, champion, against_base, against_champion, planned)
        return finished_suites(policy, found)

    return stop


def _pairs_so_far(
    reference: Sequence[ItemScore], so_far: Mapping[str, Sequence[ItemScore]]
) -> dict[str, list[PairedScore]]:
    """Pairs by position, only to decide when to stop: the gate pairs again and refuses what does not fit."""
    before: dict[str, list[ItemScore]] = {}
    for score in reference:
        before.setdefault(score.suite, []).append(score)
    return {
        suite: [
            PairedScore(item_id=one.item_id, before=one.score, candidate=other.score, cluster=one.cluster)
            for one, other in zip(before.get(suite, []), scores, strict=False)
        ]
        for suite, scores in so_far.items()
    }


def _drift(out: Path, load: Load, identity: ModelIdentity, section: BaseParams, settings: SequenceParams) -> None:
    """KL(base || candidate) on the held-out context-free samples; the base's side is computed once."""
    base, candidate = load()
    sequences = list(context_free_sequences(read_jsonl(HELD_OUT, ContextFreeSample)))
    moved = measure(
        Scorer(base),
        Scorer(candidate),
        sequences,
        {row.key: row for row in read_jsonl(Path("data/reference.jsonl"), ReferenceLogProb)},
        settings,
        identity=bound_to(identity, section.dtype, groups=None, context_free=HELD_OUT),
        work=Path(".work/drift"),
    )
    drift = drift_of(
        [text.exact for text in moved], [text.log_ratio for text in moved], [text.n_tokens for text in moved]
    )
    write_record(out / "drift.json", drift)
    rows = [
        DriftSample(key=text.key, nats_per_token=text.exact / text.n_tokens, log_ratio=text.log_ratio / text.n_tokens)
        for text in moved
    ]
    write_jsonl(out / "drift_samples.jsonl", rows)


if __name__ == "__main__":
    run_stage("evaluate_candidate", lambda: main(run_from(sys.argv[1:])), of=sys.argv[1:])
