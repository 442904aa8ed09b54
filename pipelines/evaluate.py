"""evaluate: model + suites -> ItemScore, bound to the digests of the model; for the candidate its drift as well.

One stage for each role (`python -m pipelines.evaluate base`), so that each model is measured once:

    base        before anything was trained
    noise       the base again, under the settings of `evaluate.noise`: what numerics alone can change
    champion    the release that the candidate has to stand up to; nothing when there is none
    candidate   stops early when the policy allows it and the verdict is certain
"""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metagdpo import params
from metagdpo.evaluation.drift import estimate_drift
from metagdpo.evaluation.harness import EvaluateParams, accuracy, evaluate
from metagdpo.evaluation.rounds import Stop
from metagdpo.evaluation.suite import Suite, load_suites
from metagdpo.gate.comparisons import comparisons, designs
from metagdpo.gate.decide import SuiteInfo, finished_suites
from metagdpo.gate.policy import read_policy
from metagdpo.lineage.store import open_client, tracking_uri
from metagdpo.models.load import load_model, load_tokenizer, locate, verify
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.champion import Champion
from metagdpo.records.drift import DriftSample
from metagdpo.records.item_score import ItemScore
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.paired import PairedScore
from metagdpo.records.reference import ReferenceLogProb
from metagdpo.records.sample import ContextFreeSample
from metagdpo.release.incumbent import fetch
from metagdpo.release.model_registry import ModelRegistry
from metagdpo.schema import read_jsonl, read_record, write_jsonl, write_record
from metagdpo.training.candidate import read_manifest
from metagdpo.training.collate import context_free_sequences
from metagdpo.training.model import load_candidate
from metagdpo.training.reference import bound_to, reference_log_probs
from metagdpo.training.settings import SequenceParams

CANDIDATE = Path("models/candidate")
EVALUATIONS = Path("evaluations")
HELD_OUT = Path("data/context_free_held_out.jsonl")
SUITES = Path("registry/suites")
WORK = Path(".work/evaluate")
Load = Callable[[], tuple[Any, Any]]


def base() -> None:
    """Score the base."""
    origin, load = _base()
    _score("base", origin, load, params.section("evaluate", EvaluateParams))


def noise() -> None:
    """Score the base a second time under other numerics; without `evaluate.noise` there is nothing to do."""
    settings = params.section("evaluate", EvaluateParams)
    if settings.noise is None:
        _nothing("noise", "`evaluate.noise` is null: the noise floor is not measured")
        return
    dtype = settings.noise.dtype or params.section("base", BaseParams).dtype
    origin, load = _base(dtype)
    _score("noise", origin, load, settings.model_copy(update={"batch_size": settings.noise.batch_size}), dtype=dtype)


def champion() -> None:
    """Score the release that the candidate is compared with besides the base."""
    found = read_record(Path("data/champion.json"), Champion)
    if found.version is None:
        _nothing("champion", "there is no release before this candidate")
        return
    section = params.section("base", BaseParams)
    registry = ModelRegistry(open_client(tracking_uri(Path())), section.experiment, section.experiment)
    directory = fetch(found, registry, Path(".work/champion"))
    released = read_manifest(directory)
    load = _adapted(directory, released.base, section.dtype)
    _score("champion", released.identity, load, params.section("evaluate", EvaluateParams))
    write_record(EVALUATIONS / "champion/identity.json", released.identity)


def candidate() -> None:
    """Score the candidate, as far as the policy wants it, and measure how far it has moved."""
    section = params.section("base", BaseParams)
    manifest = read_manifest(CANDIDATE)
    load = _adapted(CANDIDATE, read_record(Path("data/base.json"), ModelIdentity), section.dtype)
    suites = load_suites(SUITES)
    _score("candidate", manifest.identity, load, params.section("evaluate", EvaluateParams), stop=_stop_rule(suites))
    _drift(load()[0], manifest.identity, section, params.section("reference", SequenceParams))


ROLES = {"base": base, "noise": noise, "champion": champion, "candidate": candidate}


def _base(dtype: str | None = None) -> tuple[ModelIdentity, Load]:
    section = params.section("base", BaseParams)
    origin = read_record(Path("data/base.json"), ModelIdentity)
    directory = locate(section.model)
    verify(origin, directory)

    @functools.cache
    def load() -> tuple[Any, Any]:
        return load_model(directory, dtype or section.dtype), load_tokenizer(directory)

    return origin, load


def _adapted(directory: Path, origin: ModelIdentity, dtype: str) -> Load:
    """A trained model on the base that it was trained from."""
    base_directory = locate(origin.reference)
    verify(origin, base_directory)

    @functools.cache
    def load() -> tuple[Any, Any]:
        return load_candidate(directory, base_directory, dtype), load_tokenizer(base_directory)

    return load


def _score(
    role: str,
    identity: ModelIdentity,
    load: Load,
    settings: EvaluateParams,
    *,
    dtype: str | None = None,
    stop: Stop | None = None,
) -> None:
    scores, manifest = evaluate(
        load,
        identity,
        load_suites(SUITES),
        Path("data/suites"),
        dtype=dtype or params.section("base", BaseParams).dtype,
        batch_size=settings.batch_size,
        items_per_look=settings.items_per_look,
        max_items=settings.max_items,
        work=WORK,
        stop=stop,
    )
    out = EVALUATIONS / role
    write_jsonl(out / "scores.jsonl", scores)
    write_record(out / "manifest.json", manifest)
    listed = ", ".join(f"{suite} {100 * value:.1f} %" for suite, value in accuracy(scores).items())
    planned = sum(run.n_items for run in manifest.suites)
    spared = f" of {planned}, the verdict is certain" if len(scores) < planned else ""
    done(
        f"evaluate_{role}", f"{len(scores)} scores{spared} to {out}/scores.jsonl ({listed})", "the gate compares items"
    )


def _nothing(role: str, why: str) -> None:
    write_jsonl(EVALUATIONS / role / "scores.jsonl", [])
    done(f"evaluate_{role}", f"nothing to {EVALUATIONS / role} ({why})", "docs/gate.md says what it is for")


def _stop_rule(suites: Sequence[Suite]) -> Stop | None:
    """Ends the evaluation of suites that are decided against every reference; None when the policy wants all items."""
    policy = read_policy(Path("registry/policy.yaml"))
    if policy.sequential is None:
        return None
    champion = read_record(Path("data/champion.json"), Champion)
    infos = [SuiteInfo(suite=s.name, tier=s.tier, skill=s.skill, chance=s.chance) for s in suites]
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
    if len(sys.argv) != 2 or sys.argv[1] not in ROLES:  # noqa: PLR2004  (the script and one role)
        raise SystemExit(f"usage: python -m pipelines.evaluate {'|'.join(ROLES)}")
    run_stage(f"evaluate_{sys.argv[1]}", ROLES[sys.argv[1]])
