"""What every protection promises with every objective and method; a new one in the unions needs no edit here.

The real loop on the tiny model: each combination is trained once for a few steps and looked at from several sides.
Left out: what a gradient is (tests/training), and whether a protection protects (docs/compare.md).
"""

import copy
import math
import shutil
import types
import typing
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from protection_world import DIALOGUES, GROUPS, HELD_OUT, SAMPLES, Judge
from pydantic import ValidationError

from metagdpo.models.load import load_model, load_tokenizer
from metagdpo.models.port import derived_seed
from metagdpo.objectives import Anchor, Objective
from metagdpo.schema import Frozen
from metagdpo.training.anchoring import metric_names
from metagdpo.training.collate import context_free_sequences, group_sequences
from metagdpo.training.logprobs import Scorer
from metagdpo.training.loop import train
from metagdpo.training.model import make_policy
from metagdpo.training.on_policy_anchors import anchors_at_base
from metagdpo.training.on_policy_settings import Grpo
from metagdpo.training.reference import score_batches
from metagdpo.training.settings import Flow, LoraParams, SequenceParams, Stm, TrainParams

SEQUENCES = SequenceParams(max_length=200)
REQUIRED = {float: 2.0, int: 2}
"""Values of fields without a default, by type: the coefficient, and how many texts a step takes."""


def _members(union):
    return typing.get_args(typing.get_args(union)[0])


def _anchors():
    """Every member of the union, for every combination of its named choices."""
    for kind in _members(Anchor):
        fields = kind.model_fields
        given = {name: REQUIRED[each.annotation] for name, each in fields.items() if each.is_required()}
        choices = {
            name: typing.get_args(each.annotation)
            for name, each in fields.items()
            if typing.get_origin(each.annotation) is typing.Literal and len(typing.get_args(each.annotation)) > 1
        }
        for chosen in product(*choices.values()):
            named = dict(zip(choices, chosen, strict=True))
            yield "-".join([fields["kind"].default, *named.values()]), kind(**given, **named)


def _switches():
    """Settings of section `train` that are off by default and given as a type of their own, or as a budget."""
    others = {"early_stop", "on_policy"}  # no protections
    for name, each in TrainParams.model_fields.items():
        if typing.get_origin(each.annotation) is types.UnionType and each.default is None and name not in others:
            (kind,) = (part for part in typing.get_args(each.annotation) if part is not types.NoneType)
            yield name, kind


# 1500 is about the median over the responses, which the tiny model did not write; 600 tokens are 2 steps of everything.
SWITCHED = {"token_mask": Stm(perplexity=1500), "sample_weights": Flow(), "max_tokens": 600}
ANCHORS = dict(_anchors())
OBJECTIVES = {kind.model_fields["kind"].default: kind() for kind in _members(Objective)}
METHODS = ("lora", "full")
SINGLE = {
    **{name: {"anchors": (anchor,)} for name, anchor in ANCHORS.items()},
    **{name: {name: value} for name, value in SWITCHED.items()},
}
PAIRS = {f"{a}+{b}": {"anchors": (ANCHORS[a], ANCHORS[b])} for a, b in combinations(ANCHORS, 2)}
EVERYTHING = {"everything": {"anchors": tuple(ANCHORS.values()), **SWITCHED}}
ALONE = [(objective, method, name) for objective in OBJECTIVES for method in METHODS for name in SINGLE]
TOGETHER = [
    *(("gdpo", METHODS[i % 2], name) for i, name in enumerate(PAIRS)),
    *((objective, method, "everything") for objective in OBJECTIVES for method in METHODS),
]
PROTECTIONS = {"nothing": {}, **SINGLE, **PAIRS, **EVERYTHING}


def _ids(combination):
    return "-".join(combination)


@dataclass
class Trained:
    """What one combination came to."""

    weights: dict
    steps: list
    work: Path
    params: TrainParams


@dataclass
class World:
    """The tiny model, prepared once, and what was trained of it."""

    base: object
    tokenizer: object
    references: dict
    folder: Path
    known: dict = field(default_factory=dict)

    def params(self, objective, method, protection):
        """An epoch is three steps, of two groups or one, each with a checkpoint."""
        return TrainParams(
            method=method, lora=LoraParams(r=2, alpha=4), objective=OBJECTIVES[objective], learning_rate=5e-3,
            schedule="constant", warmup_ratio=0.0, groups_per_step=2, checkpoint_every=1, **protection,
        )  # fmt: skip

    def trained(self, objective, method, name):
        """A combination, trained on its first use."""
        key = objective, method, name
        if key not in self.known:
            work = self.folder / _ids(key)
            self.known[key] = self.train(self.params(objective, method, PROTECTIONS[name]), work)
        return self.known[key]

    def train(self, params, work):
        """The real loop; on from a checkpoint if there is one."""
        result = train(
            copy.deepcopy(self.base), self.tokenizer, GROUPS, context_free=SAMPLES, self_dialogues=DIALOGUES,
            held_out=HELD_OUT, references=self.references, params=params, sequences=SEQUENCES, seed=7, work=work,
            run_key="key",
        )  # fmt: skip
        return Trained(_learnt(result.model), list(result.metrics), work, params)


