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

from metagdpo.errors import ConfigError, DataError, EvidenceError, ModelError
from metagdpo.models.load import load_model, load_tokenizer
from metagdpo.objectives.anchors import ContextFree, Ewc, KlToBase, L2Sp, SelfDialogues
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.sft import Sft
from metagdpo.records.group import ResponseGroup, ScoredResponse
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue, SelfTurn
from metagdpo.records.training_step import TrainingStep
from metagdpo.schema import read_jsonl
from metagdpo.training.anchoring import samples_of_step
from metagdpo.training.collate import context_free_sequences, group_sequences
from metagdpo.training.gauge import best_step
from metagdpo.training.logprobs import Scorer
from metagdpo.training.loop import learning_rate, train
from metagdpo.training.model import save_candidate
from metagdpo.training.reference import score_batches
from metagdpo.training.settings import EarlyStop, Flow, LoraParams, SequenceParams, Stm, TrainParams
from metagdpo.training.step_plan import groups_of_step

SEQUENCES = SequenceParams(max_length=200)
PARAMS = TrainParams(
    lora=LoraParams(r=2, alpha=4),
    objective=Gdpo(pairs="all", link="logsigmoid"),
    anchors=(ContextFree(weight=0.1, per_step=2),),
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
    ContextFreeSample(index=i, prefix="bos", prefix_ids=(1,), token_ids=tuple(range(10 + i, 20 + 2 * i)), text="",
                      ended=False, model="w", temperature=1.0, top_p=1.0, max_new_tokens=96, seed=0)
    for i in range(3)
]  # fmt: skip


DIALOGUES = [
    SelfDialogue(index=i, model="w", temperature=0.7, top_p=0.9, max_new_tokens=24, turns=tuple(
        SelfTurn(role=role, template_ids=(1, 40 + k), token_ids=tuple(range(50 + i, 55 + 2 * i + k)), text="",
                 ended=True, seed=0)
        for k, role in enumerate(("user", "assistant"))
    ))
    for i in range(3)
]  # fmt: skip
HELD_OUT = [sample.model_copy(update={"index": 10 + i}) for i, sample in enumerate(SAMPLES)]


def references_of(base, tokenizer, groups=GROUPS):
    sequences = [*group_sequences(tokenizer, groups, SEQUENCES), *context_free_sequences(HELD_OUT)]
    return {each.key: each for found in score_batches(Scorer(base), sequences, SEQUENCES) for each in found}


def run(
    directory: Path,
    work: Path,
    params=PARAMS,
    *,
    groups=GROUPS,
    log=lambda *_: None,
    references="cached",
    dtype="float32",
):
    torch.set_num_threads(1)
    base, tokenizer = load_model(directory, dtype), load_tokenizer(directory)
    if references == "cached":
        references = references_of(load_model(directory, dtype), tokenizer, groups)
    return train(
        base, tokenizer, groups, context_free=SAMPLES, references=references, params=params, sequences=SEQUENCES,
        seed=7, work=work, run_key="key", held_out=HELD_OUT, self_dialogues=DIALOGUES, log=log,
    )  # fmt: skip


def weights(result):
    return {name: value for name, value in result.model.named_parameters() if value.requires_grad}


def update(**values):
    return PARAMS.model_copy(update=values)


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


def test_the_token_ratio_says_what_shared_prompts_save(trained, tiny_model_dir):
    """Over the last step, which has one group: G (P + R) / (P + G R), by the lengths of its sequences."""
    tokenizer = load_tokenizer(tiny_model_dir)
    (last,) = groups_of_step(5, 5, 2, 7)
    sequences = list(group_sequences(tokenizer, [GROUPS[last]], SEQUENCES))
    n_prompt, n_responses = len(sequences[0].prompt_ids), sum(each.n_computed for each in sequences)
    expected = (4 * n_prompt + n_responses) / (n_prompt + n_responses)
    assert trained[0].metrics[-1].values["token_ratio"] == pytest.approx(expected)


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


