"""evaluate_candidate: candidate + suites -> ItemScore and drift; stops early when the policy allows it.

The evaluation ends as soon as the verdict is certain against the base and the champion, whose scores are there already.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metagdpo import params
from metagdpo.evaluation.drift import estimate_drift
from metagdpo.evaluation.harness import EvaluateParams, evaluate_to
from metagdpo.evaluation.rounds import Stop
from metagdpo.evaluation.suite import Suite, load_suites
from metagdpo.gate.comparisons import comparisons, designs
from metagdpo.gate.decide import finished_suites
from metagdpo.gate.policy import read_policy
from metagdpo.models.load import load_tokenizer, locate, verify
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
from metagdpo.schema import read_jsonl, read_record, write_jsonl, write_record
from metagdpo.training.candidate import read_manifest
from metagdpo.training.collate import context_free_sequences
from metagdpo.training.model import load_candidate
from metagdpo.training.reference import bound_to, reference_log_probs
from metagdpo.training.settings import SequenceParams

CANDIDATE = Path("models/candidate")
EVALUATIONS = Path("evaluations")
HELD_OUT = Path("data/context_free_held_out.jsonl")


def main() -> None:
    """Score the candidate, as far as the policy wants it, and measure how far it has moved."""
    base = params.section("base", BaseParams)
    settings = params.section("evaluate", EvaluateParams)
    sequences = params.section("reference", SequenceParams)
    origin = read_record(Path("data/base.json"), ModelIdentity)
    directory = locate(origin.reference)
    verify(origin, directory)

    @functools.cache
    def load() -> tuple[Any, Any]:
        return load_candidate(CANDIDATE, directory, base.dtype), load_tokenizer(directory)

    identity, suites = read_manifest(CANDIDATE).identity, load_suites(Path("registry/suites"))
    out = EVALUATIONS / "candidate"
    found = evaluate_to(out, load, identity, suites, settings, dtype=base.dtype, stop=_stop_rule(suites))
    _drift(load()[0], identity, base, sequences)
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


def _drift(model: Any, identity: ModelIdentity, section: BaseParams, settings: SequenceParams) -> None:
    """KL(base || candidate) on the held-out context-free samples; the base's side was computed in `reference`."""
    out = EVALUATIONS / "candidate"
    samples = list(read_jsonl(HELD_OUT, ContextFreeSample))
    before = {row.key: row for row in read_jsonl(Path("data/reference.jsonl"), ReferenceLogProb)}
    validity = bound_to(identity, section.dtype, groups=None, context_free=HELD_OUT)
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
    run_stage("evaluate_candidate", main)
