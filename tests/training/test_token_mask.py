"""STM: the mask is its definition, references are what it leaves, and without unlikely tokens nothing changes."""

import copy
import math
import re
import shutil

import pytest
import torch
from exact import exact_model, plain_log_prob, plain_token_log_probs, take_gradient
from hypothesis import assume, given
from hypothesis import strategies as st

from metagdpo.errors import DataError
from metagdpo.models.load import load_model, load_tokenizer
from metagdpo.objectives.dpo import Dpo
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.gvpo import Gvpo
from metagdpo.objectives.sft import Sft
from metagdpo.records.group import ResponseGroup, ScoredResponse
from metagdpo.training.accumulate import backward_through, score_all
from metagdpo.training.collate import TokenSequence
from metagdpo.training.data import TrainGroup
from metagdpo.training.logprobs import Scorer
from metagdpo.training.loop import train
from metagdpo.training.reference import score_batches
from metagdpo.training.settings import LoraParams, SequenceParams, Stm, TrainParams
from metagdpo.training.token_mask import MaskCounts, base_log_probs, kept_tokens, mask_tokens

SETTINGS = SequenceParams()
OBJECTIVES = [Gdpo(link="logsigmoid"), Gdpo(pairs="all", link="logsigmoid"), Dpo(), Gvpo(), Sft()]


@pytest.fixture(scope="module")
def base(tiny_model_dir):
    return Scorer(exact_model(tiny_model_dir))


@pytest.fixture(scope="module")
def groups(base):
    """Three groups of ragged responses, some with a token that the base itself would write; with their references."""
    random = torch.Generator().manual_seed(0)
    made = []
    for q in range(3):
        prompt = tuple(torch.randint(3, 290, (4 + 3 * q,), generator=random).tolist())
        sequences = []
        for g in range(2 + q):
            response = []
            for t in range(1 + 3 * g):
                logits = base.policy(input_ids=torch.tensor([[*prompt, *response]])).logits[0, -1]
                likely, any_token = int(logits.argmax()), int(torch.randint(3, 290, (), generator=random))
                response.append(likely if (t + g) % 2 else any_token)
            sequences.append(TokenSequence(f"q{q}/{g}", prompt, tuple(response)))
        found = [each.log_prob for batch in score_batches(base, sequences, SETTINGS) for each in batch]
        references = torch.tensor(found, dtype=torch.float64)
        made.append(TrainGroup(tuple(sequences), torch.arange(2.0 + q).double(), references))
    return made


def middle(base, groups, share=0.5):
    """A perplexity that keeps about this share of the tokens: between two tokens, so that rounding decides nothing."""
    every = torch.cat(base_log_probs(base, [s for group in groups for s in group.sequences], SETTINGS)).sort().values
    at = round((1 - share) * len(every))
    return float((-(every[at - 1] + every[at]) / 2).exp())


@given(
    p=st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=8),
    perplexity=st.floats(1.0, 1e6, exclude_min=True),
)
def test_a_token_is_kept_where_its_perplexity_is_at_most_the_threshold(p, perplexity):
    assume(all(abs(1 / each - perplexity) > 1e-9 * perplexity for each in p))
    kept = kept_tokens(torch.tensor(p, dtype=torch.float64).log(), perplexity)
    assert kept.tolist() == [1 / each <= perplexity for each in p]


def test_a_token_at_the_threshold_is_kept():
    assert kept_tokens(torch.tensor([-math.log(2.5)], dtype=torch.float64), 2.5).tolist() == [True]


def test_what_is_not_a_number_is_kept_for_training_to_stop_at():
    assert kept_tokens(torch.tensor([math.nan, -9.0]), 2.5).tolist() == [True, False]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("settings", [SETTINGS, SequenceParams(token_budget=1), SequenceParams(shared_prompt=False)])
def test_the_mask_and_the_reference_are_the_definition(base, groups, monkeypatch, packed, settings):
    """From full logits, for each response alone: which tokens are scored, and the sum over them."""
    perplexity = middle(base, groups)
    monkeypatch.setattr(base, "packed", packed)
    masked, _ = mask_tokens(base, groups, Stm(perplexity=perplexity), settings)
    for before, after in zip(groups, masked, strict=True):
        for g, whole in enumerate(before.sequences):
            with torch.no_grad():
                each = plain_token_log_probs(base.policy, whole)
            expected = [at for at, value in each.items() if 1 / value.exp() <= perplexity]
            assert list(after.sequences[g].scored_at) == expected
            total = float(sum(each[at] for at in expected))
            assert float(after.reference_G[g]) == pytest.approx(total, rel=1e-9, abs=1e-9)
        assert torch.equal(after.rewards_G, before.rewards_G)


