"""The Fisher diagonal against enumeration of every text of a tiny model, and the pull back against closed forms."""

import functools
import itertools

import pytest
import torch
from exact import _rms_norm
from one_worker import Worker
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from metagdpo.objectives.anchors import low_rank_update
from metagdpo.training.collate import TokenSequence
from metagdpo.training.fisher import fisher_diagonal, pull
from metagdpo.training.logprobs import Scorer
from metagdpo.training.model import make_policy
from metagdpo.training.settings import LoraParams, TrainParams

V, T, END = 5, 3, 0
PARAMS = TrainParams(learning_rate=1e-3, lora=LoraParams(r=2, alpha=6))
FULL = PARAMS.model_copy(update={"method": "full"})


def a_model(seed=0, **settings):
    """A Llama of five tokens, float64 but for its norms, peaked enough that texts differ in probability."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=V, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.8, **settings,
    )  # fmt: skip
    return exact_norms(LlamaForCausalLM(config).double().eval())


def exact_norms(model):
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = functools.partial(_rms_norm, module)
    return model


def every_text():
    """All texts from the start symbol 1: they end at END, or after T tokens."""
    texts = []
    for n in range(1, T + 1):
        for ids in itertools.product(range(V), repeat=n):
            if END not in ids[:-1] and (ids[-1] == END or n == T):
                texts.append(TokenSequence(f"x/{len(texts)}", (1,), ids))
    return texts


def log_prob(model, text):
    ids = torch.tensor([text.prompt_ids + text.response_ids])
    log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(log_probs[t, token] for t, token in enumerate(text.response_ids))


def log_probs(model):
    with torch.no_grad():
        return torch.stack([log_prob(model, text) for text in every_text()])


def expected_fisher(scorer):
    """E over x ~ p_0 of what one sample gives (its sum, not yet divided by its tokens), over E of its tokens."""
    texts = every_text()
    p = log_probs(scorer.policy).exp()
    totals = {}
    for text, weight in zip(texts, p, strict=True):
        for name, one in fisher_diagonal(scorer, [text], Worker()).items():
            totals[name] = totals.get(name, 0.0) + weight * one * text.n_scored
    mean_length = sum(float(weight) * text.n_scored for text, weight in zip(texts, p, strict=True))
    return {name: total / mean_length for name, total in totals.items()}, mean_length


def test_the_texts_are_all_there_are():
    assert float(log_probs(a_model()).exp().sum()) == pytest.approx(1.0, abs=1e-12)


def test_in_expectation_it_is_the_curvature_of_the_divergence_a_token():
    """d^2/d theta_k^2 KL(p_0 || p) at p_0, over all texts, by central differences: (KL(+h) + KL(-h)) / h^2.

    KL is 0 at p_0. One backward pass a text gives the sum over its tokens in expectation only because their scores are
    uncorrelated; a text that ends by itself, or is cut, keeps that.
    """
    model = a_model()
    scorer = Scorer(model)
    found, mean_length = expected_fisher(scorer)
    base, h = log_probs(model), 1e-4
    for name, parameter in model.named_parameters():
        flat = parameter.data.view(-1)
        for k in range(0, len(flat), max(1, len(flat) // 3)):
            before, around = float(flat[k]), 0.0
            for step in (h, -h):
                flat[k] = before + step
                around += float((base.exp() * (base - log_probs(model))).sum())
            flat[k] = before
            curvature = around / h**2 / mean_length
            assert float(found[name].view(-1)[k]) == pytest.approx(curvature, rel=1e-4, abs=1e-7), (name, k)


def test_in_expectation_it_is_the_sum_over_tokens_of_squared_scores():
    """The definition a token: sum over prefixes of p(prefix) sum_v p(v | prefix) (d log p(v | prefix) / d theta)^2."""
    model = a_model()
    scorer = Scorer(model)
    found, mean_length = expected_fisher(scorer)
    weight = model.model.layers[0].self_attn.q_proj.weight
    total = torch.zeros_like(weight)
    for n in range(T):
        for prefix in itertools.product(range(1, V), repeat=n):
            next_V = model(input_ids=torch.tensor([(1, *prefix)])).logits[0, -1].log_softmax(-1)
            reached = sum((log_prob_of_next(model, prefix, t) for t in range(n)), torch.zeros(()).double()).exp()
            for v in range(V):
                (score,) = torch.autograd.grad(next_V[v], weight, retain_graph=True)
                total += (reached * next_V[v].exp() * score.square()).detach()
    torch.testing.assert_close(
        found["model.layers.0.self_attn.q_proj.weight"], total / mean_length, rtol=1e-9, atol=1e-14
    )


def log_prob_of_next(model, prefix, t):
    with torch.no_grad():
        return model(input_ids=torch.tensor([(1, *prefix[:t])])).logits[0, -1].log_softmax(-1)[prefix[t]]


def test_samples_count_by_their_tokens():
    """F = (g_1^2 + g_2^2) / (n_1 + n_2), not the mean of the two quotients."""
    scorer = Scorer(a_model())
    pair = [TokenSequence("a", (1,), (2,)), TokenSequence("b", (1,), (3, 4, 2))]
    apart = [fisher_diagonal(scorer, [text], Worker()) for text in pair]
    for name, found in fisher_diagonal(scorer, pair, Worker()).items():
        torch.testing.assert_close(found, (1 * apart[0][name] + 3 * apart[1][name]) / 4, rtol=1e-12, atol=0)


TEXTS = [TokenSequence("a", (1,), (2, 3, 4)), TokenSequence("b", (1,), (3, 4, 2, 2)), TokenSequence("c", (1,), (4,))]


def test_processes_share_the_samples_and_their_parts_add_up():
    scorer = Scorer(a_model())
    whole = fisher_diagonal(scorer, TEXTS, Worker())
    parts = [fisher_diagonal(scorer, TEXTS, Worker(rank, 2)) for rank in range(2)]
    for name, found in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], found, rtol=1e-12, atol=0)


def test_of_a_lora_policy_it_is_that_of_the_adapted_weights_of_the_base():
    full = fisher_diagonal(Scorer(a_model()), TEXTS, Worker())
    found = fisher_diagonal(Scorer(make_policy(a_model(), PARAMS, seed=1)), TEXTS, Worker())
    assert len(found) == 7
    for name, fisher in found.items():
        torch.testing.assert_close(fisher, full[f"{name.removeprefix('base_model.model.')}.weight"], rtol=1e-9, atol=0)


def a_moved_policy(seed=3):
    policy = make_policy(a_model(), PARAMS, seed=1)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=random))
    return policy


def test_it_is_the_bases_also_when_the_adapter_has_learnt():
    start = fisher_diagonal(Scorer(make_policy(a_model(), PARAMS, seed=1)), TEXTS, Worker())
    moved = fisher_diagonal(Scorer(a_moved_policy()), TEXTS, Worker())
    assert all(torch.equal(fisher, start[name]) for name, fisher in moved.items())


def test_afterwards_the_adapter_learns_and_nothing_else_and_no_gradient_is_left():
    policy = a_moved_policy()
    before = {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
    out = policy(input_ids=torch.tensor([[1, 2, 3]])).logits
    fisher_diagonal(Scorer(policy), TEXTS, Worker())
    assert {name: parameter.requires_grad for name, parameter in policy.named_parameters()} == before
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert torch.equal(policy(input_ids=torch.tensor([[1, 2, 3]])).logits, out)


def test_weights_that_no_sample_reaches_matter_nothing():
    """The embedding of token 4, which nothing reads, in a model whose head is its own."""
    found = fisher_diagonal(Scorer(a_model()), [TokenSequence("a", (1,), (2, 3))], Worker())
    assert float(found["model.embed_tokens.weight"][4].sum()) == 0.0
    assert float(found["model.embed_tokens.weight"][1].sum()) > 0.0


def test_tied_weights_are_one_parameter_with_the_score_of_both_uses():
    model = a_model(tie_word_embeddings=True)
    (text,) = TEXTS[:1]
    (score,) = torch.autograd.grad(log_prob(model, text), model.model.embed_tokens.weight)
    found = fisher_diagonal(Scorer(model), [text], Worker())
    assert "lm_head.weight" not in found
    torch.testing.assert_close(found["model.embed_tokens.weight"], score.square() / 3, rtol=1e-9, atol=1e-15)


def test_in_bfloat16_squares_add_up_in_float32():
    """The same sample 600 times gives what it gives once; in bfloat16 the sum would stand still at 256 times one."""
    scorer = Scorer(a_model().bfloat16())
    once, often = (fisher_diagonal(scorer, TEXTS[2:] * n, Worker()) for n in (1, 600))
    for name, found in often.items():
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, once[name], rtol=1e-4, atol=0)


def gradients(policy):
    found = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()
    return found


def test_the_pull_on_a_full_model_is_weight_times_fisher_times_distance():
    """d/d theta of weight/2 sum F (theta - theta_0)^2; without F it is L2-SP's spring."""
    model = make_policy(a_model(), FULL, seed=0)
    named = dict(model.named_parameters())
    start = {name: p.detach() - 0.01 * (i + 1) for i, (name, p) in enumerate(named.items())}
    fisher = fisher_diagonal(Scorer(model), TEXTS, Worker())
    value = pull(model, named, start, 3.0, fisher)
    distances = {name: p.detach() - start[name] for name, p in named.items()}
    assert value == pytest.approx(sum(float((fisher[n] * d.square()).sum()) for n, d in distances.items()) / 2)
    for name, found in gradients(model).items():
        torch.testing.assert_close(found, 3.0 * fisher[name] * distances[name], rtol=1e-12, atol=0)
    pull(model, named, start, 3.0, None)
    for name, found in gradients(model).items():
        torch.testing.assert_close(found, 3.0 * distances[name], rtol=1e-12, atol=0)


