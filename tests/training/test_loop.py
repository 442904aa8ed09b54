"""The whole loop on the tiny model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metagdpo.errors import DataError, EvidenceError, ModelError
from metagdpo.models.load import load_model, load_tokenizer
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.sft import Sft
from metagdpo.records.group import ResponseGroup, ScoredResponse
from metagdpo.records.reference import ReferenceIdentity
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.training_step import TrainingStep
from metagdpo.schema import read_jsonl
from metagdpo.training.collate import group_sequences
from metagdpo.training.loop import groups_of_step, learning_rate, samples_of_step, train
from metagdpo.training.model import save_candidate
from metagdpo.training.reference import reference_log_probs
from metagdpo.training.settings import LoraParams, SequenceParams, TrainParams

SEQUENCES = SequenceParams(max_length=200)
IDENTITY = ReferenceIdentity(
    weights="w", tokenizer="t", chat_template="c", groups="g", context_free="f", dtype="float32"
)
PARAMS = TrainParams(
    lora=LoraParams(r=2, alpha=4),
    objective=Gdpo(pairs="all", link="logsigmoid"),
    context_free_weight=0.1,
    context_free_per_step=2,
    learning_rate=5e-3,
    epochs=2,
    groups_per_step=2,
    checkpoint_every=2,
)
GOOD, BAD = "the answer is 5", "no"


def a_group(number, rewards=(1.5, 0.0, 0.5, 0.0)):
    texts = (GOOD, BAD, "box 5", "no answer")
    responses = tuple(
        ScoredResponse(index=i, teacher="t", text=f"{texts[i]} {number}", finish_reason="stop", correct=reward,
                       well_formed=True, reward=reward, advantage=0.0)
        for i, reward in enumerate(rewards)
    )  # fmt: skip
    return ResponseGroup(
        question_id=f"q{number}", prompt=f"{number} + 5?", responses=responses, degenerate=len(set(rewards)) == 1
    )


GROUPS = [*(a_group(i) for i in range(5)), a_group(9, (0.0, 0.0, 0.0, 0.0))]
SAMPLES = [
    ContextFreeSample(index=i, prefix_ids=(1,), token_ids=tuple(range(10 + i, 20 + 2 * i)), text="", ended=False,
                      model="w", temperature=1.0, top_p=1.0, seed=0)
    for i in range(3)
]  # fmt: skip


def run(directory: Path, work: Path, params=PARAMS, *, groups=GROUPS, log=lambda *_: None, references=None):
    torch.set_num_threads(1)
    base, tokenizer = load_model(directory, "float32"), load_tokenizer(directory)
    if references is None:
        sequences = list(group_sequences(tokenizer, groups, SEQUENCES))
        found = reference_log_probs(base, sequences, SEQUENCES, journal=work / "reference", identity=IDENTITY)
        references = {each.key: each for each in found}
    return train(
        base, tokenizer, groups, context_free=SAMPLES, references=references, params=params, sequences=SEQUENCES,
        seed=7, work=work, run_key="key", log=log,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_model_dir, tmp_path_factory):
    work, logged = tmp_path_factory.mktemp("loop"), []
    return run(tiny_model_dir, work, log=lambda step, values: logged.append((step, dict(values)))), work, logged


def test_counts_say_what_was_trained_on(trained):
    result, _, _ = trained
    assert (result.steps, result.n_groups, result.n_skipped_groups, result.n_truncated) == (6, 5, 1, 0)


def test_the_first_loss_is_ln_2(trained):
    """Before the first update policy and reference are the same model, so every margin is 0 up to float32 rounding."""
    first = trained[0].metrics[0].values
    assert first["objective"] == pytest.approx(0.6931471805599453, abs=1e-5)
    assert first["log_ratio_group"] == pytest.approx(0.0, abs=1e-3)
    assert first["loss"] == pytest.approx(first["objective"] + 0.1 * first["cfs_nll"])


def test_training_orders_the_responses(trained):
    last = trained[0].metrics[-1].values
    assert last["ordering_accuracy"] == 1.0
    assert last["log_ratio_best"] > last["log_ratio_worst"]
    assert all(step.values["advantage_alignment"] > 0 for step in trained[0].metrics)


def test_every_step_is_in_the_file_and_was_logged(trained):
    result, work, logged = trained
    assert list(read_jsonl(work / "metrics.jsonl", TrainingStep)) == list(result.metrics)
    assert logged == [(step.step, step.values | step.speed) for step in result.metrics]


def test_a_finished_training_is_not_repeated(trained, tiny_model_dir):
    result, work, _ = trained
    again = run(tiny_model_dir, work)
    assert again.metrics == result.metrics
    for a, b in zip(again.model.parameters(), result.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_killed_and_rerun_ends_with_the_same_bits(tiny_model_dir, tmp_path, method):
    """SIGKILL after step 3 (the checkpoint is at 2), rerun: candidate and metrics as if it had never happened."""
    script = [sys.executable, __file__, str(tiny_model_dir)]
    for name, kill_at in (("whole", "never"), ("torn", "3"), ("torn", "never")):
        ended = subprocess.run([*script, str(tmp_path / name), method, kill_at], check=False, capture_output=True)
        assert ended.returncode == (0 if kill_at == "never" else -signal.SIGKILL), ended.stderr.decode()[-2000:]
    weights = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    whole, torn = (load_file(tmp_path / name / "candidate" / weights) for name in ("whole", "torn"))
    assert whole.keys() == torn.keys()
    assert all(torch.equal(whole[name], torn[name]) for name in whole)
    steps = [
        [json.loads(line)["values"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "torn")
    ]
    assert steps[0] == steps[1]


def test_no_anchor_leaves_no_anchor_metric(tiny_model_dir, tmp_path):
    """What does not apply is absent, never zero; SFT needs no anchor."""
    params = PARAMS.model_copy(update={"context_free_weight": 0.0, "context_free_per_step": 0, "epochs": 1,
                                       "objective": Sft()})  # fmt: skip
    result = run(tiny_model_dir, tmp_path, params)
    assert all("cfs_nll" not in step.values for step in result.metrics)
    assert result.metrics[0].values["loss"] == result.metrics[0].values["objective"]


def test_groups_without_preference_are_refused(tiny_model_dir, tmp_path):
    with pytest.raises(DataError, match="none of the 1 groups has two different rewards"):
        run(tiny_model_dir, tmp_path, groups=GROUPS[-1:])


def test_a_missing_reference_is_refused_before_training(tiny_model_dir, tmp_path):
    with pytest.raises(EvidenceError, match="no reference log-probability for q0/0"):
        run(tiny_model_dir, tmp_path, references={})


def test_divergence_stops_with_advice(tiny_model_dir, tmp_path):
    with pytest.raises(ModelError, match=r"diverged at step \d.*Lower train.learning_rate"):
        run(tiny_model_dir, tmp_path, PARAMS.model_copy(update={"learning_rate": 1e30, "warmup_ratio": 0.0}))


def test_an_epoch_visits_each_group_once_in_its_own_order():
    epochs = [[i for step in range(3 * e, 3 * e + 3) for i in groups_of_step(5, step, 2, seed=1)] for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4]] * 2
    assert epochs[0] != epochs[1]


def test_context_free_samples_are_used_evenly():
    used = [i for step in range(6) for i in samples_of_step(4, step, 2, seed=1)]
    assert [used.count(i) for i in range(4)] == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.5, 1, 1, 1, 1, 1]), ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
     ("cosine", [0.5, 1, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])],
)  # fmt: skip
def test_the_learning_rate_rises_then_falls(schedule, expected):
    """Six steps, a third of them warm-up; progress of step t is (t - 2) / 4, cos(pi/4) = sqrt(1/2)."""
    params = PARAMS.model_copy(update={"schedule": schedule, "warmup_ratio": 1 / 3, "learning_rate": 1.0})
    assert [learning_rate(step, 6, params) for step in range(6)] == pytest.approx(expected)


def _main(directory: Path, work: Path, method: str, kill_at: str) -> None:
    def log(step, _values):
        if str(step) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    result = run(directory, work, PARAMS.model_copy(update={"method": method}), log=log)
    save_candidate(result.model, work / "candidate", reference="asset:tiny", base_directory=directory)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
