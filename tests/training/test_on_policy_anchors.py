"""GRPO with anchors on the tiny model: what is added to TRL's gradient, what it holds to, and what is reported."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from protection_world import DIALOGUES, GROUPS, SAMPLES, Judge
from safetensors.torch import load_file

from metagdpo.errors import DataError
from metagdpo.models.load import load_model, load_tokenizer
from metagdpo.objectives.anchors import ContextFree, Ewc, KlToBase, L2Sp, SelfDialogues
from metagdpo.schema import read_jsonl
from metagdpo.training.anchoring import Anchoring, samples_of_step
from metagdpo.training.collate import group_sequences
from metagdpo.training.logprobs import Scorer
from metagdpo.training.loop import train
from metagdpo.training.model import make_policy
from metagdpo.training.on_policy import train_on_policy
from metagdpo.training.on_policy_anchors import anchors_at_base
from metagdpo.training.on_policy_course import Course
from metagdpo.training.on_policy_settings import Grpo
from metagdpo.training.parallel import Workers
from metagdpo.training.roll_out import JournaledResponse
from metagdpo.training.settings import LoraParams, SequenceParams, TrainParams

pytest.importorskip("trl")

EVERY = (
    ContextFree(weight=0.3, per_step=2),
    SelfDialogues(weight=0.2, per_step=2),
    KlToBase(weight=0.5, per_step=2),
    KlToBase(weight=0.4, per_step=1, texts="self_dialogue"),
    L2Sp(weight=0.1),
    Ewc(weight=0.7),
)
PARAMS = TrainParams(
    lora=LoraParams(r=4, alpha=8),
    anchors=EVERY,
    learning_rate=1e-2,  # the offline objective's
    warmup_ratio=0.0,
    max_grad_norm=1e6,
    groups_per_step=2,
    token_budget=300,
    checkpoint_every=2,
)
GRPO = Grpo(steps=3, questions_per_step=2, responses_per_question=4, max_new_tokens=12, learning_rate=1e-2)
SEQUENCES = SequenceParams(max_length=200)


def start(directory: Path, params=PARAMS, *, double=False):
    """As stage train does: the anchors first, then the policy of the same model."""
    torch.set_num_threads(1)
    base, tokenizer = load_model(directory, "float32"), load_tokenizer(directory)
    if double:
        base = base.double()
    anchoring = anchors_at_base(
        base, tokenizer, GROUPS, context_free=SAMPLES, self_dialogues=DIALOGUES, params=params, sequences=SEQUENCES,
        seed=7,
    )  # fmt: skip
    return make_policy(base, params, seed=3), anchoring


def learning(policy):
    return {name: value for name, value in policy.named_parameters() if value.requires_grad}


def go(directory: Path, work: Path, params=PARAMS, settings=GRPO, *, begun=None, **more):
    policy, anchoring = begun or start(directory, params)
    steps = train_on_policy(
        policy, load_tokenizer(directory), GROUPS, settings, params=params, score=Judge(), seed=7, work=work,
        run_key="key", anchoring=anchoring, **more,
    )  # fmt: skip
    return policy, steps


def journal(work: Path):
    (file,) = (work / "on_policy").glob("responses-*.jsonl")
    return list(read_jsonl(file, JournaledResponse))


def away_from_base(directory: Path, params, *, double=True):
    """A policy that has moved, and anchors that know where from: as an offline part leaves them."""
    policy, anchoring = start(directory, params, double=double)
    if anchoring is not None:
        anchoring.remember_start(Scorer(policy), learning(policy), Workers())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in learning(policy).values():
            value.add_(0.05 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return policy, anchoring


def gradient_of_step(directory: Path, work: Path, anchors, monkeypatch, method, **settings):
    """What an on-policy step updates with, of a policy that is not the base, unclipped; and its values."""
    seen, plain = [], Course.before_update

    def keep(course):
        plain(course)
        seen.append(torch.cat([value.grad.flatten().clone() for value in learning(course.policy).values()]))

    monkeypatch.setattr(Course, "before_update", keep)
    params = PARAMS.model_copy(update={"method": method, "anchors": anchors})
    settings = GRPO.model_copy(update={"steps": 1, "start": "offline", **settings})
    _, (step,) = go(directory, work, params, settings, begun=away_from_base(directory, params))
    (gradient,) = seen
    monkeypatch.undo()
    return gradient, step.values


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("anchor", EVERY, ids=lambda anchor: "-".join(map(str, anchor.model_dump().values())))
def test_the_gradient_is_that_of_trl_and_weight_times_that_of_the_anchor(
    tiny_model_dir, tmp_path, monkeypatch, anchor, method
):
    """In float64, away from the base. The anchor's is taken alone, with weight 1, from a policy like it.

    A weight that is a power of two: Llama's norms round gradients to float32, which other factors do not commute with.
    """
    weight = 4.0
    alone, _ = gradient_of_step(tiny_model_dir, tmp_path / "0", (), monkeypatch, method)
    both, values = gradient_of_step(
        tiny_model_dir, tmp_path / "1", (anchor.model_copy(update={"weight": weight}),), monkeypatch, method
    )
    params = PARAMS.model_copy(update={"method": method, "anchors": (anchor.model_copy(update={"weight": 1.0}),)})
    policy, anchoring = away_from_base(tiny_model_dir, params)
    anchoring.text_gradients(Scorer(policy), 0, Workers())
    anchoring.weight_gradients(policy, learning(policy))
    held = torch.cat([torch.zeros_like(v).flatten() if v.grad is None else v.grad.flatten()
                      for v in learning(policy).values()])  # fmt: skip
    assert both.dtype == torch.float64
    assert float(held.norm()) > 1e-3
    torch.testing.assert_close(both, alone + weight * held, rtol=1e-9, atol=1e-9)
    (name,) = anchoring.names
    assert values["anchor_loss"] == pytest.approx(weight * values[name])


def test_cfs_adds_the_gradient_of_its_definition(tiny_model_dir, tmp_path, monkeypatch):
    """-w mean over the tokens of two samples of log p(token | all before), from plain logits, in float64."""
    alone, _ = gradient_of_step(tiny_model_dir, tmp_path / "0", (), monkeypatch, "lora")
    both, values = gradient_of_step(
        tiny_model_dir, tmp_path / "1", (ContextFree(weight=2.0, per_step=2),), monkeypatch, "lora"
    )
    policy, _ = away_from_base(tiny_model_dir, PARAMS.model_copy(update={"anchors": ()}))
    log_probs = []
    for i in samples_of_step(len(SAMPLES), 0, 2, seed=7):
        ids = torch.tensor([[*SAMPLES[i].prefix_ids, *SAMPLES[i].token_ids]])
        logits = policy(input_ids=ids).logits[0, :-1]
        log_probs.append(logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0])
    nll = -torch.cat(log_probs).mean()
    expected = torch.autograd.grad(2.0 * nll, list(learning(policy).values()))
    torch.testing.assert_close(both, alone + torch.cat([each.flatten() for each in expected]), rtol=1e-9, atol=1e-9)
    assert values["cfs_nll"] == pytest.approx(nll.item())


def test_the_norm_is_clipped_with_the_anchors_in_it(tiny_model_dir, tmp_path):
    """What Adam keeps after one step is 0.1 of the gradient, clipped to a norm of 0.01 as a whole."""
    params = PARAMS.model_copy(update={"max_grad_norm": 0.01, "anchors": (ContextFree(weight=1e4, per_step=2),)})
    _, (step,) = go(tiny_model_dir, tmp_path, params, GRPO.model_copy(update={"steps": 1}))
    assert step.values["grad_norm"] > 100
    kept = load_file(next((tmp_path / "on_policy/checkpoints").iterdir()) / "optimiser.safetensors")
    norms = torch.stack([value.norm() for name, value in kept.items() if name.endswith("|exp_avg")])
    assert float(norms.norm()) == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize(("method", "updates"), [("lora", 1), ("full", 2)])
def test_stopped_and_rerun_with_every_anchor_ends_with_the_same_bits(tiny_model_dir, tmp_path, method, updates):
    """Stopped after step 3, checkpoint at 2: what the anchors hold to is still the base, to the bit."""
    params = PARAMS.model_copy(update={"method": method})
    settings = GRPO.model_copy(update={"steps": 4, "updates_per_step": updates})

    def stop(step, _values):
        if step == 2:
            raise KeyboardInterrupt

    policy, steps = go(tiny_model_dir, tmp_path / "whole", params, settings)
    with pytest.raises(KeyboardInterrupt):
        go(tiny_model_dir, tmp_path / "torn", params, settings, log=stop)
    again, resumed = go(tiny_model_dir, tmp_path / "torn", params, settings)
    assert [step.values for step in steps] == [step.values for step in resumed]
    files = [[json.dumps(step.values, sort_keys=True) for step in read] for read in (steps, resumed)]
    assert files[0] == files[1]
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), again.parameters(), strict=True))
    assert len([name for name in steps[0].values if name.startswith("kl_to_base")]) == 2


@pytest.mark.parametrize("anchoring", ["none", "without anchors"])
def test_without_anchors_nothing_is_added(tiny_model_dir, tmp_path, anchoring):
    """Neither values nor a bit of the weights, whether nothing is handed in or an empty Anchoring."""
    params = PARAMS.model_copy(update={"anchors": ()})
    plain, steps = go(tiny_model_dir, tmp_path / "plain", params)
    policy = make_policy(load_model(tiny_model_dir, "float32"), params, seed=3)
    empty = Anchoring(params, {}, Scorer(policy), seed=7) if anchoring == "without anchors" else None
    again, same = go(tiny_model_dir, tmp_path / "again", params, begun=(policy, empty))
    assert [step.values for step in steps] == [step.values for step in same]
    assert "anchor_loss" not in steps[0].values
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True))


def test_at_the_base_kl_l2_sp_and_ewc_are_zero_and_the_anchors_report_by_name(tiny_model_dir, tmp_path):
    """anchor_loss is the sum of weight * value; there is no `loss`, which charts show as an objective."""
    begun = start(tiny_model_dir)
    _, steps = go(tiny_model_dir, tmp_path, begun=begun)
    names = begun[1].names
    assert len(set(names)) == len(EVERY)
    for step in steps:
        weighted = sum(anchor.weight * step.values[name] for name, anchor in zip(names, EVERY, strict=True))
        assert step.values["anchor_loss"] == pytest.approx(weighted)
        assert "loss" not in step.values
    first, last = ([step.values[name] for name in names[2:]] for step in (steps[0], steps[-1]))
    assert first == pytest.approx([0.0] * 4, abs=1e-6)
    assert min(last) > 1e-6


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(
    "anchor",
    [ContextFree(weight=1e4, per_step=4), SelfDialogues(weight=1e4, per_step=4, learn="all"),
     KlToBase(weight=1e4, per_step=4, texts="context_free"), L2Sp(weight=1e4), Ewc(weight=1e4)],
    ids=lambda anchor: anchor.kind,
)  # fmt: skip
def test_with_a_huge_weight_the_policy_stays_near_the_base(tiny_model_dir, tmp_path, anchor, method):
    """Under that anchor's own measure, after six steps, against the same anchor with next to no weight."""
    ends = []
    for weight in (1e-9, anchor.weight):
        params = PARAMS.model_copy(
            update={"method": method, "max_grad_norm": 1.0, "anchors": (anchor.model_copy(update={"weight": weight}),)}
        )
        policy, anchoring = start(tiny_model_dir, params)
        settings = GRPO.model_copy(update={"steps": 8, "learning_rate": 3e-3})
        _, steps = go(tiny_model_dir, tmp_path / f"{weight}", params, settings, begun=(policy, anchoring))
        (name,) = anchoring.names
        ends.append(steps[-1].values[name] - min(step.values[name] for step in steps[:1]))
    assert ends[1] < 0.5 * ends[0]