def test_the_pull_on_an_adapter_goes_through_its_update():
    """With M = s B A: d/dB = weight s (F * M) A^T and d/dA = weight s B^T (F * M); F = 1 is L2-SP."""
    policy = a_moved_policy()
    fishers = fisher_diagonal(Scorer(policy), TEXTS, Worker())
    ones = {name: torch.ones_like(fisher) for name, fisher in fishers.items()}
    s, value = 6 / 2, 0.0
    assert pull(policy, {}, {}, 0.7, None) == pytest.approx(pull(policy, {}, {}, 0.7, ones))
    policy.zero_grad()
    found = pull(policy, {}, {}, 0.7, fishers), gradients(policy)
    for name, module in policy.named_modules():
        if name not in fishers:
            continue
        a, b = (side["default"].weight.detach() for side in (module.lora_A, module.lora_B))
        pulled = fishers[name] * (s * b @ a)
        value += float((pulled * (s * b @ a)).sum()) / 2
        for side, slope in (("A", s * b.T @ pulled), ("B", s * pulled @ a.T)):
            torch.testing.assert_close(found[1][f"{name}.lora_{side}.default.weight"], 0.7 * slope, rtol=1e-9, atol=0)
    assert found[0] == pytest.approx(value)


def test_a_fresh_adapter_is_not_pulled():
    policy = make_policy(a_model(), PARAMS, seed=1)
    fishers = fisher_diagonal(Scorer(policy), TEXTS, Worker())
    assert pull(policy, {}, {}, 1.0, fishers) == 0.0
    assert all(float(slope.abs().max()) == 0.0 for slope in gradients(policy).values())