def test_masked_responses_are_beginnings_of_the_whole_ones(base, groups):
    """What stands after the last token that counts is not computed; keys and prompts stay."""
    masked, _ = mask_tokens(base, groups, Stm(perplexity=middle(base, groups)), SETTINGS)
    pairs = [pair for b, a in zip(groups, masked, strict=True) for pair in zip(b.sequences, a.sequences, strict=True)]
    assert all(after.response_ids == before.response_ids[: len(after.response_ids)] for before, after in pairs)
    assert all((after.key, after.prompt_ids) == (before.key, before.prompt_ids) for before, after in pairs)
    assert all(after.scored_at[-1] == len(after.response_ids) - 1 for _, after in pairs if after.n_scored)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.kind}-{getattr(o, 'pairs', '')}")
def test_at_the_start_every_log_ratio_is_0(base, groups, objective):
    """As without a mask; so GDPO and DPO start at ln 2, and SFT at the mean over what is left."""
    masked, _ = mask_tokens(base, groups, Stm(perplexity=middle(base, groups)), SETTINGS)
    for group in masked:
        scores = group.scores(score_all(base, group.sequences, token_budget=50))
        torch.testing.assert_close(scores.log_ratios_G, torch.zeros_like(scores.log_ratios_G), rtol=0, atol=1e-9)
        loss = objective.loss(scores)
        if objective.kind in {"gdpo", "dpo"}:
            assert float(loss.value) == pytest.approx(math.log(2), abs=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.kind}-{getattr(o, 'pairs', '')}")
def test_an_objective_learns_from_what_is_left_only(base, groups, objective):
    """Its gradient is that of the objective on plain sums over the kept tokens, away from the start."""
    policy = copy.deepcopy(base.policy)
    for module in policy.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = type(module.forward)(module.forward.func, module)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.02)
    scorer = Scorer(policy)
    masked, _ = mask_tokens(base, groups, Stm(perplexity=middle(base, groups)), SETTINGS)
    group = masked[-1]
    objective.loss(group.scores(torch.stack([plain_log_prob(policy, s) for s in group.sequences]))).value.backward()
    plain = take_gradient(policy)
    loss = lambda log_probs_G: objective.loss(group.scores(log_probs_G)).value  # noqa: E731
    coupling = objective.coupling(group.rewards_G)
    backward_through(scorer, group.sequences, loss, token_budget=30, coupling_SS=coupling)
    assert float(plain.norm()) > 0
    assert float((take_gradient(policy) - plain).norm()) <= 1e-9 * float(plain.norm())


def test_without_unlikely_tokens_training_is_given_the_same_bits(base, groups):
    """Also where the references were computed in other batches: they are not replaced."""
    odd = [TrainGroup(g.sequences, g.rewards_G, g.reference_G + 1e-7) for g in groups]
    found, counts = mask_tokens(base, odd, Stm(perplexity=1e300), SETTINGS)
    assert [group.sequences for group in found] == [group.sequences for group in odd]
    assert all(torch.equal(a.reference_G, b.reference_G) for a, b in zip(found, odd, strict=True))
    assert counts.n_masked == 0


def test_only_masked_responses_get_another_reference(base, groups):
    odd = [TrainGroup(g.sequences, g.rewards_G, g.reference_G + 1e-3) for g in groups]
    found, _ = mask_tokens(base, odd, Stm(perplexity=middle(base, groups, 0.9)), SETTINGS)
    kept = [
        (before == after, float(old) == float(new))
        for b, a in zip(odd, found, strict=True)
        for before, after, old, new in zip(b.sequences, a.sequences, b.reference_G, a.reference_G, strict=True)
    ]
    assert {same for same, _ in kept} == {True, False}
    assert all(same == unchanged for same, unchanged in kept)


def test_lengths_are_the_tokens_that_count(base, groups):
    """SFT divides by them; a response that has none left counts 0 and is not divided by 0."""
    masked, counts = mask_tokens(base, groups, Stm(perplexity=middle(base, groups, 0.2)), SETTINGS)
    lengths = [group.scores(torch.zeros(len(group.sequences))).lengths_G.tolist() for group in masked]
    assert lengths == [[s.n_scored for s in group.sequences] for group in masked]
    assert counts.n_emptied == sum(n == 0 for each in lengths for n in each) > 0
    for group in masked:
        assert math.isfinite(Sft().loss(group.scores(score_all(base, group.sequences, token_budget=99))).value)


def test_counts_are_over_all_responses(base, groups):
    masked, counts = mask_tokens(base, groups, Stm(perplexity=middle(base, groups)), SETTINGS)
    before, after = (sum(s.n_scored for g in each for s in g.sequences) for each in (groups, masked))
    assert (counts.n_tokens, counts.n_masked, counts.n_responses) == (before, before - after, 9)
    assert 0.4 < counts.n_masked / counts.n_tokens < 0.6


def test_counts_are_told_in_one_line():
    assert str(MaskCounts(200, 30, 12, 0)) == "token mask: 30 of 200 response tokens are left out (15.0%)"
    assert str(MaskCounts(200, 30, 12, 2)).endswith("(15.0%); 2 of 12 responses have none left")


