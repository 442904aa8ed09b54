"""GRPO through TRL on the tiny model: what TRL is given, what its gradient is, and that a killed training goes on."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from protection_world import Judge
from safetensors.torch import load_file

from metagdpo.errors import ConfigError, DataError, ModelError
from metagdpo.models.load import load_model, load_tokenizer
from metagdpo.records.group import ResponseGroup, ScoredResponse
from metagdpo.records.training_step import TrainingStep
from metagdpo.schema import read_jsonl
from metagdpo.training import on_policy, roll_out
from metagdpo.training.collate import group_sequences
from metagdpo.training.loop import train
from metagdpo.training.model import make_policy
from metagdpo.training.on_policy import check_possible, micro_batch, train_on_policy
from metagdpo.training.on_policy_settings import Grpo
from metagdpo.training.roll_out import Answers, JournaledResponse, questions_of_step
from metagdpo.training.settings import LoraParams, SequenceParams, TrainParams

PARAMS = TrainParams(
    lora=LoraParams(r=4, alpha=8),
    learning_rate=1.0,  # the offline objective's, of no meaning here
    schedule="linear",
    warmup_ratio=0.0,
    max_grad_norm=100.0,
    token_budget=300,
    checkpoint_every=2,
)
GRPO = Grpo(steps=3, questions_per_step=2, responses_per_question=4, max_new_tokens=12, learning_rate=5e-2)
QUESTIONS = [
    ResponseGroup(question_id=f"q{i}", prompt=f"{i} + 5? " * (i + 1), responses=(), degenerate=True) for i in range(3)
]


def policy_of(directory: Path, params=PARAMS, dtype="float32"):
    torch.set_num_threads(1)
    return make_policy(load_model(directory, dtype), params, seed=3)


def run(directory: Path, work: Path, settings=GRPO, params=PARAMS, *, policy=None, score=None, **more):
    policy = policy_of(directory, params) if policy is None else policy
    steps = train_on_policy(
        policy, load_tokenizer(directory), QUESTIONS, settings, params=params,
        score=score or Judge(), seed=7, work=work, run_key="key", **more,
    )  # fmt: skip
    return policy, steps


def journal(work: Path):
    (file,) = (work / "on_policy").glob("responses-*.jsonl")
    return list(read_jsonl(file, JournaledResponse))


def token_log_probs(policy, directory: Path, response: JournaledResponse):
    """By the definition: one row, no padding, the whole vocabulary."""
    question = next(each for each in QUESTIONS if each.question_id == response.question_id)
    tokenizer = load_tokenizer(directory)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question.prompt}], add_generation_prompt=True, return_dict=False
    )
    logits = policy(input_ids=torch.tensor([[*prompt, *response.token_ids]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(response.token_ids)[:, None])[:, 0]


def parameters_of(policy):
    return {name: value.detach().clone() for name, value in policy.named_parameters()}


@pytest.fixture(scope="module")
def trained(tiny_model_dir, tmp_path_factory):
    """Sixteen steps, with everything that was seen on the way."""
    work, judge, logged = tmp_path_factory.mktemp("grpo"), Judge(), []
    policy = policy_of(tiny_model_dir)
    before, state = parameters_of(policy), torch.get_rng_state()
    settings = GRPO.model_copy(update={"steps": 16, "responses_per_question": 8})
    params = PARAMS.model_copy(update={"schedule": "constant"})
    _, steps = run(tiny_model_dir, work, settings, params, policy=policy, score=judge, first_step=10,
                   log=lambda step, values: logged.append((step, dict(values))))  # fmt: skip
    return {"policy": policy, "before": before, "state": state, "steps": steps, "work": work, "judge": judge,
            "logged": logged}  # fmt: skip


def test_the_policy_learns_what_is_rewarded(trained):
    """Means of 64 answers, whose standard error is 0.02: the rise is 0.15 to 0.3 for every seed that was tried."""
    rewards = [step.values["reward"] for step in trained["steps"]]
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.1


def test_only_adapters_learn(trained):
    after = dict(trained["policy"].named_parameters())
    assert trained["before"].keys() == after.keys()
    changed = {name for name, value in trained["before"].items() if not torch.equal(value, after[name])}
    assert changed == {name for name in after if "lora_" in name}


def test_the_judge_sees_the_texts_of_the_journal(trained):
    """Group by group, in the order asked; the reward that TRL learns from is the one that was given."""
    members = journal(trained["work"])
    groups = [members[i : i + 8] for i in range(0, len(members), 8)]
    assert trained["judge"].seen == [(group[0].question_id, [member.text for member in group]) for group in groups]
    for step in trained["steps"]:
        rewards = [member.reward for member in members if member.step == step.step - 10]
        assert step.values["reward"] == pytest.approx(sum(rewards) / 16)


def test_steps_count_on_from_those_before(trained):
    assert [step.step for step in trained["steps"]] == list(range(10, 26))


def test_every_step_is_in_the_file_and_was_logged(trained):
    file = trained["work"] / "on_policy/metrics.jsonl"
    assert list(read_jsonl(file, TrainingStep)) == trained["steps"]
    assert trained["logged"] == [(step.step, step.values | step.speed) for step in trained["steps"]]


def test_the_learning_rate_follows_the_schedule_of_section_train(tiny_model_dir, tmp_path):
    """Linear to 0 over all updates, from the peak that is GRPO's own; a step shows its last update's rate."""
    _, steps = run(tiny_model_dir, tmp_path, GRPO.model_copy(update={"steps": 3, "updates_per_step": 2}))
    assert [step.values["learning_rate"] for step in steps] == pytest.approx([5e-2 * (1 - k / 6) for k in (1, 3, 5)])


def test_nothing_executable_is_written(trained):
    files = {path.suffix for path in trained["work"].rglob("*") if path.is_file()}
    assert {".jsonl", ".json", ".safetensors"} == files


def test_trl_leaves_no_trace(trained, tiny_model_dir):
    """Global generator, forward pass, padding token and adapters are as they were."""
    policy = trained["policy"]
    assert torch.equal(trained["state"], torch.get_rng_state())
    assert "forward" not in vars(policy.get_base_model())
    assert load_model(tiny_model_dir, "float32").config.pad_token_id == policy.config.pad_token_id
    assert ["default"] == list(policy.peft_config)


def test_prompts_are_those_of_offline_training(tiny_model_dir, tmp_path):
    """The template is applied once, by the same function as for teachers and for the offline objective."""
    tokenizer = load_tokenizer(tiny_model_dir)
    answer = ScoredResponse(index=0, teacher="t", text="5", finish_reason="stop", correct=1.0, well_formed=True,
                            reward=1.0, advantage=0.0)  # fmt: skip
    answered = [question.model_copy(update={"responses": (answer,), "degenerate": False}) for question in QUESTIONS]
    offline = [sequence.prompt_ids for sequence in group_sequences(tokenizer, answered, SequenceParams())]
    answers = Answers(policy_of(tiny_model_dir), tokenizer, QUESTIONS, GRPO, score=Judge(), seed=7, folder=tmp_path,
                      run_key="key")  # fmt: skip
    assert offline == answers.prompts


def test_every_draw_is_its_own_and_can_be_repeated(tiny_model_dir, tmp_path):
    """Another answer for each step, place and index; the same ones again in another process."""
    tokenizer, policy = load_tokenizer(tiny_model_dir), policy_of(tiny_model_dir)
    asked = [
        [answer.text for step in (0, 1) for answer in
         Answers(policy, tokenizer, QUESTIONS, GRPO, score=Judge(), seed=7, folder=tmp_path / name, run_key="key")
         .ask(step, [0, 0])]
        for name in ("one", "other")
    ]  # fmt: skip
    assert asked[0] == asked[1]
    assert len(set(asked[0])) == 2 * 2 * 4


@pytest.mark.parametrize(
    ("loss", "token_budget"), [("dapo", 10_000), ("dapo", 1), ("grpo", 300), ("dr_grpo", 300)]
)  # all 8 responses at once, one at a time, 4 at a time
def test_the_gradient_is_that_of_the_formula(tiny_model_dir, tmp_path, monkeypatch, loss, token_budget):
    """At ratio 1 the surrogate's gradient is -sum_i A_i w_i sum_t grad log p(y_it).

    A_i = (r_i - mean) / (std + 1e-4) over the group, std with Bessel's correction (TRL's choice; Eq. 3 has none);
    w_i = 1 / tokens of the step, 1 / (responses * tokens of the response), 1 / (responses * max_new_tokens).
    """
    monkeypatch.setattr(roll_out, "stop_ids", lambda *_: frozenset(range(280, 296)))  # ragged lengths
    params = PARAMS.model_copy(update={"token_budget": token_budget})
    settings = GRPO.model_copy(update={"steps": 1, "loss": loss})
    (step,) = run(tiny_model_dir, tmp_path, settings, params)[1]
    members, policy = journal(tmp_path), policy_of(tiny_model_dir)
    assert len({len(member.token_ids) for member in members}) > 2
    n_tokens = sum(len(member.token_ids) for member in members)
    rewards = torch.tensor([member.reward for member in members]).view(2, 4)
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
    total = torch.zeros(())
    for member, advantage in zip(members, advantages, strict=True):
        weight = {"dapo": n_tokens, "grpo": 8 * len(member.token_ids), "dr_grpo": 8 * 12}[loss]
        total = total - advantage * token_log_probs(policy, tiny_model_dir, member).sum() / weight
    learning = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    expected = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(total, learning)]).norm()
    assert step.values["grad_norm"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_kl_is_to_the_base_wherever_the_policy_started(tiny_model_dir, tmp_path, method):
    """Mean over tokens of exp(d) - d - 1 with d = log p(base) - log p(policy), before the first update."""
    params = PARAMS.model_copy(update={"method": method})
    policy = policy_of(tiny_model_dir, params)
    with torch.no_grad():
        for name, value in policy.named_parameters():
            if value.requires_grad and ("lora_B" in name or method == "full"):
                value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0)))
    started, base = parameters_of(policy), load_model(tiny_model_dir, "float32")
    settings = GRPO.model_copy(update={"steps": 1, "beta": 0.1})
    (step,) = run(tiny_model_dir, tmp_path, settings, params, policy=policy)[1]
    terms = []
    with torch.no_grad():
        for name, value in policy.named_parameters():
            value.copy_(started[name])
        for member in journal(tmp_path):
            d = token_log_probs(base, tiny_model_dir, member) - token_log_probs(policy, tiny_model_dir, member)
            terms.append(d.exp() - d - 1)
    assert step.values["kl_on_answers"] == pytest.approx(float(torch.cat(terms).mean()), rel=1e-3)
    assert step.values["kl_on_answers"] > 1e-3


@pytest.mark.parametrize(("method", "updates"), [("lora", 1), ("full", 2)])
def test_stopped_and_rerun_ends_with_the_same_bits(tiny_model_dir, tmp_path, method, updates):
    """Stopped in step 3, checkpoint at 2: as if nothing had happened, and nothing paid for is decoded again."""
    params = PARAMS.model_copy(update={"method": method})
    settings = GRPO.model_copy(update={"updates_per_step": updates, "decode_batch": 3, "learning_rate": 1e-2})

    def stop(step, _values):
        if step == 2:
            raise KeyboardInterrupt

    judges = Judge(), Judge()
    policy, steps = run(tiny_model_dir, tmp_path / "whole", settings, params, score=judges[0])
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model_dir, tmp_path / "torn", settings, params, score=judges[1], log=stop)
    again, resumed = run(tiny_model_dir, tmp_path / "torn", settings, params, score=judges[1])
    assert [step.values for step in steps] == [step.values for step in resumed]
    assert judges[0].seen == judges[1].seen
    for a, b in zip(policy.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all("clipped" in step.values for step in steps) == (updates > 1)


@pytest.mark.parametrize(("method", "dtype"), [("lora", "float32"), ("full", "float32"), ("full", "bfloat16")])
def test_the_warm_up_goes_on_where_the_offline_objective_ended(tiny_model_dir, tmp_path, method, dtype):
    """One policy, two trainings: at a rate of almost 0 it stays what GDPO made of it, which is not the base."""
    tokenizer, base = load_tokenizer(tiny_model_dir), load_model(tiny_model_dir, dtype)
    groups = [
        question.model_copy(update={"responses": tuple(
            ScoredResponse(index=i, teacher="t", text=text, finish_reason="stop", correct=0.0, well_formed=True,
                           reward=float(i), advantage=0.0)
            for i, text in enumerate(("no", "box", "the answer"))
        ), "degenerate": False})
        for question in QUESTIONS
    ]  # fmt: skip
    params = PARAMS.model_copy(update={"learning_rate": 1e-2, "groups_per_step": 1, "method": method})
    offline = train(base, tokenizer, groups, context_free=[], references=None, params=params,
                    sequences=SequenceParams(), seed=7, work=tmp_path, run_key="key")  # fmt: skip
    warm = parameters_of(offline.model)
    settings = GRPO.model_copy(update={"steps": 1, "beta": 0.1, "learning_rate": 1e-12})
    policy, (step,) = run(tiny_model_dir, tmp_path, settings, params, policy=offline.model, first_step=offline.steps)
    assert step.step == 3
    assert step.values["kl_on_answers"] > 1e-4
    for name, value in policy.named_parameters():
        torch.testing.assert_close(value, warm[name], rtol=0, atol=1e-9)


def test_a_finished_training_is_not_repeated(tiny_model_dir, tmp_path):
    settings, judge = GRPO.model_copy(update={"steps": 2}), Judge()
    policy, steps = run(tiny_model_dir, tmp_path, settings)
    again, same = run(tiny_model_dir, tmp_path, settings, score=judge)
    assert (steps, []) == (same, judge.seen)
    for a, b in zip(policy.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_recomputing_activations_changes_nothing(tiny_model_dir, tmp_path):
    """Decoding keeps its cache, and the policy keeps recomputing."""
    settings = GRPO.model_copy(update={"steps": 2, "beta": 0.1})
    params = PARAMS.model_copy(update={"gradient_checkpointing": True})
    _, plain = run(tiny_model_dir, tmp_path / "plain", settings)
    policy, saving = run(tiny_model_dir, tmp_path / "saving", settings, params)
    assert all(layer.gradient_checkpointing for layer in policy.get_base_model().model.layers)
    for a, b in zip(plain, saving, strict=True):
        assert a.values == pytest.approx(b.values, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_bf16_policy_learns_in_float32(tiny_model_dir, tmp_path, method):
    """Adapters are float32 (peft's choice), full weights have float32 masters: at 1e-6 no bf16 weight would move.

    What Adam keeps after one step is 0.1 of the gradient, here of one clipped to a norm of 1e-3.
    """
    params = PARAMS.model_copy(update={"method": method, "max_grad_norm": 1e-3})
    policy = policy_of(tiny_model_dir, params, "bfloat16")
    start = parameters_of(policy)
    settings = GRPO.model_copy(update={"steps": 1, "learning_rate": 1e-6})
    _, (step,) = run(tiny_model_dir, tmp_path, settings, params, policy=policy)
    (checkpoint,) = (tmp_path / "on_policy/checkpoints").iterdir()
    learnt = load_file(checkpoint / "weights.safetensors")
    assert {torch.float32} == {value.dtype for value in learnt.values()}
    moved = torch.cat([(value - start[name].float()).abs().flatten() for name, value in learnt.items()])
    assert 0 < float(moved.max()) < 2e-6
    assert step.values["grad_norm"] > 1e-3
    kept = load_file(checkpoint / "optimiser.safetensors")
    norms = torch.stack([value.norm() for name, value in kept.items() if name.endswith("|exp_avg")])
    assert float(norms.norm()) == pytest.approx(1e-4, rel=1e-2)


def test_nobody_is_told(tiny_model_dir, tmp_path, monkeypatch):
    """TRL reports its use to the hub when the hub can be reached."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _telemetry

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(_telemetry, "_start_telemetry_thread", lambda: None)
    run(tiny_model_dir, tmp_path, GRPO.model_copy(update={"steps": 1}))
    assert _telemetry._TELEMETRY_QUEUE.empty()
    assert constants.HF_HUB_DISABLE_TELEMETRY is False


def test_divergence_stops_with_advice_and_is_not_kept(tiny_model_dir, tmp_path):
    params = PARAMS.model_copy(update={"checkpoint_every": 1})
    with pytest.raises(ModelError, match=r"diverged at step 0: .* Lower train.on_policy.learning_rate"):
        run(tiny_model_dir, tmp_path, GRPO.model_copy(update={"learning_rate": 1e30}), params)
    assert not (tmp_path / "on_policy/checkpoints").exists()


def test_a_missing_extra_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"Run `pip install '\.\[grpo\]'`"):
        check_possible()


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(on_policy, "Workers", lambda: SimpleNamespace(n=2))
    with pytest.raises(ConfigError, match=r"one process on one device; here are 2 processes"):
        check_possible()