def test_near_the_base_it_is_what_context_free_samples_protect_of_each_weight():
    """Moving one weight by h: KL(p_0 || p) over all texts, a token, is F_k h^2 / 2 + O(h^3)."""
    model = a_model()
    base = log_probs(model)
    fisher, mean_length = expected_fisher(Scorer(model))
    weight = model.model.layers[0].mlp.down_proj.weight
    start = {"w": weight.detach().clone()}
    weight.data[1, 2] += 1e-3
    moved = float((base.exp() * (base - log_probs(model))).sum()) / mean_length
    found = pull(model, {"w": weight}, start, 1.0, {"w": fisher["model.layers.0.mlp.down_proj.weight"]})
    assert found == pytest.approx(moved, rel=1e-2)


def test_layers_that_keep_their_weight_transposed_are_pulled_alike():
    """GPT-2's layers hold [inputs, outputs]; peft's own update of the weight is the reference."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=9,
        n_embd=4,
        n_layer=1,
        n_head=2,
        n_positions=16,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
    )
    params = PARAMS.model_copy(update={"lora": LoraParams(r=2, alpha=6, targets=("c_attn", "c_fc"))})
    with pytest.warns(UserWarning, match="fan_in_fan_out"):
        policy = make_policy(GPT2LMHeadModel(config).eval(), params, seed=1)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    fishers = fisher_diagonal(Scorer(policy), TEXTS, Worker())
    expected = 0.0
    for name, module in policy.named_modules():
        if name in fishers:
            assert fishers[name].shape == module.get_base_layer().weight.shape
            expected += float((fishers[name] * module.get_delta_weight("default").detach().square()).sum()) / 2
    assert len(fishers) == 2
    assert pull(policy, {}, {}, 1.0, fishers) == pytest.approx(expected, rel=1e-5)


def test_the_update_of_an_adapter_is_made_in_float32_at_least():
    a, b = torch.full((1, 2), 1.0, dtype=torch.bfloat16), torch.full((3, 1), 1.0 + 2**-7, dtype=torch.bfloat16)
    found = low_rank_update(a, b, 1.0 + 2**-9)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.full((3, 2), (1 + 2**-7) * (1 + 2**-9)))