def test_a_mask_that_leaves_nothing_at_all_is_refused(base):
    with pytest.raises(DataError, match=r"leaves out all \d+ tokens of the 2 responses.*Raise train.token_mask.perpl"):
        mask_tokens(base, [group_of(base, 2)], Stm(perplexity=1.0001), SETTINGS)


def group_of(base, n):
    """Responses of one token each, the least likely one."""
    worst = int(base.policy(input_ids=torch.tensor([[5, 6]])).logits[0, -1].argmin())
    sequences = tuple(TokenSequence(f"w/{i}", (5, 6), (worst,)) for i in range(n))
    return TrainGroup(sequences, torch.arange(float(n)).double(), torch.zeros(n).double())


def test_no_groups_give_none(base):
    """Nothing held out, for instance."""
    assert mask_tokens(base, [], Stm(), SETTINGS) == ([], MaskCounts(0, 0, 0, 0))


def test_with_an_empty_prompt_the_first_token_neither_counts_nor_is_masked(base):
    sequences = (TokenSequence("e/0", (), (5, 6, 7)), TokenSequence("e/1", (), (5,)))
    group = TrainGroup(sequences, torch.tensor([0.0, 1.0]).double(), torch.zeros(2).double())
    ((found,), counts) = mask_tokens(base, [group], Stm(perplexity=1e300), SETTINGS)
    assert found.sequences == sequences
    assert counts == MaskCounts(n_tokens=2, n_masked=0, n_responses=2, n_emptied=0)


def test_the_pass_leaves_no_gradient(base, groups):
    mask_tokens(base, groups, Stm(perplexity=1e300), SETTINGS)
    assert all(parameter.grad is None for parameter in base.policy.parameters())


def a_group(number):
    texts = ("the answer is 5", "no", "box 5", "no answer")
    responses = tuple(
        ScoredResponse(index=i, teacher="t", text=f"{text} {number}", finish_reason="stop", correct=1.0,
                       well_formed=True, reward=float(i % 3), advantage=0.0)
        for i, text in enumerate(texts)
    )  # fmt: skip
    return ResponseGroup(question_id=f"q{number}", prompt=f"{number} + 5?", responses=responses, degenerate=False)


def run(directory, work, **values):
    """Three steps of training on the tiny model, in float32 as users train."""
    torch.set_num_threads(1)
    params = TrainParams(
        lora=LoraParams(r=2, alpha=4), learning_rate=5e-3, groups_per_step=1, checkpoint_every=2, measure_every=3,
        held_out_share=0.25, **values,
    )  # fmt: skip
    return train(
        load_model(directory, "float32"), load_tokenizer(directory), [a_group(i) for i in range(4)], context_free=(),
        references=None, params=params, sequences=SequenceParams(max_length=200), seed=7, work=work, run_key="key",
    )  # fmt: skip


def weights(result):
    return [value for _, value in result.model.named_parameters() if value.requires_grad]


def test_a_threshold_that_no_token_reaches_gives_the_same_training_to_the_bit(tiny_model_dir, tmp_path):
    plain = run(tiny_model_dir, tmp_path / "plain")
    masked = run(tiny_model_dir, tmp_path / "masked", token_mask=Stm(perplexity=1e300))
    assert [step.values for step in masked.metrics] == [step.values for step in plain.metrics]
    assert all(torch.equal(a, b) for a, b in zip(weights(masked), weights(plain), strict=True))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.kind}-{getattr(o, 'pairs', '')}")
def test_a_masked_training_starts_at_the_base_and_learns(tiny_model_dir, tmp_path, capsys, objective):
    result = run(tiny_model_dir, tmp_path, token_mask=Stm(perplexity=3000.0), objective=objective)
    first, last = result.metrics[0].values, result.metrics[-1].values
    assert first["log_ratio_group"] == pytest.approx(0.0, abs=1e-3)
    assert math.isfinite(last["held_out_objective"])
    assert any(bool(value.any()) for value in weights(result)[1::2])
    assert re.search(r"\[train\] token mask: [1-9]\d of 100 response tokens are left out", capsys.readouterr().out)


def test_a_masked_training_that_was_stopped_ends_with_the_same_bits(tiny_model_dir, tmp_path):
    """The mask is made anew from the base, not from what was trained so far."""
    whole, again = (run(tiny_model_dir, tmp_path / name, token_mask=Stm(perplexity=3000.0)) for name in ("a", "b"))
    for path in (tmp_path / "b" / "checkpoints").glob("step-00000003"):
        shutil.rmtree(path)
    again = run(tiny_model_dir, tmp_path / "b", token_mask=Stm(perplexity=3000.0))
    assert [step.values for step in again.metrics] == [step.values for step in whole.metrics]
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(whole), strict=True))