@pytest.mark.parametrize("last", range(6))
def test_stopped_after_any_step_it_ends_with_the_same_bits(trained, tiny_model_dir, tmp_path, last):
    """An exception instead of a kill, at every step: before, at and after checkpoints, and after the last."""

    def stop(step, _values):
        if step == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny_model_dir, tmp_path, log=stop)
    again = run(tiny_model_dir, tmp_path)
    assert [step.values for step in again.metrics] == [step.values for step in trained[0].metrics]
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(trained[0]).items())


def test_no_anchor_leaves_no_anchor_metric(tiny_model_dir, tmp_path):
    """What does not apply is absent, never zero; SFT needs no anchor."""
    params = PARAMS.model_copy(update={"anchors": (), "epochs": 1,
                                       "objective": Sft()})  # fmt: skip
    result = run(tiny_model_dir, tmp_path, params)
    assert all("cfs_nll" not in step.values for step in result.metrics)
    assert result.metrics[0].values["loss"] == result.metrics[0].values["objective"]


def test_with_and_without_cached_references_the_trajectory_is_the_same(tiny_model_dir, tmp_path):
    """Same bits: steps, weights, order of data (it is in the steps) and the random state that is left."""
    torch.manual_seed(1)
    cached = run(tiny_model_dir, tmp_path / "cached")
    state = torch.get_rng_state()
    torch.manual_seed(1)
    fresh = run(tiny_model_dir, tmp_path / "fresh", references=None)
    assert torch.equal(torch.get_rng_state(), state)
    assert [step.values for step in fresh.metrics] == [step.values for step in cached.metrics]
    assert all(torch.equal(value, weights(fresh)[name]) for name, value in weights(cached).items())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_accumulated_in_parts_the_result_is_that_of_one_large_batch(tiny_model_dir, tmp_path, method):
    """Everything in one pass against one sequence at a time (Gdpo all: two passes), with all anchors."""
    anchors = (
        ContextFree(weight=0.1, per_step=2), KlToBase(weight=0.1, per_step=3), L2Sp(weight=0.01),
    )  # fmt: skip
    params = update(method=method, anchors=anchors, learning_rate=1e-3, measure_every=2)
    large, small = (
        run(tiny_model_dir, tmp_path / str(budget), params.model_copy(update={"token_budget": budget}))
        for budget in (10_000, 1)
    )
    assert [step.values["two_pass_groups"] for step in small.metrics] == [2, 2, 1] * 2
    for a, b in zip(large.metrics, small.metrics, strict=True):
        for name in ("loss", "objective", "cfs_nll", "kl_to_base", "l2_sp", "grad_norm"):
            assert b.values[name] == pytest.approx(a.values[name], rel=1e-4, abs=1e-5), (a.step, name)
    for name, value in weights(large).items():
        torch.testing.assert_close(weights(small)[name], value, rtol=1e-3, atol=2e-5)


def a_long_group(number):
    """Eight responses of different length and reward, with one tie."""
    responses = tuple(
        ScoredResponse(index=i, teacher="t", text=f"{GOOD} {'and so on ' * (i % 3)}{number + i}", finish_reason="stop",
                       correct=1.0, well_formed=True, reward=min(i, 6) / 4, advantage=0.0)
        for i in (3, 1, 7, 0, 5, 2, 6, 4)
    )  # fmt: skip
    return ResponseGroup(question_id=f"l{number}", prompt=f"{number} + 5?", responses=responses, degenerate=False)


LONG = [a_long_group(i) for i in range(3)]


def test_the_chain_is_streamed_with_the_same_result(tiny_model_dir, tmp_path):
    params = update(objective=Gdpo(nll=0.5), learning_rate=1e-3)
    whole = run(tiny_model_dir, tmp_path / "whole", params, groups=LONG)
    parts = run(tiny_model_dir, tmp_path / "parts", params.model_copy(update={"token_budget": 110}), groups=LONG)
    assert sum(step.values["streamed_groups"] for step in parts.metrics) == 6
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=1e-3, atol=1e-5)


