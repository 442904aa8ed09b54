"""Anchors that see texts: values and gradients against full logits and autograd in float64; names; what is missing."""

import copy
from dataclasses import replace

import pytest
import torch
from exact import exact_model, plain_log_prob, take_gradient

from metagdpo.errors import DataError
from metagdpo.objectives.anchors import ContextFree, Ewc, KlToBase, L2Sp, SelfDialogues
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue, SelfTurn
from metagdpo.training.anchoring import METRIC, Anchoring, anchor_texts, metric_names, text_name
from metagdpo.training.collate import TokenSequence
from metagdpo.training.logprobs import Scorer
from metagdpo.training.parallel import Workers
from metagdpo.training.settings import TrainParams

CFS = ContextFree(weight=0.5, per_step=3)
ASSISTANT, BOTH = SelfDialogues(weight=0.7, per_step=2), SelfDialogues(weight=1.5, per_step=3, learn="all")
KLS = {texts: KlToBase(weight=0.3, per_step=3, texts=texts) for texts in ("context_free", "groups", "self_dialogue")}
TEXT_ANCHORS = {
    "cfs": CFS,
    "assistant": ASSISTANT,
    "both": BOTH,
    **{f"kl-{texts}": anchor for texts, anchor in KLS.items()},
}


def ids(start, n):
    return tuple(3 + (start + 7 * t) % 280 for t in range(n))


SAMPLES = [
    ContextFreeSample(index=i, prefix="bos", prefix_ids=(1,), token_ids=ids(5 * i, 3 + 2 * i), text="", ended=False,
                      model="m", temperature=1.0, top_p=1.0, max_new_tokens=20, seed=0)
    for i in range(4)
]  # fmt: skip


def turn(role, template, tokens):
    return SelfTurn(role=role, template_ids=template, token_ids=tokens, text="", ended=True, seed=0)


DIALOGUES = [
    SelfDialogue(
        index=i,
        turns=(turn("user", (1, 7, 8), ids(i, 2 + i)), turn("assistant", (7, 9), ids(50 + i, 3)),
               turn("user", (7, 8), ids(80 + i, 2)), turn("assistant", (7, 9), ids(90 + i, 1 + i))),
        model="m", temperature=0.7, top_p=0.9, max_new_tokens=9,
    )
    for i in range(4)
]  # fmt: skip
GROUPS = [TokenSequence(f"q/{i}", ids(100, 6), ids(120 + i, 2 + 3 * i)) for i in range(4)]
TEXTS = anchor_texts(context_free=SAMPLES, self_dialogues=DIALOGUES, groups=GROUPS)


@pytest.fixture(scope="module")
def scorers(tiny_model_dir):
    """A base, and a policy that has moved away from it."""
    base = exact_model(tiny_model_dir)
    policy = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return Scorer(base), Scorer(exact_copy(policy))


def exact_copy(policy):
    """Copied norms still compute with the weights of the model that they come from."""
    for module in policy.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = type(module.forward)(module.forward.func, module)
    return policy


def params_of(*anchors, budget=4096):
    return TrainParams(method="full", learning_rate=1e-3, anchors=anchors, token_budget=budget)


def plain_kl(base, policy, sequence):
    """Sum over the tokens that count of KL(p_0 || p) of the next token, from full logits."""
    tokens = torch.tensor([sequence.prompt_ids + sequence.response_ids])
    with torch.no_grad():
        log_base = base(input_ids=tokens).logits.log_softmax(-1)[0]
    log_p = policy(input_ids=tokens).logits.log_softmax(-1)[0]
    at = [len(sequence.prompt_ids) + i - 1 for i in sequence.scored_at]
    return (log_base.exp() * (log_base - log_p)).sum(-1)[at].sum()


def plain_value(scorers, anchor, chosen):
    """The anchor by its definition: a mean over the tokens that count, of all texts together."""
    base, policy = (scorer.policy for scorer in scorers)
    if isinstance(anchor, KlToBase):
        total = sum(plain_kl(base, policy, each) for each in chosen)
    else:
        total = -sum(plain_log_prob(policy, each) for each in chosen)
    return total / sum(len(each.scored_at) for each in chosen)


@pytest.mark.parametrize("anchor", TEXT_ANCHORS.values(), ids=TEXT_ANCHORS.keys())
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("budget", [4096, 1], ids=["whole", "one-by-one"])
def test_value_and_gradient_are_those_of_the_definition(scorers, monkeypatch, anchor, packed, budget):
    for scorer in scorers:
        monkeypatch.setattr(scorer, "packed", packed)
    base, policy = scorers
    anchoring = Anchoring(params_of(anchor, budget=budget), TEXTS, base, seed=3)
    ((_, chosen),) = anchoring.texts_of_step(2)
    expected = plain_value(scorers, anchor, chosen)
    (anchor.weight * expected).backward()
    plain = take_gradient(policy.policy)
    values, weighted, n_tokens = anchoring.text_gradients(policy, 2, Workers())
    ours = take_gradient(policy.policy)
    assert values == {METRIC[anchor.kind]: pytest.approx(float(expected.detach()), rel=1e-9)}
    assert weighted == pytest.approx(anchor.weight * float(expected.detach()), rel=1e-9)
    assert float((ours - plain).norm()) <= 1e-9 * float(plain.norm())
    assert n_tokens <= sum(len(each.prompt_ids) + each.n_computed for each in chosen)


