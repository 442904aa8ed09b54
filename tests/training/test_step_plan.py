"""Tokens of a step, planned from counts alone: what the step then counts, for everything that can be trained."""

import pytest
import torch
from one_worker import Worker

from metagdpo.models.load import load_model
from metagdpo.objectives import Objective
from metagdpo.objectives.anchors import ContextFree, Ewc, KlToBase, L2Sp, SelfDialogues
from metagdpo.objectives.dpo import Dpo
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.gvpo import Gvpo
from metagdpo.objectives.sft import Sft
from metagdpo.training.accumulate import score_all
from metagdpo.training.anchoring import Anchoring
from metagdpo.training.collate import TokenSequence
from metagdpo.training.data import TrainGroup
from metagdpo.training.engine import Engine
from metagdpo.training.logprobs import Scorer
from metagdpo.training.model import make_policy
from metagdpo.training.settings import LoraParams, TrainParams
from metagdpo.training.step_plan import group_tokens, groups_of_step, step_tokens, text_tokens

PARAMS = TrainParams(lora=LoraParams(r=2, alpha=4), learning_rate=1e-4, groups_per_step=3)
OBJECTIVES = [Gdpo(nll=0.5), Gdpo(pairs="all", link="logsigmoid"), Dpo(), Dpo(pairs="all"), Gvpo(), Sft()]
ANCHORS = [
    ContextFree(weight=0.1, per_step=3), SelfDialogues(weight=0.1, per_step=2), KlToBase(weight=0.1, per_step=7),
    KlToBase(weight=0.1, per_step=2, texts="context_free"), KlToBase(weight=0.1, per_step=2, texts="self_dialogue"),
    Ewc(weight=0.1), L2Sp(weight=0.1),
]  # fmt: skip


def ids(random, n):
    return tuple(torch.randint(3, 290, (n,), generator=random).tolist())


def a_group(number, G, n_prompt):
    """G responses of 1 to 12 tokens; the best reward once, or twice."""
    random = torch.Generator().manual_seed(number)
    prompt = ids(random, n_prompt)
    members = tuple(TokenSequence(f"q{number}/{i}", prompt, ids(random, 1 + 5 * i % 12)) for i in range(G))
    rewards_G = torch.tensor([float(min(i, G - 2)) for i in range(G)], dtype=torch.float64)
    return TrainGroup(members, rewards_G, torch.zeros(G, dtype=torch.float64))


GROUPS = [a_group(i, G, n_prompt) for i, (G, n_prompt) in enumerate([(4, 9), (3, 1), (9, 20), (5, 6), (3, 12)])]
TEXTS = {
    "context_free": [TokenSequence(f"context_free/{i}", (1,), tuple(range(10, 13 + 4 * i))) for i in range(5)],
    "self_dialogue/assistant": [
        TokenSequence(f"self_dialogue/{i}", (4, 5), tuple(range(30, 37 + i))) for i in range(3)
    ],
    "groups": [sequence for group in GROUPS for sequence in group.sequences],
}
TEXTS["self_dialogue/all"] = TEXTS["self_dialogue/assistant"]


def referenced(base, groups):
    """With references of the base, which the first step checks."""
    scorer = Scorer(base)
    return [TrainGroup(g.sequences, g.rewards_G, score_all(scorer, g.sequences, token_budget=999)) for g in groups]


