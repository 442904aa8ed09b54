import math

import pytest

from metagdpo.errors import ConfigError, ModelError
from metagdpo.models.load import identify, load_tokenizer
from metagdpo.models.local import Local
from metagdpo.models.port import Completion
from metagdpo.params import validate
from metagdpo.preservation.context_free import PreserveParams, sample_context_free, start_symbol


def settings(**changes):
    return validate(
        {"n_train": 3, "n_held_out": 2, "max_new_tokens": 12, **changes}, PreserveParams, where="params.yaml"
    )


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return Local(tiny_model_dir, identify("tiny", tiny_model_dir), dtype="float32", batch_size=8)


def sample(model, seed=0, **changes):
    return sample_context_free(model, "sha256:w", (1,), settings(**changes), seed)


def test_both_parts_have_their_counts_and_full_provenance(model):
    training, held_out = sample(model)
    assert [s.index for s in training] == [0, 1, 2]
    assert [s.index for s in held_out] == [0, 1]
    for one in (*training, *held_out):
        assert (one.prefix_ids, one.model, one.temperature, one.top_p) == ((1,), "sha256:w", 1.0, 1.0)
        assert one.ended or len(one.token_ids) == 12
    assert len({s.seed for s in (*training, *held_out)}) == 5


def test_the_held_out_part_does_not_depend_on_the_size_of_the_training_part(model):
    assert sample(model)[1] == sample(model, n_train=6)[1]
    assert sample(model)[0] == sample(model, n_train=6)[0][:3]


def test_another_seed_gives_other_samples(model):
    assert sample(model)[1] != sample(model, seed=1)[1]


def test_the_first_token_follows_the_models_own_distribution_after_the_start_symbol(model):
    """With x ~ p, the mean of -log p(x) over n samples is the entropy H(p), within 5 standard errors."""
    import torch

    n = 600
    training, _ = sample(model, n_train=n, max_new_tokens=1)
    with torch.inference_mode():
        log_p = model._loaded[0](torch.tensor([[1]])).logits[0, -1].double().log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum().item()
    variance = (log_p.exp() * (log_p + entropy) ** 2).sum().item()
    found = -sum(log_p[s.token_ids[0]].item() for s in training) / n
    assert abs(found - entropy) < 5 * math.sqrt(variance / n)


def test_the_start_symbol_is_bos_the_document_separator_or_given_ids(tiny_model_dir):
    tokenizer = load_tokenizer(tiny_model_dir)
    assert start_symbol(tokenizer, settings()) == (tokenizer.convert_tokens_to_ids("<|im_start|>"),)
    assert start_symbol(tokenizer, settings(prefix="eot")) == (tokenizer.convert_tokens_to_ids("<|endoftext|>"),)
    assert start_symbol(tokenizer, settings(prefix="custom", prefix_ids=[7, 8])) == (7, 8)


def test_a_model_without_a_start_symbol_names_the_other_choices(tiny_model_dir):
    tokenizer = load_tokenizer(tiny_model_dir)
    tokenizer.bos_token = None
    with pytest.raises(ModelError, match=r"no start symbol.*`eot`.*`custom`"):
        start_symbol(tokenizer, settings())


def test_an_id_outside_the_vocabulary_is_refused(tiny_model_dir):
    with pytest.raises(ConfigError, match=r"must lie in the vocabulary"):
        start_symbol(load_tokenizer(tiny_model_dir), settings(prefix="custom", prefix_ids=[10_000]))


def test_a_model_that_hides_its_tokens_is_refused():
    class Hidden:
        identity = "endpoint"

        def complete(self, requests, _):
            yield from ((k, Completion(text="x", finish_reason="stop")) for k in range(len(requests)))

    with pytest.raises(ModelError, match="does not show the tokens"):
        sample(Hidden())


@pytest.mark.parametrize(
    "changes", [{"prefix": "custom"}, {"prefix_ids": [1]}, {"n_held_out": 1}, {"temperature": 0}, {"prefix": "eos"}]
)
def test_settings_that_cannot_be_are_refused(changes):
    with pytest.raises(ConfigError, match="is not valid"):
        settings(**changes)
