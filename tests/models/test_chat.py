import pytest

from metagdpo.errors import ModelError
from metagdpo.models.chat import render, stop_ids
from metagdpo.models.load import load_model, load_tokenizer
from metagdpo.models.port import Message

USER = Message(role="user", content="2 + 2?")


def test_a_conversation_is_rendered_by_the_models_own_template(tiny_model_dir):
    tokenizer = load_tokenizer(tiny_model_dir)
    expected = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(render(tokenizer, [USER])) == expected
    assert (
        tokenizer.decode(render(tokenizer, [USER], add_generation_prompt=False))
        == expected[: -len("<|im_start|>assistant\n")]
    )


def test_special_tokens_are_single_ids(tiny_model_dir):
    tokenizer = load_tokenizer(tiny_model_dir)
    assert render(tokenizer, [USER])[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")


def test_a_model_without_a_template_is_refused_with_the_way_out(tiny_model_dir):
    tokenizer = load_tokenizer(tiny_model_dir)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"has no chat template.*chat_template.jinja"):
        render(tokenizer, [USER])


def test_a_template_that_refuses_a_role_gives_a_model_error(tiny_model_dir):
    tokenizer = load_tokenizer(tiny_model_dir)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ModelError, match=r"refuses .user.: System role not supported"):
        render(tokenizer, [USER])


def test_stop_ids_are_the_configured_end_tokens_and_the_known_names(tiny_model_dir):
    tokenizer, model = load_tokenizer(tiny_model_dir), load_model(tiny_model_dir, "float32")
    end, document = (tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>"))
    assert stop_ids(tokenizer, model) == {end, document}
    model.generation_config.eos_token_id = [end, 77]
    assert stop_ids(tokenizer, model) == {end, document, 77}