def test_each_update_has_texts_of_its_own(tiny_model_dir, tmp_path, monkeypatch):
    """Two updates a step, on from the five steps before: 5, 6, 7, 8; a step reports the mean of its two."""
    seen = []
    plain = Anchoring.text_gradients

    def recorded(self, scorer, step, workers):
        found = plain(self, scorer, step, workers)
        seen.append((step, found[0]["cfs_nll"]))
        return found

    monkeypatch.setattr(Anchoring, "text_gradients", recorded)
    params = PARAMS.model_copy(update={"anchors": (ContextFree(weight=0.3, per_step=1),)})
    settings = GRPO.model_copy(update={"steps": 2, "updates_per_step": 2})
    _, steps = go(tiny_model_dir, tmp_path, params, settings, first_step=5)
    assert [number for number, _ in seen] == [5, 6, 7, 8]
    means = [(seen[i][1] + seen[i + 1][1]) / 2 for i in (0, 2)]
    assert [step.values["cfs_nll"] for step in steps] == pytest.approx(means)
    assert all(a[1] != b[1] for a, b in pairwise(seen))


def test_tokens_are_counted_with_gradient_and_as_sampled(tiny_model_dir, tmp_path):
    """By hand: each update computes every prompt and answer, and the anchor's text without its last token."""
    params = PARAMS.model_copy(update={"anchors": (ContextFree(weight=0.3, per_step=1), L2Sp(weight=0.1))})
    settings = GRPO.model_copy(update={"steps": 1, "updates_per_step": 2})
    _, (step,) = go(tiny_model_dir, tmp_path, params, settings)
    tokenizer, questions = load_tokenizer(tiny_model_dir), {group.question_id: group.prompt for group in GROUPS}
    members = journal(tmp_path)
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": questions[member.question_id]}],
                                      add_generation_prompt=True, return_dict=False)
        for member in members
    ]  # fmt: skip
    sampled = sum(len(member.token_ids) for member in members)
    texts = [SAMPLES[i] for update in (0, 1) for i in samples_of_step(len(SAMPLES), update, 1, seed=7)]
    held = sum(len(text.prefix_ids) + len(text.token_ids) - 1 for text in texts)
    assert step.values["sampled_tokens"] == sampled
    assert step.values["tokens"] == 2 * (sum(map(len, prompts)) + sampled) + held
    assert step.speed["seconds"] == pytest.approx(sampled / step.speed["tokens_per_second"])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_after_an_offline_part_its_anchors_go_on_from_the_base(tiny_model_dir, tmp_path, method):
    """L2-SP of the first on-policy step is the distance that the offline part went, not 0; so is the KL."""
    anchors = (L2Sp(weight=0.1), KlToBase(weight=0.5, per_step=2), Ewc(weight=0.1))
    params = PARAMS.model_copy(update={"method": method, "anchors": anchors})
    offline = train(
        load_model(tiny_model_dir, "float32"), load_tokenizer(tiny_model_dir), GROUPS, context_free=SAMPLES,
        references=None, params=params, sequences=SEQUENCES, seed=7, work=tmp_path, run_key="key",
    )  # fmt: skip
    moved = _squared_distance(offline.model, tiny_model_dir)
    _, steps = go(
        tiny_model_dir, tmp_path, params, GRPO.model_copy(update={"steps": 2, "start": "offline"}),
        begun=(offline.model, offline.anchoring), first_step=offline.steps,
    )  # fmt: skip
    assert steps[0].values["l2_sp"] == pytest.approx(moved / 2, rel=1e-4)
    assert min(steps[0].values["kl_to_base"], steps[0].values["ewc"], moved) > 1e-5


