"""gate: scores of candidate, base and champion, drift, policy -> Verdict and report; leaves with 0 whatever it says.

What was trained on is compared with the suites once more: the pool was, but responses and context-free samples are
written by models. Left out: what an on-policy run's own policy wrote, of which no file is kept.
"""

from pathlib import Path

from metagdpo.evaluation.items import Item
from metagdpo.evaluation.pairing import pair
from metagdpo.evaluation.suite import load_suites
from metagdpo.gate.comparisons import comparisons, designs
from metagdpo.gate.decide import decide
from metagdpo.gate.policy import Policy, read_policy
from metagdpo.gate.units import find_units
from metagdpo.overlap import Index, training_overlaps
from metagdpo.planning import read_evaluation, suite_infos
from metagdpo.progress import done, run_stage
from metagdpo.records.candidate import Candidate
from metagdpo.records.champion import Champion
from metagdpo.records.drift import Drift, DriftSample
from metagdpo.records.interpolation import Interpolation
from metagdpo.records.item_score import EvaluationManifest, ItemScore
from metagdpo.records.item_units import ItemUnits
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.noise import NoiseFloors
from metagdpo.records.paired import PairedScore
from metagdpo.records.training_step import TrainingStep
from metagdpo.records.verdict import Verdict
from metagdpo.report.flips import find_flips
from metagdpo.report.report import write_report
from metagdpo.schema import digest_file, read_jsonl, read_record, write_json, write_record
from metagdpo.trained_on import trained_on

CANDIDATE = Path("models/candidate/candidate.json")
EVALUATIONS = Path("evaluations")
INTERPOLATION = Path("models/interpolation.json")
POLICY = Path("registry/policy.yaml")
NOISE = Path("data/noise.json")
UNITS = Path("data/suite_units.jsonl")


def main() -> None:
    """Compare item by item, decide, and write down why."""
    policy, candidate = read_policy(POLICY), read_record(CANDIDATE, Candidate)
    champion = read_record(Path("data/champion.json"), Champion)
    drift = read_record(EVALUATIONS / "candidate/drift.json", Drift)
    base_scores, base_manifest = read_evaluation(EVALUATIONS / "base")
    scores, manifest = read_evaluation(EVALUATIONS / "candidate")
    base = pair(base_scores, base_manifest, scores, manifest, reference=candidate.base, candidate=candidate.identity)
    declared = load_suites(Path("registry/suites"))
    suites = suite_infos(declared)
    found = comparisons(
        policy,
        suites,
        champion,
        base,
        _champions_pairs(policy, champion, scores, manifest, candidate),
        designs(base_scores),
    )
    items = {suite.name: list(read_jsonl(Path(f"data/suites/{suite.name}.jsonl"), Item)) for suite in declared}
    overlaps = training_overlaps(Index(items, policy.overlap), trained_on(candidate.data))
    ruling = decide(policy, found, drift, overlaps)
    units = {(row.suite, row.item_id): row.units for row in read_jsonl(UNITS, ItemUnits)}
    verdict = Verdict(
        decision=ruling.decision,
        reasons=ruling.reasons,
        findings=ruling.findings,
        units=find_units(base, units, policy, {suite.suite: suite.chance for suite in suites}),
        drift=drift,
        overlaps=overlaps,
        noise=read_record(NOISE, NoiseFloors).suites,
        alpha=policy.alpha,
        policy=digest_file(POLICY),
        candidate=candidate.identity,
        base=candidate.base,
        champion=champion,
        run_key=candidate.run_key,
        data=candidate.data,
        evidence={str(path): digest_file(path) for path in _evidence()},
    )
    write_record(Path("reports/verdict.json"), verdict)
    write_json(
        Path("reports/metrics.json"),
        {
            "decision": verdict.decision,
            "drift_nats_per_token": drift.kl_per_token,
            "training_overlaps": sum(overlaps.suites.values()),
            **{
                f"{f.suite}_vs_{f.against}": {"before": f.before, "candidate": f.candidate, "low": f.low}
                for f in verdict.findings
            },
        },
    )
    write_report(
        Path("reports"),
        verdict,
        candidate,
        metrics=[
            {"step": step.step, **step.values}
            for step in read_jsonl(Path("models/candidate/metrics.jsonl"), TrainingStep)
        ],
        flips=find_flips(base_scores, scores, units),
        drift_samples=[
            sample.nats_per_token for sample in read_jsonl(EVALUATIONS / "candidate/drift_samples.jsonl", DriftSample)
        ],
        drift_cap=policy.max_kl_per_token,
        unit_fdr=policy.unit_fdr,
        interpolation=read_record(INTERPOLATION, Interpolation),
    )
    print(f"[gate] {verdict.decision}: {verdict.reasons[0]}")
    done(
        "gate", "reports/verdict.json, report.md and report.html", "open reports/report.html, or `metagdpo gate check`"
    )


def _champions_pairs(
    policy: Policy, champion: Champion, scores: list[ItemScore], manifest: EvaluationManifest, candidate: Candidate
) -> dict[str, list[PairedScore]] | None:
    """Scores paired with the champion's; None when there is none, or when the policy looks at the base only."""
    if champion.version is None or not policy.champion:
        return None
    identity = read_record(EVALUATIONS / "champion/identity.json", ModelIdentity)
    before, measured = read_evaluation(EVALUATIONS / "champion")
    return pair(before, measured, scores, manifest, reference=identity, candidate=candidate.identity)


def _evidence() -> list[Path]:
    """Every file that the verdict was reached on."""
    names = ("scores.jsonl", "manifest.json", "identity.json", "drift.json")
    roles = ("base", "candidate", "champion")
    present = [path for role in roles for name in names if (path := EVALUATIONS / role / name).is_file()]
    return [*present, UNITS, NOISE]


if __name__ == "__main__":
    run_stage("gate", main)
