"""Evidence: a run is judged as a candidate is, and only on files of this training on this data."""

from pathlib import Path

import pytest

from metagdpo.comparison.evidence import Court, current_candidate, judge
from metagdpo.errors import EvidenceError, MetagdpoError
from metagdpo.gate.decide import SuiteInfo
from metagdpo.gate.policy import Policy
from metagdpo.records.candidate import Candidate
from metagdpo.records.drift import Drift
from metagdpo.records.interpolation import Interpolation
from metagdpo.records.item_score import EvaluationManifest, ItemScore, SuiteRun, documents_digest
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.overlap import TrainingOverlaps
from metagdpo.records.training_cost import TrainingCost
from metagdpo.runs import read_comparison, run_of
from metagdpo.schema import digest_file, write_jsonl, write_record
from metagdpo.training.settings import TrainParams

PARAMS = """base: {model: m, dtype: float32, seed: 5, experiment: toy}
train: {method: full, learning_rate: 1e-4}
interpolate: {alphas: [0.5, 1.0], n_items: 4, retention: 0.5}
"""
COMPARISON = """compare: [sft]
seeds: [1]
shared: {train: {objective: {kind: sft}}}
methods: {sft: {label: SFT}}
"""
BASE = ModelIdentity(reference="m", weights="w", config="c", tokenizer="t", chat_template="m")
TUNED = BASE.model_copy(update={"weights": "tuned"})
N = 200
POLICY = Policy(alpha=0.05, power=0.8, default_margin=0.04, min_items=100)
SUITES = [SuiteInfo(suite="birds", tier="required", skill="birds", chance=0.0)]
NOTHING = TrainingOverlaps(n_texts=3, suites={}, examples=())


def scores(n_right):
    return [
        ItemScore(suite="birds", item_id=f"i{i}", doc="d", prompt="p", target="t", score=float(i < n_right), answer="")
        for i in range(N)
    ]


def manifest(model, **changes):
    documents = documents_digest((f"i{i}", "d", "t", None) for i in range(N))
    run = SuiteRun(suite="birds", task="task", documents=documents, n_items=N, n_scored=N)
    values = {"harness": "lm-eval 0", "dtype": "float32", "batch_size": 8, "items_per_look": 32}
    return EvaluationManifest(model=model, suites=(run,), **values | changes)


def court(policy=POLICY, overlaps=NOTHING):
    return Court(policy, SUITES, scores(150), manifest(BASE), lambda _data: overlaps)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run that lost 2 of the 150 items that the base has right."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "comparison.yaml").write_text(COMPARISON)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/groups.jsonl").write_text("groups\n")
    monkeypatch.chdir(tmp_path)
    found = run_of("sft", 1, read_comparison())
    write_candidate(found)
    write_record(found.interpolation, Interpolation(chosen=1.0, rule="one", retention=0.5))
    write_record(found.cost, TrainingCost(n_steps=3, n_tokens=90, seconds=7.0, peak_memory_gb=1.5))
    write_jsonl(found.evaluation / "scores.jsonl", scores(148))
    write_record(found.evaluation / "manifest.json", manifest(TUNED))
    drift = Drift(kl_per_token=0.1, low=0.05, high=0.15, n_samples=4, n_tokens=40)
    write_record(found.evaluation / "drift.json", drift)
    return found


def write_candidate(run, **changes):
    values = {
        "identity": TUNED,
        "base": BASE,
        "method": "full",
        "objective": "sft",
        "run_key": "sha256:key",
        "data": {"data/groups.jsonl": digest_file(Path("data/groups.jsonl"))},
        "params": {"train": run.section("train", TrainParams).model_dump(mode="json")},
        "steps": 3,
        "n_groups": 8,
        "n_skipped_groups": 0,
        "files": {},
    }
    write_record(run.candidate / "candidate.json", Candidate(**values | changes))


def test_a_run_is_judged_like_a_candidate_against_the_base(run):
    gated = judge(run, "SFT", court())
    (finding,) = gated.result.findings
    assert ("sft", "SFT", 1, "PROMOTE") == (
        gated.result.method,
        gated.result.label,
        gated.result.seed,
        gated.result.decision,
    )
    assert ("base", -2 / N, 2, 0) == (finding.against, finding.difference, finding.lost, finding.gained)
    assert N == len(gated.pairs["birds"])
    assert -2 == sum(pair.candidate - pair.before for pair in gated.pairs["birds"])