def test_gradient_checkpointing_changes_nothing(tiny_model_dir, tmp_path):
    """With groups in parts as well, whose prompts hand keys and values out of recomputed layers."""
    plain = run(tiny_model_dir, tmp_path / "plain", update(token_budget=110, objective=Gdpo()), groups=LONG)
    saving = run(
        tiny_model_dir,
        tmp_path / "saving",
        update(token_budget=110, objective=Gdpo(), gradient_checkpointing=True),
        groups=LONG,
    )
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(saving)[name], value, rtol=1e-4, atol=1e-6)


def test_with_the_adapter_off_the_policy_is_the_reference(trained, tiny_model_dir):
    result, _, _ = trained
    tokenizer = load_tokenizer(tiny_model_dir)
    sequences = list(group_sequences(tokenizer, GROUPS, SEQUENCES))
    expected = references_of(load_model(tiny_model_dir, "float32"), tokenizer)
    with result.model.disable_adapter():
        found = [each for batch in score_batches(Scorer(result.model), sequences, SEQUENCES) for each in batch]
    for each in found:
        assert each.log_prob == pytest.approx(expected[each.key].log_prob, abs=1e-4)


def test_in_bfloat16_small_steps_are_not_lost(tiny_model_dir, tmp_path):
    """12 steps of 1e-6 on weights of 0.3, whose neighbours in bfloat16 are 1e-3 apart: the float32 masters move."""
    params = update(method="full", learning_rate=1e-6, schedule="constant", warmup_ratio=0.0, epochs=4, anchors=())
    result = run(tiny_model_dir, tmp_path, params, dtype="bfloat16")
    masters = load_file(tmp_path / "checkpoints/step-00000012/weights.safetensors")
    start = load_model(tiny_model_dir, "bfloat16").state_dict()
    moved = torch.cat([(masters[name] - start[name].float()).abs().flatten() for name in masters])
    assert float((moved > 0).double().mean()) > 0.9
    assert 1e-6 < float(moved.max()) < 2e-5
    assert all(torch.equal(value, masters[name].bfloat16()) for name, value in weights(result).items())


def test_a_bfloat16_base_has_float32_adapters(tiny_model_dir, tmp_path):
    result = run(tiny_model_dir, tmp_path, update(epochs=1), dtype="bfloat16")
    assert {value.dtype for value in weights(result).values()} == {torch.float32}
    assert result.model.dtype == torch.bfloat16


def test_anchors_are_zero_at_the_base_and_hold_near_it(tiny_model_dir, tmp_path):
    """KL and L2-SP start at 0; with a large weight the model ends nearer to where it started."""
    loose, tight = (
        run(
            tiny_model_dir, tmp_path / str(weight),
            update(anchors=(KlToBase(weight=weight, per_step=4), L2Sp(weight=weight)), epochs=4, measure_every=20),
        )
        for weight in (1e-6, 30.0)
    )  # fmt: skip
    first = tight.metrics[0].values
    assert (first["kl_to_base"], first["l2_sp"]) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-9))
    for name in ("kl_to_base", "l2_sp", "drift"):
        assert tight.metrics[-1].values[name] < 0.5 * loose.metrics[-1].values[name]


EVERYTHING = update(
    objective=Gdpo(nll=0.5),
    anchors=(
        ContextFree(weight=0.1, per_step=2), SelfDialogues(weight=0.1, per_step=1), KlToBase(weight=0.1, per_step=3),
        Ewc(weight=1.0, samples=2), L2Sp(weight=0.01),
    ),
    token_mask=Stm(perplexity=300.0), sample_weights=Flow(), max_tokens=4000, held_out_share=0.2, measure_every=2,
)  # fmt: skip


@pytest.mark.parametrize("method", ["lora", "full"])
def test_with_everything_at_once_stopped_and_rerun_it_ends_with_the_same_bits(tiny_model_dir, tmp_path, method):
    """All anchors, mask, weights and budget; the Fisher diagonal is the base's also when training goes on."""
    params = EVERYTHING.model_copy(update={"method": method})
    whole = run(tiny_model_dir, tmp_path / "whole", params)

    def stop(step, _values):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny_model_dir, tmp_path / "torn", params, log=stop)
    again = run(tiny_model_dir, tmp_path / "torn", params)
    assert len(whole.metrics) > 6
    assert [step.values for step in again.metrics] == [step.values for step in whole.metrics]
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


