import random

import pytest

from metagdpo.errors import DataError
from metagdpo.evaluation.continuations import _families, _packs, continuation_log_probs

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model_dir).double().eval()


def plainly(model, context, continuation):
    """The definition: one text at a time, all positions, the whole vocabulary."""
    ids = torch.tensor([context + continuation])
    with torch.inference_mode():
        log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
    rows = log_probs[len(context) - 1 : -1]
    target = torch.tensor(continuation)
    return float(rows.gather(-1, target[:, None]).sum()), bool((rows.argmax(-1) == target).all())


def scored(model, requests, max_length=512, pack_tokens=512):
    found = dict(continuation_log_probs(model, requests, max_length=max_length, pack_tokens=pack_tokens))
    return [found[position] for position in range(len(requests))]


def text(rng, low, high):
    return [rng.randrange(290) for _ in range(rng.randint(low, high))]


def lopsided_requests(rng):
    """Questions with one to five options: common beginnings, one-token options, equal options, one inside another."""
    requests = []
    for _ in range(40):
        context, start = text(rng, 1, 40), text(rng, 0, 6)
        options = [start + text(rng, 1, 12) for _ in range(rng.randint(1, 5))]
        requests += [(context, option) for option in options]
    context = text(rng, 5, 5)
    inside = [([*context], option) for option in ([7], [8], [7], [7, 8], [7, 8, 9], [7, 8, 9])]
    return requests + inside


def test_values_are_those_of_one_text_at_a_time(model):
    requests = lopsided_requests(random.Random(0))
    random.Random(1).shuffle(requests)
    for (value, greedy), request in zip(scored(model, requests), requests, strict=True):
        expected, expected_greedy = plainly(model, *request)
        assert value == pytest.approx(expected, rel=1e-9)
        assert greedy == expected_greedy


def test_another_size_of_the_packs_gives_the_same_values(model):
    requests = lopsided_requests(random.Random(4))
    values = [value for value, _ in scored(model, requests)]
    assert values == pytest.approx([value for value, _ in scored(model, requests, pack_tokens=64)], rel=1e-9)


def test_what_greedy_decoding_writes_is_recognised(model):
    ids = [5, 6, 7]
    with torch.inference_mode():
        for _ in range(4):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    wrong = [*ids[3:-1], (ids[-1] + 1) % 290]
    assert [greedy for _, greedy in scored(model, [(ids[:3], ids[3:]), (ids[:3], wrong)])] == [True, False]


def test_a_question_longer_than_a_pack_has_one_of_its_own(model):
    rng = random.Random(2)
    requests = [(text(rng, 300, 300), text(rng, 100, 100)), (text(rng, 3, 3), [1])]
    requests += [(requests[0][0], text(rng, 150, 150)), (requests[0][0], text(rng, 90, 90))]
    assert len(list(_packs(_families(requests, 512), 512))) == 2
    for (value, _), request in zip(scored(model, requests), requests, strict=True):
        assert value == pytest.approx(plainly(model, *request)[0], rel=1e-9)


def test_the_common_beginning_of_options_is_computed_once():
    (family,) = _families([([1, 2], [3, 4, 5, 6]), ([1, 2], [3, 4, 7, 8])], 512)
    assert (family.shared, family.size) == (4, 6)  # 1 2 3 4, then 5 and 7: the last tokens are only predicted


def test_packs_hold_every_family_once_and_no_pack_overflows():
    families = _families(lopsided_requests(random.Random(3)), 512)
    packs = list(_packs(families, 300))
    assert sorted(p for f in families for p in f.positions) == sorted(
        p for pack in packs for f in pack for p in f.positions
    )
    assert all(sum(f.size for f in pack) <= 300 for pack in packs)


def test_a_text_that_does_not_fit_is_refused_and_not_cut(model):
    with pytest.raises(DataError, match="an item has 12 tokens, and the model reads at most 10"):
        scored(model, [([1] * 8, [2] * 4)], max_length=10)


def test_nothing_to_score_is_no_work(model):
    assert scored(model, []) == []