def test_cost_drift_alpha_and_key_are_those_of_the_run(run):
    result = judge(run, "SFT", court()).result
    assert (7.0, 0.1, 1.0, "sha256:key") == (
        result.cost.seconds,
        result.drift.kl_per_token,
        result.alpha,
        result.run_key,
    )


def test_a_proven_loss_blocks(run):
    write_jsonl(run.evaluation / "scores.jsonl", scores(100))
    assert "BLOCK" == judge(run, "SFT", court()).result.decision


def test_training_data_that_repeats_a_suite_blocks_as_in_the_main_job(run):
    overlaps = TrainingOverlaps(n_texts=3, suites={"birds": 1}, examples=())
    result = judge(run, "SFT", court(overlaps=overlaps)).result
    assert "BLOCK" == result.decision
    assert "repeats items of the suites" in result.reasons[0]


def test_the_champion_and_its_ratchet_are_left_out(run):
    assert POLICY.champion, "the policy would compare with one"
    assert {"base"} == {finding.against for finding in judge(run, "SFT", court()).result.findings}


def test_a_cap_on_drift_counts(run):
    capped = POLICY.model_copy(update={"max_kl_per_token": 0.01})
    assert "BLOCK" == judge(run, "SFT", court(capped)).result.decision


@pytest.mark.parametrize("part", ["candidate", "cost", "interpolation", "scores", "manifest", "drift"])
def test_a_missing_file_is_a_run_that_is_not_finished(run, part):
    path = {
        "candidate": run.candidate / "candidate.json",
        "cost": run.cost,
        "interpolation": run.interpolation,
        "scores": run.evaluation / "scores.jsonl",
        "manifest": run.evaluation / "manifest.json",
        "drift": run.evaluation / "drift.json",
    }[part]
    path.unlink()
    with pytest.raises(EvidenceError, match=f"not finished: {path} is not there"):
        current_candidate(run)


def test_a_candidate_of_other_parameters_is_no_evidence(run, tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS.replace("1e-4", "2e-4"))
    with pytest.raises(EvidenceError, match=r"another `train` than .*comparison\.yaml \(method sft\)"):
        current_candidate(run)


def test_a_candidate_of_other_data_is_no_evidence(run, tmp_path):
    (tmp_path / "data/groups.jsonl").write_text("other groups\n")
    with pytest.raises(EvidenceError, match=r"trained on another data/groups\.jsonl"):
        current_candidate(run)


def test_a_candidate_of_data_that_is_gone_is_no_evidence(run, tmp_path):
    (tmp_path / "data/groups.jsonl").unlink()
    with pytest.raises(EvidenceError, match=r"trained on another data/groups\.jsonl"):
        current_candidate(run)


def test_a_section_that_no_stage_knows_is_no_evidence(run):
    write_candidate(run, params={"unheard": {}})
    with pytest.raises(EvidenceError, match="another `unheard`"):
        current_candidate(run)


@pytest.mark.parametrize("chosen", [0.5, 0.25])
def test_another_alpha_than_the_candidates_is_no_evidence(run, chosen):
    write_record(run.interpolation, Interpolation(chosen=chosen, rule="one", retention=0.5))
    with pytest.raises(EvidenceError, match="is not of this candidate"):
        current_candidate(run)


def test_an_alpha_that_is_no_longer_tried_is_no_evidence(run, tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS.replace("[0.5, 1.0]", "[0.5]"))
    with pytest.raises(EvidenceError, match="of other alphas"):
        current_candidate(run)


def test_scores_of_another_candidate_are_no_evidence(run):
    write_record(run.evaluation / "manifest.json", manifest(TUNED.model_copy(update={"weights": "older"})))
    with pytest.raises(EvidenceError, match="evaluation is of another candidate"):
        current_candidate(run)


def test_scores_measured_in_another_way_than_the_bases_are_not_compared(run):
    write_record(run.evaluation / "manifest.json", manifest(TUNED, batch_size=4))
    with pytest.raises(EvidenceError, match="batch_size differs"):
        judge(run, "SFT", court())


def test_a_damaged_file_is_named(run):
    (run.candidate / "candidate.json").write_text("{")
    with pytest.raises(MetagdpoError, match=r"candidate\.json is not a Candidate"):
        current_candidate(run)
