"""Ready-made candidates, verdicts and MLflow stores for the tests of release, lineage and tracking."""

import atexit
import functools
import json
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from metagdpo.lineage.manifest import Provenance
from metagdpo.lineage.store import open_client
from metagdpo.records.candidate import Candidate
from metagdpo.records.drift import Drift
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.verdict import SuiteFinding, Verdict
from metagdpo.release import ledger
from metagdpo.release.incumbent import champion_for
from metagdpo.release.model_registry import ModelRegistry
from metagdpo.release.promote import release
from metagdpo.schema import digest_file, digest_record, digest_text, write_record
from metagdpo.training.tracking import run_facts, sync_run

EXPERIMENT = "unit"
COMMIT = "c" * 40
PROVENANCE = Provenance(git_commit=COMMIT, dvc_lock=digest_text("lock"))
TOOK_ALL = {"PROMOTE": "non_inferior", "BLOCK": "worse", "INCONCLUSIVE": "undecided"}


@functools.cache
def _template():
    """An empty migrated SQLite store; making the schema takes seconds, copying it does not."""
    folder = Path(tempfile.mkdtemp(prefix="metagdpo-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    open_client(f"sqlite:///{folder / 'mlflow.db'}")._tracking_client.store._dispose_engine()
    return folder / "mlflow.db"


def fresh_client(folder):
    """A client of a new, empty, real SQLite store in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_template(), folder / "mlflow.db")
    return open_client(f"sqlite:///{folder / 'mlflow.db'}")


def write_safetensors(path, seed):
    """One tensor, two numbers, written by hand: the format is a header length, a JSON header, and bytes."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", seed, -seed))


def make_candidate(root, seed=1, alpha=1.0):
    """Write a LoRA candidate with its manifest to root/models/candidate; at another alpha of the same training."""
    directory = root / "models" / "candidate"
    directory.mkdir(parents=True, exist_ok=True)
    write_safetensors(directory / "adapter_model.safetensors", alpha * seed)
    (directory / "adapter_config.json").write_text('{"r": 8}')
    base = ModelIdentity(
        reference="asset:tiny",
        weights=digest_text("weights"),
        config=digest_text("config"),
        tokenizer=digest_text("tokenizer"),
        chat_template=digest_text("template"),
        licence="Apache-2.0",
    )
    names = ("adapter_config.json", "adapter_model.safetensors")
    candidate = Candidate(
        identity=base.model_copy(update={"adapter": digest_file(directory / "adapter_model.safetensors")}),
        base=base,
        method="lora",
        objective="gdpo",
        run_key=digest_text(f"run {seed}"),
        data={"data/groups.jsonl": digest_text("groups"), "data/context_free_train.jsonl": digest_text("cfs")},
        params={
            "base": {"seed": 1, "model": "asset:tiny"},
            "train": {"lr": 2e-6, "method": "lora", "objective": {"kind": "gdpo", "beta": 0.1}},
        },
        steps=3,
        n_groups=8,
        n_skipped_groups=2,
        files={name: digest_file(directory / name) for name in names},
        alpha=alpha,
    )
    write_record(directory / "candidate.json", candidate)
    return candidate


def make_verdict(root, candidate, decision="PROMOTE"):
    """A verdict on one suite, with score files that exist, measured against the champion of the ledger in `root`."""
    entries = ledger.read(root / "registry" / "ledger.jsonl")
    champion = champion_for(entries, "unit", digest_record(candidate))
    for name in ("base", "candidate"):
        path = root / "evaluations" / name / "scores.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} {candidate.run_key}\n")
    policy = root / "registry" / "policy.yaml"
    policy.parent.mkdir(exist_ok=True)
    policy.write_text("alpha: 0.05\n")
    scores = [f"evaluations/{name}/scores.jsonl" for name in ("base", "candidate")]
    worse = decision == "BLOCK"
    return Verdict(
        decision=decision,
        reasons=(f"arithmetic | is {TOOK_ALL[decision]}",),
        findings=(
            SuiteFinding(
                suite="arc_easy",
                tier="required",
                skill="school science",
                n_items=500,
                n_planned=500,
                before=0.5,
                candidate=0.3 if worse else 0.51,
                difference=-0.2 if worse else 0.01,
                low=-0.24 if worse else -0.01,
                high=-0.16 if worse else 0.03,
                lost=110,
                gained=10,
                margin=0.03,
                chance=0.25,
                method="exact",
                p_non_inferior=0.5,
                p_worse=0.5,
                outcome=TOOK_ALL[decision],
                power_if_unchanged=0.9,
                items_needed=None,
            ),
        ),
        drift=Drift(kl_per_token=0.01, low=0.005, high=0.015, n_samples=10, n_tokens=200),
        alpha=0.05,
        policy=digest_file(policy),
        candidate=candidate.identity,
        base=candidate.base,
        champion=champion,
        run_key=candidate.run_key,
        data=candidate.data,
        evidence={name: digest_file(root / name) for name in scores},
    )


def facts_of(candidate):
    """What the run of a candidate says about itself."""
    facts = run_facts(
        EXPERIMENT,
        candidate.run_key,
        candidate.params,
        candidate.data,
        md5s=dict.fromkeys(candidate.data, "0" * 32),
        git_commit=COMMIT,
        alpha=candidate.alpha,
    )
    return facts.model_copy(update={"data": tuple(item.model_copy(update={"rows": 8}) for item in facts.data)})


@dataclass(frozen=True)
class Project:
    """A project's root with one candidate, its verdict, and a store."""

    root: Path
    client: object
    candidate: Candidate
    verdict: Verdict

    @property
    def ledger(self):
        return self.root / "registry" / "ledger.jsonl"

    def registry(self, client=None):
        return ModelRegistry(client or self.client, "unit", EXPERIMENT)

    def sync(self, client=None):
        steps = [(step, {"loss": 1.0 / step}) for step in range(1, 4)]
        return sync_run(client or self.client, facts_of(self.candidate), steps, verdict=self.verdict)

    def release(self, client=None, **changes):
        arguments = {
            "identity": self.candidate.identity,
            "policy": self.verdict.policy,
            "root": self.root,
            "ledger_path": self.ledger,
            "lock": self.root / ".work" / "release.lock",
            "registry": self.registry(client),
            "provenance": PROVENANCE,
            "recorded_at": "2026-01-01T00:00:00+00:00",
            "report": Path("reports/report.html"),
        } | changes
        run_id = changes.pop("run_id", None) or self.sync()
        arguments["run_id"] = run_id
        return release(self.verdict, self.root / "models" / "candidate", **arguments)


def project(root, client, seed=1, decision="PROMOTE", alpha=1.0):
    """Make a candidate with its verdict in `root`; the ledger there, if any, is kept."""
    candidate = make_candidate(root, seed, alpha)
    return Project(root, client, candidate, make_verdict(root, candidate, decision))
