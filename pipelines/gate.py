"""gate: ItemScore of base and candidate, drift, policy -> Verdict and report; leaves with 0 whatever the verdict."""

from pathlib import Path

from metagdpo.evaluation.pairing import pair
from metagdpo.evaluation.suite import load_suites
from metagdpo.gate.decide import SuiteInfo, decide
from metagdpo.gate.policy import read_policy
from metagdpo.progress import done, run_stage
from metagdpo.records.candidate import Candidate
from metagdpo.records.drift import Drift, DriftSample
from metagdpo.records.item_score import EvaluationManifest, ItemScore
from metagdpo.records.training_step import TrainingStep
from metagdpo.records.verdict import Verdict
from metagdpo.report.flips import find_flips
from metagdpo.report.report import write_report
from metagdpo.schema import digest_file, read_jsonl, read_record, write_json, write_record

CANDIDATE = Path("models/candidate/candidate.json")
POLICY = Path("registry/policy.yaml")
EVIDENCE = (
    "evaluations/base/scores.jsonl",
    "evaluations/base/manifest.json",
    "evaluations/candidate/scores.jsonl",
    "evaluations/candidate/manifest.json",
    "evaluations/candidate/drift.json",
)


def main() -> None:
    """Compare item by item, decide, and write down why."""
    policy = read_policy(POLICY)
    candidate = read_record(CANDIDATE, Candidate)
    scores = {
        side: list(read_jsonl(Path(f"evaluations/{side}/scores.jsonl"), ItemScore)) for side in ("base", "candidate")
    }
    manifests = {
        side: read_record(Path(f"evaluations/{side}/manifest.json"), EvaluationManifest)
        for side in ("base", "candidate")
    }
    drift = read_record(Path("evaluations/candidate/drift.json"), Drift)
    pairs = pair(scores["base"], manifests["base"], scores["candidate"], manifests["candidate"], candidate=candidate)
    suites = [
        SuiteInfo(suite=suite.name, tier=suite.tier, skill=suite.skill, chance=suite.chance)
        for suite in load_suites(Path("registry/suites"))
    ]
    ruling = decide(policy, pairs, suites, drift)
    verdict = Verdict(
        decision=ruling.decision,
        reasons=ruling.reasons,
        findings=ruling.findings,
        drift=drift,
        alpha=policy.alpha,
        policy=digest_file(POLICY),
        candidate=candidate.identity,
        base=candidate.base,
        run_key=candidate.run_key,
        data=candidate.data,
        evidence={path: digest_file(Path(path)) for path in EVIDENCE},
    )
    write_record(Path("reports/verdict.json"), verdict)
    write_json(
        Path("reports/metrics.json"),
        {
            "decision": verdict.decision,
            "drift_nats_per_token": drift.kl_per_token,
            **{f.suite: {"base": f.base, "candidate": f.candidate, "low": f.low} for f in verdict.findings},
        },
    )
    steps = read_jsonl(Path("models/candidate/metrics.jsonl"), TrainingStep)
    samples = read_jsonl(Path("evaluations/candidate/drift_samples.jsonl"), DriftSample)
    write_report(
        Path("reports"),
        verdict,
        candidate,
        metrics=[{"step": step.step, **step.values} for step in steps],
        flips=find_flips(scores["base"], scores["candidate"]),
        drift_samples=[sample.nats_per_token for sample in samples],
        drift_cap=policy.max_kl_per_token,
    )
    print(f"[gate] {verdict.decision}: {verdict.reasons[0]}")
    done(
        "gate", "reports/verdict.json, report.md and report.html", "open reports/report.html, or `metagdpo gate check`"
    )


if __name__ == "__main__":
    run_stage("gate", main)
