"""release: Verdict -> registry version, aliases and ledger line; fails the run when the verdict is not PROMOTE.

It always runs, finds what is already there, and writes MLflow's runs and versions from the files when they are gone.
"""

from datetime import UTC, datetime
from pathlib import Path

from metagdpo import params
from metagdpo.errors import NotPromoted
from metagdpo.lineage.manifest import dvc_md5s, provenance
from metagdpo.lineage.store import open_client, tracking_uri
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.item_score import EvaluationManifest, ItemScore
from metagdpo.records.training_step import TrainingStep
from metagdpo.records.verdict import Verdict
from metagdpo.release.describe import describe
from metagdpo.release.model_registry import ModelRegistry
from metagdpo.release.promote import ReleaseOutcome, release
from metagdpo.release.score_history import BASE, keep, scores_of
from metagdpo.schema import digest_file, read_jsonl, read_record
from metagdpo.training.candidate import identify_candidate, read_manifest
from metagdpo.training.tracking import run_facts, sync_run

ROOT = Path()
DIRECTORY = Path("models/candidate")
REPORTS = Path("reports")
SCORES = Path("registry/scores")


def main() -> None:
    """Make MLflow and the ledger agree with the files."""
    base = params.section("base", BaseParams)
    verdict = read_record(REPORTS / "verdict.json", Verdict)
    candidate = read_manifest(DIRECTORY)
    origin = provenance(ROOT)
    client = open_client(tracking_uri(ROOT))
    facts = run_facts(
        base.experiment,
        candidate.run_key,
        candidate.params,
        candidate.data,
        md5s=dvc_md5s(ROOT, candidate.data),
        git_commit=origin.git_commit,
        alpha=candidate.alpha,
    )
    steps = [(step.step, step.values) for step in read_jsonl(DIRECTORY / "metrics.jsonl", TrainingStep)]
    run_id = sync_run(client, facts, steps, verdict=verdict, report=REPORTS, note=describe(verdict, candidate))
    try:
        outcome = release(
            verdict,
            DIRECTORY,
            identity=identify_candidate(DIRECTORY, candidate.base),
            policy=digest_file(Path("registry/policy.yaml")),
            root=ROOT,
            ledger_path=Path("registry/ledger.jsonl"),
            lock=Path(".work/release.lock"),
            registry=ModelRegistry(client, base.experiment, base.experiment),
            run_id=run_id,
            provenance=origin,
            recorded_at=datetime.now(UTC).isoformat(timespec="seconds"),
            report=REPORTS / "report.html",
        )
    except NotPromoted as refusal:
        print(f"[release] {verdict.decision}: `dvc repro` ends red on purpose; all evidence is kept.")
        raise refusal from None
    _keep_scores(base.experiment, outcome)
    print(f"[release] {outcome.text}")
    if outcome.action == "unchanged":
        print("[release] next: `make ui` shows it")
        return
    done(
        "release",
        f"version {outcome.version} of `{base.experiment}` (champion: {outcome.champion}) and the ledger",
        "`make ui` shows it; commit dvc.lock, registry/ledger.jsonl and registry/scores",
    )


def _keep_scores(name: str, outcome: ReleaseOutcome) -> None:
    """The row of this release, and the base's, for the matrix over all releases (`metagdpo gate history`)."""
    rows = {"base": (BASE, None, ()), "candidate": (outcome.version, outcome.entry.verdict, outcome.entry.trained)}
    for role, (version, digest, trained) in rows.items():
        folder = Path("evaluations") / role
        scores = read_jsonl(folder / "scores.jsonl", ItemScore)
        manifest = read_record(folder / "manifest.json", EvaluationManifest)
        row = scores_of(scores, manifest, model_name=name, version=version, verdict=digest, trained=trained)
        keep(SCORES, row)


if __name__ == "__main__":
    run_stage("release", main)
