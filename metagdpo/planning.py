"""What this project's suites can show under its policy: the plan, and the noise floor that bounds every margin."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from metagdpo.errors import ConfigError
from metagdpo.evaluation.pairing import NOISE, pair
from metagdpo.evaluation.suite import Suite
from metagdpo.gate import hypotheses
from metagdpo.gate.decide import SuiteInfo
from metagdpo.gate.plan import Assumptions, PlannedSuite, SuitePlan, effective_margin, plan
from metagdpo.gate.policy import Policy, check_suites
from metagdpo.records.item_score import EvaluationManifest, ItemScore
from metagdpo.records.noise import Noise, NoiseFloors
from metagdpo.schema import read_jsonl, read_record

UNKNOWN = 0.5  # a base of which nothing is known: the score at which most can happen


def suite_infos(suites: Iterable[Suite]) -> list[SuiteInfo]:
    """What the gate needs to know about the suites besides their scores."""
    return [SuiteInfo(suite=s.name, tier=s.tier, skill=s.skill, chance=s.chance) for s in suites]


def planned_suites(
    policy: Policy, suites: Sequence[Suite], measured: Mapping[str, Sequence[ItemScore]]
) -> tuple[PlannedSuite, ...]:
    """The suites as the plan wants them.

    Args:
        policy: Margins and gains.
        suites: All suites.
        measured: The base's scores by suite. A suite without is planned with what its file states.

    Raises:
        ConfigError: The policy names an unknown suite.
    """
    check_suites(policy, [suite.name for suite in suites])
    rows = []
    for suite in suites:
        found = measured.get(suite.name, ())
        clusters = {(score.cluster, score.item_id if score.cluster is None else "") for score in found}
        stated = suite.measured.accuracy if suite.measured else UNKNOWN
        rows.append(
            PlannedSuite(
                suite=suite.name,
                tier=suite.tier,
                n_items=len(found) or suite.n_items,
                base=sum(score.score for score in found) / len(found) if found else stated,
                chance=suite.chance,
                margin=policy.margin(suite.name),
                gain=policy.gains.get(suite.name, 0.0),
                n_clusters=len(clusters) if any(score.cluster for score in found) else None,
            )
        )
    return tuple(rows)


def make_plan(
    policy: Policy, suites: Sequence[PlannedSuite], *, flip_rate: float | None = None
) -> tuple[SuitePlan, ...]:
    """What each suite can show at the policy's alpha and power; `flip_rate` replaces the policy's assumption."""
    rate = policy.expected_flip_rate if flip_rate is None else flip_rate
    return plan(suites, Assumptions(alpha=policy.alpha, power=policy.power, flip_rate=rate, min_items=policy.min_items))


def base_scores(folder: Path) -> dict[str, list[ItemScore]]:
    """The base's scores by suite; none where nothing was measured yet.

    Raises:
        DataError: The file is damaged.
    """
    scores: dict[str, list[ItemScore]] = {}
    if (folder / "scores.jsonl").exists():
        for score in read_jsonl(folder / "scores.jsonl", ItemScore):
            scores.setdefault(score.suite, []).append(score)
    return scores


def read_evaluation(folder: Path) -> tuple[list[ItemScore], EvaluationManifest]:
    """Scores and manifest as the stage `evaluate` wrote them.

    Raises:
        DataError: A file is missing or damaged.
    """
    return list(read_jsonl(folder / "scores.jsonl", ItemScore)), read_record(
        folder / "manifest.json", EvaluationManifest
    )


def measure_noise(base: Path, other: Path, policy: Policy) -> NoiseFloors:
    """Compare the base with itself under other numerics.

    Args:
        base: Folder of the base's evaluation.
        other: Folder of its second evaluation; without a manifest nothing was measured.
        policy: Its alpha decides how wide the floor is.

    Raises:
        EvidenceError: The two differ in more than what an A/A run varies.
    """
    if not (other / "manifest.json").is_file():
        return NoiseFloors(other={})
    before, first = read_evaluation(base)
    after, second = read_evaluation(other)
    pairs = pair(before, first, after, second, reference=first.model, candidate=first.model, differing=NOISE)
    rows = []
    for suite, found in pairs.items():
        shown = hypotheses.compare(found, hypotheses.absolute(0.0), policy.alpha)
        n, lost, gained = hypotheses.counts(found)
        difference = sum(item.candidate - item.before for item in found) / n
        floor = max(-shown.low, shown.high)
        rows.append(Noise(suite=suite, n_items=n, flips=lost + gained, difference=difference, floor=floor))
    changed = {
        field: f"{getattr(first, field)} -> {getattr(second, field)}"
        for field in sorted(NOISE)
        if getattr(first, field) != getattr(second, field)
    }
    return NoiseFloors(other=changed, suites=tuple(rows))


def check_margins(suites: Sequence[PlannedSuite], noise: NoiseFloors) -> None:
    """Refuse margins that the base itself would not pass when only the numerics change.

    Raises:
        ConfigError: Names every such suite with its margin and its floor.
    """
    floors = {row.suite: row for row in noise.suites}
    lines = []
    for suite in suites:
        row, margin = floors.get(suite.suite), effective_margin(suite)
        if row is None or suite.tier in {"watched", "target"} or margin >= row.floor:
            continue
        lines.append(
            f"  {suite.suite}: the margin is {100 * margin:.2f} points, and the base measured twice "
            f"({'; '.join(f'{name} {change}' for name, change in noise.other.items())}) differs on {row.flips} of "
            f"{row.n_items} items, which cannot tell differences below {100 * row.floor:.2f} points from noise"
        )
    if lines:
        message = "\n".join(["registry/policy.yaml sets margins below the noise floor:", *lines])
        raise ConfigError(f"{message}\nRaise these margins, add items to the suites, or watch them only.")