@torch.no_grad()
def _squared_distance(policy, directory):
    """Of all weights from the base's, LoRA merged."""
    adapted = hasattr(policy, "merge_adapter")
    if adapted:
        policy.merge_adapter()
    after = (policy.get_base_model() if adapted else policy).named_parameters()
    found = {name.replace(".base_layer", ""): value.double() for name, value in after}
    base = load_model(directory, "float32").named_parameters()
    total = sum(float((found[name] - value.double()).square().sum()) for name, value in base)
    if adapted:
        policy.unmerge_adapter()
    return total


def test_anchors_without_what_they_hold_to_are_refused(tiny_model_dir, tmp_path):
    """Never trained without them in silence."""
    policy, _ = start(tiny_model_dir)
    with pytest.raises(ValueError, match="hand in `anchoring`, made from the base"):
        go(tiny_model_dir, tmp_path, begun=(policy, None))


def test_anchors_without_texts_are_refused_before_the_policy_is_made(tiny_model_dir):
    base, tokenizer = load_model(tiny_model_dir, "float32"), load_tokenizer(tiny_model_dir)
    with pytest.raises(DataError, match="wants context_free texts and there are none"):
        anchors_at_base(base, tokenizer, GROUPS, context_free=[], self_dialogues=DIALOGUES, params=PARAMS,
                        sequences=SEQUENCES, seed=7)  # fmt: skip


def test_responses_are_read_only_for_a_kl_on_groups(tiny_model_dir):
    """A prompt that leaves no room for a response hurts nobody else."""
    base, tokenizer = load_model(tiny_model_dir, "float32"), load_tokenizer(tiny_model_dir)
    short = SequenceParams(max_length=2)
    with pytest.raises(DataError, match="leaves no room"):
        list(group_sequences(tokenizer, GROUPS, short))
    params = PARAMS.model_copy(update={"anchors": (ContextFree(weight=1.0, per_step=1),)})
    found = anchors_at_base(base, tokenizer, GROUPS, context_free=SAMPLES, self_dialogues=[], params=params,
                            sequences=short, seed=7)  # fmt: skip
    assert [len(texts) for texts in found.texts.values()] == [len(SAMPLES)]


def test_without_anchors_the_base_is_not_touched(tiny_model_dir):
    base = load_model(tiny_model_dir, "float32")
    before = base.config._attn_implementation
    params = PARAMS.model_copy(update={"anchors": ()})
    assert anchors_at_base(base, load_tokenizer(tiny_model_dir), GROUPS, context_free=[], self_dialogues=[],
                           params=params, sequences=SEQUENCES, seed=7) is None  # fmt: skip
    assert base.config._attn_implementation == before