def test_a_question_without_room_for_an_answer_is_refused(tiny_model_dir, tmp_path):
    """The tiny model has 512 positions."""
    with pytest.raises(DataError, match=r"prompt of question q0 has \d+ tokens; with 505 new ones"):
        run(tiny_model_dir, tmp_path, GRPO.model_copy(update={"max_new_tokens": 505}))


def test_no_questions_are_refused(tiny_model_dir, tmp_path):
    with pytest.raises(DataError, match="no questions to ask"):
        train_on_policy(policy_of(tiny_model_dir), load_tokenizer(tiny_model_dir), [], GRPO, params=PARAMS,
                        score=Judge(), seed=7, work=tmp_path, run_key="key")  # fmt: skip


def test_a_pass_asks_each_question_once_in_its_own_order():
    walk = [i for step in range(4) for i in questions_of_step(6, step, 3, seed=1)]
    assert [sorted(walk[:6]), sorted(walk[6:])] == [list(range(6))] * 2
    assert walk[:6] != walk[6:]


@pytest.mark.parametrize(
    ("n_responses", "longest", "token_budget", "expected"),
    [(24, 100, 1_000, 8), (24, 100, 2_399, 12), (24, 100, 2_400, 24), (7, 100, 600, 1), (24, 5_000, 1_000, 1)],
)
def test_a_micro_batch_divides_the_step_and_fits_the_budget(n_responses, longest, token_budget, expected):
    assert expected == micro_batch(n_responses, longest, token_budget)