def test_everything_is_in_the_loss_by_its_coefficient(tiny_model_dir, tmp_path):
    values = run(tiny_model_dir, tmp_path, EVERYTHING).metrics[-1].values
    held = sum(
        weight * values[name]
        for name, weight in {"cfs_nll": 0.1, "dialogue_nll": 0.1, "kl_to_base": 0.1, "ewc": 1.0, "l2_sp": 0.01}.items()
    )
    assert values["ewc"] > 0
    assert values["loss"] == pytest.approx(values["objective"] + held)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_large_ewc_weight_holds_the_model_where_the_base_would_notice(tiny_model_dir, tmp_path, method):
    loose, tight = (
        run(
            tiny_model_dir, tmp_path / str(weight),
            update(method=method, anchors=(Ewc(weight=weight),), epochs=4, measure_every=20, learning_rate=1e-3),
        )
        for weight in (1e-6, 100.0)
    )  # fmt: skip
    assert tight.metrics[0].values["ewc"] == 0.0
    for name in ("ewc", "drift"):
        assert tight.metrics[-1].values[name] < 0.5 * loose.metrics[-1].values[name]


def test_the_budget_decides_the_steps_and_is_not_exceeded(tiny_model_dir, tmp_path):
    """The steps' tokens add up to at most max_tokens; their sum as budget gives the same, one less a step less."""
    found = run(tiny_model_dir, tmp_path / "a", update(max_tokens=2000))
    used = sum(step.values["tokens"] for step in found.metrics)
    assert 2000 - max(step.values["tokens"] for step in found.metrics) < used <= 2000
    assert len(found.metrics) > 3  # more than one pass over five groups by two
    exact = run(tiny_model_dir, tmp_path / "b", update(max_tokens=int(used)))
    assert [step.values for step in exact.metrics] == [step.values for step in found.metrics]
    assert len(run(tiny_model_dir, tmp_path / "c", update(max_tokens=int(used) - 1)).metrics) == len(exact.metrics) - 1


def test_under_a_budget_the_learning_rate_falls_to_its_end(tiny_model_dir, tmp_path):
    params = update(max_tokens=2000)
    found = run(tiny_model_dir, tmp_path, params)
    expected = [learning_rate(step, len(found.metrics), params) for step in range(len(found.metrics))]
    assert [step.values["learning_rate"] for step in found.metrics] == expected


def test_a_budget_below_one_step_is_refused_before_training(tiny_model_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"max_tokens = 10 does not suffice for one step, which computes \d+ tokens"):
        run(tiny_model_dir, tmp_path, update(max_tokens=10))


def test_the_cost_of_a_stopped_training_is_in_that_of_its_continuation(trained, tiny_model_dir, tmp_path):
    def stop(step, _values):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny_model_dir, tmp_path, log=stop)
    spent = sum(step.speed["seconds"] for step in read_jsonl(tmp_path / "metrics.jsonl", TrainingStep) if step.step < 2)
    cost = run(tiny_model_dir, tmp_path).cost
    assert (cost.n_steps, cost.n_tokens) == (6, trained[0].cost.n_tokens)
    assert cost.seconds > spent > 0
    assert cost.peak_memory_gb > 0


def test_tokens_are_the_same_in_every_run_and_the_clocks_numbers_are_apart(trained):
    for step in trained[0].metrics:
        assert step.values["tokens"] > 0
        assert set(step.speed) == {"seconds", "tokens_per_second", "peak_memory_gb"}
        assert step.speed["tokens_per_second"] == pytest.approx(step.values["tokens"] / step.speed["seconds"])


