"""The forgetting gate on scores that another harness measured: base, candidate and, if there is one, the champion."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from metagdpo.errors import ConfigError, DataError
from metagdpo.exchange.inspect_log import is_inspect, read_inspect
from metagdpo.exchange.lm_eval_samples import is_lm_eval, read_lm_eval
from metagdpo.exchange.pairing import Difference, Pairing, pair
from metagdpo.exchange.score_set import Reading, ScoreSet
from metagdpo.exchange.tables import SUFFIXES, read_pairs, read_scores
from metagdpo.gate.decide import Comparison, SuiteInfo, decide
from metagdpo.gate.policy import Policy, Relative
from metagdpo.records.verdict import Against, Decision, SuiteFinding
from metagdpo.report.flips import Flip
from metagdpo.schema import Frozen

DEFAULTS = Policy(alpha=0.05, power=0.8, default_margin=0.04, min_items=1)
"""What is asked of a candidate when no policy is given."""


class Side(Frozen):
    """One model's scores: what they were read from, and what that says and is not compared."""

    kind: str
    model: dict[str, str]
    notes: dict[str, str]
    files: dict[str, str]
    """Digest of every file that was read, by name."""


class Outside(Frozen):
    """The gate's answer outside the pipeline; what `--json` writes."""

    decision: Decision
    reasons: tuple[str, ...]
    """Sentences for people, the deciding ones first."""
    findings: tuple[SuiteFinding, ...]
    flips: tuple[Flip, ...]
    """Items whose score differs between base and candidate."""
    policy: Policy
    policy_from: str
    """The policy's file, or `built-in defaults`."""
    sides: dict[str, Side]
    """`base`, `candidate` and, if there is one, `champion`."""
    identity: dict[str, str]
    """Field -> value of everything that all sides state and agree on."""
    accepted: tuple[Difference, ...]
    """Settings that differ and that a person accepted by name."""
    models: tuple[Difference, ...]
    """What names the models."""
    skipped: tuple[str, ...]
    """Patterns of suites that were left out."""