def test_several_anchors_add_up_and_each_reports_for_itself(scorers):
    """Two KLs on texts of different length, dialogues and CFS: each normalised by its own tokens."""
    anchors = (CFS, KLS["groups"], ASSISTANT, KLS["context_free"])
    anchoring = Anchoring(params_of(*anchors), TEXTS, scorers[0], seed=3)
    expected = [plain_value(scorers, anchor, chosen) for anchor, chosen in anchoring.texts_of_step(0)]
    total = sum(anchor.weight * value for anchor, value in zip(anchors, expected, strict=True))
    total.backward()
    plain = take_gradient(scorers[1].policy)
    values, weighted, _ = anchoring.text_gradients(scorers[1], 0, Workers())
    assert list(values) == ["cfs_nll", "kl_to_base", "dialogue_nll", "kl_to_base_2"]
    assert list(values.values()) == [pytest.approx(float(each.detach()), rel=1e-9) for each in expected]
    assert weighted == pytest.approx(float(total.detach()), rel=1e-9)
    assert float((take_gradient(scorers[1].policy) - plain).norm()) <= 1e-9 * float(plain.norm())


def test_longer_texts_of_one_source_do_not_change_what_another_counts(scorers):
    """CFS has the same value beside dialogues as alone."""
    alone, beside = (
        Anchoring(params_of(*anchors), TEXTS, scorers[0], seed=3).text_gradients(scorers[1], 1, Workers())[0]
        for anchors in ((CFS,), (CFS, BOTH))
    )
    take_gradient(scorers[1].policy)
    assert beside["cfs_nll"] == alone["cfs_nll"]


def test_at_the_base_the_kl_is_0_on_masked_dialogues(scorers):
    anchoring = Anchoring(params_of(KLS["self_dialogue"]), TEXTS, scorers[0], seed=3)
    values, _, _ = anchoring.text_gradients(scorers[0], 0, Workers())
    moved = take_gradient(scorers[0].policy)
    assert values["kl_to_base"] == pytest.approx(0.0, abs=1e-12)
    assert float(moved.abs().max()) <= 1e-12


def test_the_kl_keeps_a_hidden_state_of_the_base_for_every_scored_token(scorers):
    """The user's tokens too, but none of the template's: 5, 7, 9 and 11 of 14 and more."""
    anchoring = Anchoring(params_of(KLS["self_dialogue"]), TEXTS, scorers[0], seed=3)
    sampled = {f"self_dialogue/{d.index}": sum(len(t.token_ids) for t in d.turns) for d in DIALOGUES}
    assert {key: len(states) for key, states in anchoring.base.hidden.items()} == sampled


@pytest.mark.parametrize(
    ("anchor", "name"),
    [
        (CFS, "context_free"),
        (ASSISTANT, "self_dialogue/assistant"),
        (BOTH, "self_dialogue/all"),
        (KLS["context_free"], "context_free"),
        (KLS["groups"], "groups"),
        (KLS["self_dialogue"], "self_dialogue/all"),
        (Ewc(weight=1.0), "context_free"),
    ],
)
def test_each_anchor_has_its_texts(anchor, name):
    assert text_name(anchor) == name
    assert TEXTS[name]


def test_only_what_is_wanted_is_kept(scorers):
    """EWC wants context-free samples, L2-SP nothing."""
    texts = [
        Anchoring(params_of(*anchors), TEXTS, scorers[0], seed=3).texts
        for anchors in ((), (L2Sp(weight=1.0),), (Ewc(weight=1.0),), (BOTH, KLS["groups"]))
    ]
    assert [list(each) for each in texts] == [[], [], ["context_free"], ["groups", "self_dialogue/all"]]


def test_texts_without_a_scored_token_are_left_out(scorers):
    """A dialogue in which the assistant says nothing has nothing to hold on to."""
    silent = DIALOGUES[0].model_copy(update={"index": 9, "turns": DIALOGUES[0].turns[:1]})
    texts = anchor_texts(context_free=(), self_dialogues=[silent, DIALOGUES[1]], groups=())
    anchoring = Anchoring(params_of(ASSISTANT), texts, scorers[0], seed=3)
    assert [each.key for each in anchoring.texts["self_dialogue/assistant"]] == ["self_dialogue/1"]


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        (CFS, r"wants context_free texts and there are none. Raise preserve.context_free.ratio in params.yaml"),
        (Ewc(weight=1.0), r"wants context_free texts and there are none"),
        (ASSISTANT, r"wants self_dialogue texts and there are none. Where preserve.self_dialogue .* is null"),
        (KLS["self_dialogue"], r"wants self_dialogue texts and there are none. Where preserve.self_dialogue"),
        (KLS["groups"], r"wants groups texts and there are none. Take texts: context_free"),
    ],
)
@pytest.mark.parametrize("texts", [{}, anchor_texts(context_free=(), self_dialogues=(), groups=())])
def test_missing_texts_are_named_with_the_way_to_get_them(scorers, anchor, message, texts):
    with pytest.raises(DataError, match=message):
        Anchoring(params_of(anchor), texts, scorers[0], seed=3)


def test_no_text_that_could_be_scored_counts_as_missing(scorers):
    empty = [replace(each, response_ids=()) for each in TEXTS["context_free"]]
    with pytest.raises(DataError, match="wants context_free texts and there are none"):
        Anchoring(params_of(CFS), {"context_free": empty}, scorers[0], seed=3)


def test_two_anchors_of_one_kind_have_two_names():
    assert metric_names((L2Sp(weight=1.0), CFS, L2Sp(weight=2.0), CFS, L2Sp(weight=3.0))) == [
        "l2_sp", "cfs_nll", "l2_sp_2", "cfs_nll_2", "l2_sp_3",
    ]  # fmt: skip