def _learnt(policy):
    return {name: value.detach().clone() for name, value in policy.named_parameters() if value.requires_grad}


def _moved(start, end):
    """Length of the way between two sets of weights."""
    return math.sqrt(sum(float((end[name] - start[name]).double().square().sum()) for name in start))


@pytest.fixture(scope="module")
def world(tiny_model_dir, tmp_path_factory):
    """References are computed once, with the model as it will be trained."""
    torch.set_num_threads(1)
    base, tokenizer = load_model(tiny_model_dir, "float32"), load_tokenizer(tiny_model_dir)
    sequences = [*group_sequences(tokenizer, GROUPS, SEQUENCES), *context_free_sequences(HELD_OUT)]
    scored = score_batches(Scorer(copy.deepcopy(base)), sequences, SEQUENCES)
    references = {each.key: each for found in scored for each in found}
    return World(base, tokenizer, references, tmp_path_factory.mktemp("protections"))


def test_every_switch_of_section_train_is_walked():
    assert set(SWITCHED) == {name for name, _ in _switches()}
    assert all(isinstance(SWITCHED[name], kind) for name, kind in _switches())


def test_every_anchor_has_a_name_to_report_under():
    """Its own, also beside another of its kind."""
    names = metric_names(tuple(ANCHORS.values()))
    assert len(set(names)) == len(ANCHORS)
    assert "objective" not in names


@pytest.mark.parametrize("combination", [*ALONE, *TOGETHER], ids=_ids)
def test_every_term_is_reported_and_the_loss_is_their_sum(world, combination):
    """loss = objective + sum over anchors of weight * value, in every step; all of it finite."""
    trained = world.trained(*combination)
    anchors = trained.params.anchors
    assert len(trained.steps) > 1
    for step in trained.steps:
        weighted = [
            anchor.weight * step.values[name] for name, anchor in zip(metric_names(anchors), anchors, strict=True)
        ]
        assert step.values["loss"] == pytest.approx(step.values["objective"] + sum(weighted), rel=1e-6)
        assert all(math.isfinite(value) for value in step.values.values())
        assert step.values["tokens"] > 0


@pytest.mark.parametrize("combination", ALONE, ids=_ids)
def test_no_protection_is_ignored(world, combination):
    """It changes where the weights end by 1 % of the way at least; rounding changes less than 0.01 %."""
    objective, method, _ = combination
    without, held = world.trained(objective, method, "nothing"), world.trained(*combination)
    aside = _moved(without.weights, held.weights) / _moved(_start(world, method), without.weights)
    assert aside > 0.01


@pytest.mark.parametrize("combination", [each for each in TOGETHER if each[2] in PAIRS], ids=_ids)
def test_of_two_protections_both_act(world, combination):
    """The pair ends elsewhere than either alone."""
    objective, method, pair = combination
    both = world.trained(*combination)
    way = _moved(_start(world, method), both.weights)
    for name in pair.split("+"):
        aside = _moved(world.trained(objective, method, name).weights, both.weights) / way
        assert aside > 1e-3


@pytest.mark.parametrize("combination", [*ALONE, *(each for each in TOGETHER if each[2] not in PAIRS)], ids=_ids)
def test_a_restart_ends_with_the_same_weights(world, combination):
    """The last step is forgotten; what goes on knows no more than the folder."""
    trained = world.trained(*combination)
    work = trained.work.with_name(f"{trained.work.name}-again")
    shutil.copytree(trained.work, work)
    shutil.rmtree(max((work / "checkpoints").glob("step-*")))
    again = world.train(trained.params, work)
    assert [step.values for step in again.steps] == [step.values for step in trained.steps]
    assert all(torch.equal(value, again.weights[name]) for name, value in trained.weights.items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ANCHORS)
def test_a_weight_that_tends_to_0_is_no_protection(world, name, method):
    """1e-9 of it ends where nothing ends, up to what Adam makes of rounding."""
    without = world.trained("gdpo", method, "nothing")
    light = {"anchors": (ANCHORS[name].model_copy(update={"weight": 1e-9}),)}
    held = world.train(world.params("gdpo", method, light), world.folder / f"light-{method}-{name}")
    aside = _moved(without.weights, held.weights) / _moved(_start(world, method), without.weights)
    assert aside < 1e-4