def read(path: Path, reading: Reading) -> ScoreSet:
    """Read the scores of one model; what wrote them is seen from the files.

    Args:
        path: lm-eval's output folder or results file, an Inspect log or a folder of them, or a table.
        reading: What a person chooses about reading.

    Raises:
        ConfigError: A metric, scorer or filter must be chosen.
        DataError: The path holds nothing that can be read.
        EvidenceError: Scores are missing, there twice, or not in 0..1.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    if path.suffix in SUFFIXES and path.is_file():
        return read_scores(path, reading)
    kinds = {"lm-eval": is_lm_eval(path), "Inspect": is_inspect(path)}
    found = [name for name, there in kinds.items() if there]
    if len(found) != 1:
        what = "both lm-eval's and Inspect's files" if found else "neither"
        message = (
            f"{path} holds {what}. Give lm-eval's --output_path (results_*.json with samples_*.jsonl), an Inspect log "
            "(.eval or .json) or a folder of them, or a table (.csv or .jsonl)."
        )
        raise DataError(message)
    return read_lm_eval(path, reading) if found == ["lm-eval"] else read_inspect(path, reading)


def read_both(base: Path, candidate: Path | None, reading: Reading) -> tuple[ScoreSet, ScoreSet]:
    """Read base and candidate: two sources, or one table of pairs."""
    return read_pairs(base, reading) if candidate is None else (read(base, reading), read(candidate, reading))


def compare(
    base: ScoreSet,
    candidate: ScoreSet,
    champion: ScoreSet | None,
    policy: Policy,
    *,
    policy_from: str = "built-in defaults",
    accept: Sequence[str] = (),
    chances: Mapping[str, float] | None = None,
    skipped: Sequence[str] = (),
) -> Outside:
    """Judge a candidate on scores of another harness.

    Args:
        base: Scores of the model before.
        candidate: Scores of the model after.
        champion: Scores of the current release; None when there is none.
        policy: What is asked; tiers by suite, `required` for those not named.
        policy_from: Where the policy comes from.
        accept: Patterns of settings that may differ.
        chances: Accuracy of guessing by pattern of suites, where the source does not tell it.
        skipped: What was left out, for the report.

    Raises:
        ConfigError: The policy names an unknown suite, leaves none that decides, or lacks an accuracy of guessing.
        EvidenceError: The scores must not be compared.
    """
    policy = policy.model_copy(update={"sequential": None})  # all items are scored: nothing is left to stop
    against_base = pair(base, candidate, against="base", accept=accept)
    pairings: list[tuple[Against, Pairing]] = [("base", against_base)]
    if champion is not None:
        pairings.append(("champion", pair(champion, candidate, against="champion", accept=accept)))
    infos = _infos(policy, policy_from, base, chances or {})
    comparisons = [
        Comparison(info, against, found.pairs[info.suite], len(found.pairs[info.suite]))
        for against, found in pairings
        for info in infos
    ]
    ruling = decide(policy, comparisons, None)
    sides = {"base": base, "candidate": candidate, **({"champion": champion} if champion else {})}
    return Outside(
        decision=ruling.decision,
        reasons=ruling.reasons,
        findings=ruling.findings,
        flips=_flips(against_base, base, candidate),
        policy=policy,
        policy_from=policy_from,
        sides={name: Side(kind=s.kind, model=s.model, notes=s.notes, files=s.files) for name, s in sides.items()},
        identity=_agreed(list(sides.values())),
        accepted=tuple(found for _, pairing in pairings for found in pairing.accepted),
        models=tuple(found for _, pairing in pairings for found in pairing.models),
        skipped=tuple(skipped),
    )


def _infos(policy: Policy, policy_from: str, base: ScoreSet, chances: Mapping[str, float]) -> list[SuiteInfo]:
    suites = sorted(base.suites)
    settings = {"tiers": set(policy.tiers), "margins": set(policy.margins), "gains": set(policy.gains)}
    unknown = [f"{name}.{suite}" for name, named in settings.items() for suite in sorted(named - set(suites))]
    if unknown:
        known = f"Suites are: {', '.join(suites)}."
        raise ConfigError(f"{policy_from} names suites that were not measured: {', '.join(unknown)}. {known}")
    infos = [_info(policy, suite, base, chances) for suite in suites]
    if all(info.tier == "watched" for info in infos):
        raise ConfigError(
            f"{policy_from} watches every suite, so none decides. Make at least one `required` in `tiers`."
        )
    return infos


def _info(policy: Policy, suite: str, base: ScoreSet, chances: Mapping[str, float]) -> SuiteInfo:
    said = next((chance for pattern, chance in chances.items() if fnmatchcase(suite, pattern)), None)
    chance = base.chances.get(suite) if said is None else said
    if chance is None and isinstance(policy.margin(suite), Relative):
        message = (
            f"suite {suite}: a relative margin is a share of what lies above guessing, and the scores do not tell what "
            f"guessing reaches. Say it: --chance {suite}=0.25 (0 for written answers)."
        )
        raise ConfigError(message)
    return SuiteInfo(suite=suite, tier=policy.tiers.get(suite, "required"), skill=suite, chance=chance or 0.0)


def _flips(pairing: Pairing, base: ScoreSet, candidate: ScoreSet) -> tuple[Flip, ...]:
    return tuple(
        Flip(
            suite=suite,
            item_id=score.item_id,
            kind="lost" if score.before > score.candidate else "gained",
            base_answer=base.suites[suite][score.item_id].answer or "",
            candidate_answer=candidate.suites[suite][score.item_id].answer or "",
        )
        for suite, pairs in pairing.pairs.items()
        for score in pairs
        if score.before != score.candidate
    )


def _agreed(sides: Sequence[ScoreSet]) -> dict[str, str]:
    first, *others = sides
    return {
        name: text for name, text in sorted(first.identity.items()) if all(o.identity.get(name) == text for o in others)
    }
