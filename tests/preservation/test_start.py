import pytest

from metagdpo.errors import ConfigError, ModelError
from metagdpo.models.load import load_tokenizer
from metagdpo.params import validate
from metagdpo.preservation.settings import ContextFreeParams
from metagdpo.preservation.start import start_prefix


@pytest.fixture
def tokenizer(tiny_model_dir):
    return load_tokenizer(tiny_model_dir)


def start(tokenizer, prefix, ids=()):
    value = {"prefix": prefix, "prefix_ids": list(ids), "n_train": 1, "n_held_out": 2, "max_new_tokens": 4}
    return start_prefix(tokenizer, validate(value, ContextFreeParams, where="params.yaml"))


def test_bos_is_the_models_start_symbol_alone(tokenizer):
    assert start(tokenizer, "bos") == (tokenizer.convert_tokens_to_ids("<|im_start|>"),)


def test_eot_is_the_document_separator_alone(tokenizer):
    assert start(tokenizer, "eot") == (tokenizer.convert_tokens_to_ids("<|endoftext|>"),)


def test_custom_is_what_was_given(tokenizer):
    assert start(tokenizer, "custom", (7, 8)) == (7, 8)


def test_the_chat_prefix_is_the_template_up_to_a_users_words(tokenizer):
    assert tokenizer.decode(start(tokenizer, "chat_user_prefix")) == "<|im_start|>user\n"


def test_the_chat_prefix_has_the_default_system_message_of_a_template_that_adds_one(tokenizer):
    tokenizer.chat_template = "{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}" + tokenizer.chat_template
    found = tokenizer.decode(start(tokenizer, "chat_user_prefix"))
    assert found == "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\n"


def test_a_model_without_a_start_symbol_names_the_other_choices(tokenizer):
    tokenizer.bos_token = None
    with pytest.raises(ModelError, match=r"no start symbol.*`eot`.*`chat_user_prefix`.*`custom` with prefix_ids"):
        start(tokenizer, "bos")


def test_a_model_without_a_document_separator_names_the_other_choices():
    class Bare:
        name_or_path = "models/bare"

        def get_added_vocab(self):
            return {"<s>": 0}

    with pytest.raises(ModelError, match=r"models/bare has none of .*</s>.*`bos`.*`chat_user_prefix`.*`custom`"):
        start(Bare(), "eot")


def test_a_model_without_a_chat_template_has_no_chat_prefix(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        start(tokenizer, "chat_user_prefix")


@pytest.mark.parametrize("outside", [-1, 10_000])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, outside):
    with pytest.raises(ConfigError, match=rf"\[3, {outside}\] must lie in the vocabulary, 0\.\."):
        start(tokenizer, "custom", (3, outside))
