import math

import pytest
from tiny import CHAT_TEMPLATE, make_tiny_model

from metagdpo.models.load import identify, load_tokenizer
from metagdpo.models.local import Local
from metagdpo.params import validate
from metagdpo.preservation.context_free import sample_context_free
from metagdpo.preservation.settings import ContextFreeParams
from metagdpo.preservation.start import start_prefix

DEFAULT_SYSTEM = "{{ '<|im_start|>system\nYou are Tiny<|im_end|>\n' }}" + CHAT_TEMPLATE


def settings(**changes):
    return validate(
        {"n_train": 3, "n_held_out": 2, "max_new_tokens": 12, **changes}, ContextFreeParams, where="params.yaml"
    )


def local(path, batch_size=8):
    return Local(path, identify("tiny", path), dtype="float32", batch_size=batch_size)


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return local(tiny_model_dir)


@pytest.fixture(scope="module")
def chatty_dir(tmp_path_factory):
    """A model whose template adds a default system message, and whose tokenizer puts a start symbol before a text."""
    from tokenizers.processors import TemplateProcessing

    path = make_tiny_model(tmp_path_factory.mktemp("chatty") / "model")
    tokenizer = load_tokenizer(path)
    tokenizer.chat_template = DEFAULT_SYSTEM
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.save_pretrained(path)
    return path


def sample(model, seed=0, n_train=3, **changes):
    return sample_context_free(model, "sha256:w", (1,), settings(**changes), n_train=n_train, seed=seed)


def prompts_seen(model, prefix, ids=()):
    """What the weights themselves read before the first sampled token, padding left out."""
    wanted = settings(prefix=prefix, prefix_ids=list(ids))
    transformer, tokenizer = model._loaded
    seen = []

    def look(_, __, inputs):
        if inputs["past_key_values"].get_seq_length() == 0:
            width = inputs["input_ids"].shape[1]
            masks = inputs["attention_mask"][:, -width:].bool()
            seen.extend(row[mask].tolist() for row, mask in zip(inputs["input_ids"], masks, strict=True))

    hook = transformer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        sample_context_free(model, "sha256:w", start_prefix(tokenizer, wanted), wanted, n_train=3, seed=0)
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    ("prefix", "ids", "expected"), [("bos", (), [1]), ("eot", (), [0]), ("custom", (7, 8), [7, 8])]
)
def test_the_weights_read_the_prefix_and_nothing_of_a_template(chatty_dir, prefix, ids, expected):
    """No system message, no role, no second start symbol: what leaks in here would be what is preserved."""
    model = local(chatty_dir, batch_size=2)
    assert "You are Tiny" in model._loaded[1].apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert prompts_seen(model, prefix, ids) == [expected] * 5


def test_by_choice_the_weights_read_the_template_up_to_a_users_words(chatty_dir):
    """The one mode with a template, which also shows that the test above would see one."""
    model = local(chatty_dir)
    seen = prompts_seen(model, "chat_user_prefix")
    expected = "<|im_start|>system\nYou are Tiny<|im_end|>\n<|im_start|>user\n"
    assert [model._loaded[1].decode(ids) for ids in seen] == [expected] * 5


def test_samples_do_not_depend_on_the_chat_template(model, chatty_dir):
    assert sample(model) == sample(local(chatty_dir))


def test_both_parts_have_their_counts_and_full_provenance(model):
    training, held_out = sample(model)
    assert [s.index for s in training] == [0, 1, 2]
    assert [s.index for s in held_out] == [0, 1]
    for one in (*training, *held_out):
        assert (one.prefix, one.prefix_ids, one.model) == ("bos", (1,), "sha256:w")
        assert (one.temperature, one.top_p, one.max_new_tokens) == (1.0, 1.0, 12)
        assert one.ended or len(one.token_ids) == 12
    assert len({s.seed for s in (*training, *held_out)}) == 5


def test_the_held_out_part_does_not_depend_on_the_amount_of_training_samples(model):
    assert sample(model)[1] == sample(model, n_train=6)[1] == sample(model, n_train=0)[1]


def test_more_samples_of_a_part_leave_those_before_as_they_were(model):
    assert sample(model)[0] == sample(model, n_train=6, n_held_out=5)[0][:3]
    assert sample(model)[1] == sample(model, n_held_out=5)[1][:2]


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