def test_sample_weights_are_those_of_the_references(tiny_model_dir, tmp_path, capsys):
    """SFT's objective in a step before the first update: mean over its groups of exp(-l / tau) l, l its own loss."""
    tokenizer = load_tokenizer(tiny_model_dir)
    references = references_of(load_model(tiny_model_dir, "float32"), tokenizer)
    best = [sequence for sequence in group_sequences(tokenizer, GROUPS, SEQUENCES) if sequence.key.endswith("/0")]
    nll = torch.tensor([-references[each.key].log_prob / each.n_scored for each in best])
    w = (-nll / nll.median()).exp()
    params = update(objective=Sft(), sample_weights=Flow(), groups_per_step=5, epochs=1, anchors=())
    (step,) = run(tiny_model_dir, tmp_path, params).metrics
    assert step.values["objective"] == pytest.approx(float((w * nll).mean()), rel=1e-4)
    assert step.values["sample_weight"] == pytest.approx(float(w.mean()), rel=1e-5)
    assert f"sample weights: {float(w.mean()):.3f} on average" in capsys.readouterr().out


def test_held_out_groups_are_masked_alike_and_not_weighted(tiny_model_dir, tmp_path):
    """Before anything is learned the held-out objective of SFT is the plain NLL of what the mask leaves."""
    params = update(objective=Sft(), anchors=(), held_out_share=0.2, measure_every=1, epochs=1, learning_rate=1e-12,
                    sample_weights=Flow(), token_mask=Stm(perplexity=300.0))  # fmt: skip
    plain = params.model_copy(update={"sample_weights": None})
    unmasked = params.model_copy(update={"token_mask": None})
    found, same, other = (
        run(tiny_model_dir, tmp_path / str(i), each).metrics[0].values["held_out_objective"]
        for i, each in enumerate((params, plain, unmasked))
    )
    assert found == pytest.approx(same, rel=1e-5)
    assert found < other


def test_drift_is_measured_after_the_update_and_at_the_end(tiny_model_dir, tmp_path):
    """mean over tokens of log p_0 - log p on the held-out samples, computed here by hand for the last step."""
    result = run(tiny_model_dir, tmp_path, update(measure_every=4))
    assert [step.step for step in result.metrics if "drift" in step.values] == [3, 5]
    sequences = list(context_free_sequences(HELD_OUT))
    before = references_of(load_model(tiny_model_dir, "float32"), load_tokenizer(tiny_model_dir))
    after = [each for found in score_batches(Scorer(result.model), sequences, SEQUENCES) for each in found]
    moved = sum(before[each.key].log_prob - each.log_prob for each in after) / sum(each.n_tokens for each in after)
    assert result.metrics[-1].values["drift"] == pytest.approx(moved, abs=1e-5)


EARLY = update(held_out_share=0.2, measure_every=1, epochs=4, early_stop=EarlyStop(patience=2), learning_rate=5e-2)


def test_early_stop_keeps_the_weights_of_the_best_step(tiny_model_dir, tmp_path):
    """It ends `patience` measurements after the best, and is what training that many steps gives."""
    result = run(tiny_model_dir, tmp_path / "early", EARLY)
    measured = [step.values["held_out_log_ratio_best"] for step in result.metrics]
    best = measured.index(max(measured))
    assert (result.steps, len(measured), result.n_held_out, result.n_groups) == (best + 1, best + 3, 1, 4)
    again = run(tiny_model_dir, tmp_path / "early", EARLY)
    assert again.metrics == result.metrics
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(result).items())
    checkpoint = load_file(tmp_path / f"early/best/step-{best + 1:08d}/weights.safetensors")
    assert all(torch.equal(value, checkpoint[name]) for name, value in weights(result).items())


def test_the_best_of_equals_is_the_earliest():
    history = [TrainingStep(step=i, values={"held_out_objective": v}) for i, v in enumerate([3.0, 1.0, 2.0, 1.0])]
    assert best_step(history, EarlyStop(monitor="objective")) == 1


def test_references_of_another_model_are_refused_before_the_first_update(tiny_model_dir, tmp_path):
    references = references_of(load_model(tiny_model_dir, "float32"), load_tokenizer(tiny_model_dir))
    references["q3/1"] = references["q3/1"].model_copy(update={"log_prob": references["q3/1"].log_prob - 1.0})
    with pytest.raises(EvidenceError, match=r"q3/1 another log-probability than its reference says"):
        run(tiny_model_dir, tmp_path, update(groups_per_step=5), references=references)


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