def test_a_budget_of_tokens_counts_what_the_anchors_compute(world):
    """Never above it, and one more step would not fit; without anchors there are more steps."""
    spent = {}
    for name in ("everything", "max_tokens"):
        steps = world.trained("gdpo", "lora", name).steps
        tokens = [step.values["tokens"] for step in steps]
        assert sum(tokens) <= SWITCHED["max_tokens"] < sum(tokens) + max(tokens)
        spent[name] = len(tokens)
    assert spent["everything"] < spent["max_tokens"]


def _start(world, method):
    params = world.params("gdpo", method, {})
    return _learnt(make_policy(copy.deepcopy(world.base), params, seed=derived_seed(7, "lora")))


# GRPO, through TRL.

GRPO = Grpo(steps=2, questions_per_step=1, responses_per_question=3, max_new_tokens=5, learning_rate=5e-3)
ON_POLICY = [
    *((method, name) for method in METHODS for name in ("nothing", "all anchors")),
    *(("lora", name) for name in ANCHORS),
]
HELD = {**{name: (anchor,) for name, anchor in ANCHORS.items()}, "all anchors": tuple(ANCHORS.values()), "nothing": ()}


def _grpo(world, work, method, name):
    from metagdpo.training.on_policy import train_on_policy

    params = world.params("gdpo", method, {"anchors": HELD[name], "on_policy": GRPO})
    base = copy.deepcopy(world.base)
    anchoring = anchors_at_base(
        base, world.tokenizer, GROUPS, context_free=SAMPLES, self_dialogues=DIALOGUES, params=params,
        sequences=SEQUENCES, seed=7,
    )  # fmt: skip
    policy = make_policy(base, params, seed=3)
    steps = train_on_policy(
        policy, world.tokenizer, GROUPS, GRPO, params=params, score=Judge(), seed=7, work=work, run_key="key",
        anchoring=anchoring,
    )  # fmt: skip
    return Trained(_learnt(policy), steps, work, params)


@pytest.fixture(scope="module")
def answered(world):
    """Each on-policy combination, trained on its first use."""
    pytest.importorskip("trl")
    known = {}

    def of(method, name):
        if (method, name) not in known:
            known[method, name] = _grpo(world, world.folder / f"grpo-{method}-{name}", method, name)
        return known[method, name]

    return of


@pytest.mark.parametrize(("method", "name"), [each for each in ON_POLICY if each[1] != "nothing"])
def test_grpo_reports_every_anchor_and_their_sum(answered, method, name):
    """anchor_loss = sum of weight * value; the policy's own part is policy_loss."""
    trained = answered(method, name)
    anchors = trained.params.anchors
    for step in trained.steps:
        weighted = [a.weight * step.values[name] for name, a in zip(metric_names(anchors), anchors, strict=True)]
        assert step.values["anchor_loss"] == pytest.approx(sum(weighted), rel=1e-6)
        assert all(math.isfinite(value) for value in step.values.values())
        assert "policy_loss" in step.values


@pytest.mark.parametrize(("method", "name"), [each for each in ON_POLICY if each[1] != "nothing"])
def test_grpo_ignores_no_anchor(world, answered, method, name):
    without, held = answered(method, "nothing"), answered(method, name)
    start = _learnt(make_policy(copy.deepcopy(world.base), without.params, seed=3))
    aside = _moved(without.weights, held.weights) / _moved(start, without.weights)
    assert aside > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_grpo_restarted_with_all_anchors_ends_with_the_same_weights(world, answered, method):
    trained = answered(method, "all anchors")
    work = trained.work.with_name(f"{trained.work.name}-again")
    shutil.copytree(trained.work, work)
    shutil.rmtree(max((work / "on_policy/checkpoints").glob("step-*")))
    again = _grpo(world, work, method, "all anchors")
    assert [step.values for step in again.steps] == [step.values for step in trained.steps]
    assert all(torch.equal(value, again.weights[name]) for name, value in trained.weights.items())


@pytest.mark.parametrize("name", SWITCHED)
def test_grpo_from_the_base_refuses_what_acts_on_groups(world, name):
    """Refused by name, not ignored; after an offline part it acts there."""
    value = SWITCHED[name].model_dump() if isinstance(SWITCHED[name], Frozen) else SWITCHED[name]
    plain = world.params("gdpo", "lora", {}).model_dump()
    with pytest.raises(ValidationError, match=f"{name} act.* on the objective's training"):
        TrainParams.model_validate(plain | {name: value, "on_policy": GRPO.model_dump()}, strict=False)
    offline = GRPO.model_copy(update={"start": "offline"}).model_dump()
    assert TrainParams.model_validate(plain | {name: value, "on_policy": offline}, strict=False).on_policy is not None