def counted(directory, params, *, packed=True, processes=1, sharded=False, steps=2):
    """What the steps log, summed over processes one after another; and what was planned."""
    totals, planned = [0.0] * steps, []
    for rank in range(processes):
        worker = Worker(rank, processes, sharded=sharded)
        base = load_model(directory, "float32")
        groups = referenced(base, GROUPS)
        scorer = Scorer(base)
        scorer.packed = scorer.packed and packed
        anchoring = Anchoring(params, TEXTS, scorer, seed=3)
        engine = Engine(make_policy(base, params, seed=1), params, worker)
        engine.scorer.packed = engine.scorer.packed and packed
        anchoring.remember_start(engine.scorer, engine.masters.named, worker)
        for step in range(steps):
            chosen = [groups[i] for i in groups_of_step(len(groups), step, params.groups_per_step, 3)]
            totals[step] += engine.step(chosen, anchoring, step, 1e-6)["tokens"]
            if rank == 0:
                texts = [found for _, found in anchoring.texts_of_step(step)]
                settings = {"packed": engine.scorer.packed, "processes": processes, "sharded": sharded}
                planned.append(step_tokens(chosen, texts, params, **settings))
    return totals, planned


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("budget", [10_000, 60, 1], ids=["whole", "parts", "one-by-one"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.kind}-{getattr(o, 'pairs', '')}")
def test_planned_and_counted_tokens_are_equal_for_every_objective(tiny_model_dir, objective, budget, packed):
    params = PARAMS.model_copy(update={"objective": objective, "token_budget": budget})
    totals, planned = counted(tiny_model_dir, params, packed=packed)
    assert planned == totals


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("anchor", ANCHORS, ids=lambda a: f"{a.kind}-{getattr(a, 'texts', '')}")
def test_planned_and_counted_tokens_are_equal_for_every_anchor(tiny_model_dir, anchor, packed):
    params = PARAMS.model_copy(update={"anchors": (anchor,), "token_budget": 60})
    totals, planned = counted(tiny_model_dir, params, packed=packed)
    assert planned == totals


@pytest.mark.parametrize("method", ["lora", "full"])
def test_planned_and_counted_tokens_are_equal_with_all_anchors_at_once(tiny_model_dir, method):
    params = PARAMS.model_copy(update={"anchors": tuple(ANCHORS), "method": method, "shared_prompt": False})
    totals, planned = counted(tiny_model_dir, params)
    assert planned == totals


@pytest.mark.parametrize("processes", [2, 5])
def test_several_processes_together_compute_what_was_planned(tiny_model_dir, processes):
    """More processes than groups in a step: some have nothing to do."""
    params = PARAMS.model_copy(
        update={"anchors": tuple(ANCHORS[:5]), "token_budget": 60, "objective": Gdpo(pairs="all")}
    )
    totals, planned = counted(tiny_model_dir, params, processes=processes)
    assert planned == totals


def test_with_weights_split_over_processes_the_prompts_that_are_computed_again_count(tiny_model_dir):
    params = PARAMS.model_copy(update={"token_budget": 40, "objective": Gdpo(pairs="all")})
    totals, planned = counted(tiny_model_dir, params, sharded=True)
    assert planned == totals
    assert sum(planned) > sum(counted(tiny_model_dir, params)[1])


def test_of_every_kind_of_objective_there_is_a_case():
    kinds = {each.__args__[0] if hasattr(each, "__args__") else each for each in Objective.__args__[0].__args__}
    assert {type(objective) for objective in OBJECTIVES} == kinds


def test_sft_pays_for_the_best_responses_and_not_for_the_others():
    """One prompt and the best two of four: P + R_3 + R_4 where the prompt is shared, last tokens not computed."""
    (group,) = [a_group(1, 4, 30)]
    params = PARAMS.model_copy(update={"objective": Sft()})
    best = [len(group.sequences[i].response_ids) - 1 for i in (2, 3)]
    assert group_tokens([group], params, packed=True) == 30 + sum(best)
    assert group_tokens([group], params, packed=False) == 2 * 30 + sum(best)


def test_gdpo_pays_for_every_response_and_shares_the_prompt():
    (group,) = [a_group(1, 4, 30)]
    rest = sum(len(sequence.response_ids) - 1 for sequence in group.sequences)
    assert group_tokens([group], PARAMS, packed=True) == 30 + rest
    assert group_tokens([group], PARAMS.model_copy(update={"shared_prompt": False}), packed=True) == 4 * 30 + rest


def test_a_text_costs_its_prefix_and_all_tokens_but_the_last():
    texts = [TokenSequence("a", (1,), (5, 6, 7)), TokenSequence("b", (1,), (8,) * 9)]
    assert text_tokens(texts, PARAMS, packed=False) == (1 + 2) + (1 + 8)


def test_no_texts_cost_nothing():
    assert text_tokens([], PARAMS, packed=True) == 0
