import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metagdpo.errors import ModelError
from metagdpo.models.chat import render
from metagdpo.models.load import load_tokenizer
from metagdpo.models.port import Message
from metagdpo.preservation.chat_layout import chat_layout

TURN = "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
ASKED = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
LOOP = "{% for message in messages %}" + TURN + "{% endfor %}" + ASKED
TEMPLATES = {
    "plain": LOOP,
    "default system message": "{{ '<|im_start|>system\nYou are Tiny<|im_end|>\n' }}" + LOOP,
    "trims": LOOP.replace("message['content']", "message['content'] | trim"),
    "start symbol once": "{{ bos_token }}" + LOOP,
    "no generation prompt": LOOP.removesuffix(ASKED),
    "ends in words": "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
    "brackets": "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}",
}
EMPTY_THOUGHTS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'].split('</think>')[-1] + '<|im_end|>\n' }}{% endfor %}" + ASKED
)
"""As Qwen3 does: thoughts stand only in the newest answer."""

words = st.text("abcXYZ019.,?!()+é中🙂 ", min_size=1, max_size=12).map(str.strip).filter(bool)


@pytest.fixture
def tokenizer(tiny_model_dir):
    return load_tokenizer(tiny_model_dir)


@pytest.fixture(scope="module")
def shared_tokenizer(tiny_model_dir):
    return load_tokenizer(tiny_model_dir)


def conversation(said):
    return [Message(role=("user", "assistant")[turn % 2], content=text) for turn, text in enumerate(said)]


def ids(tokenizer, text):
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


def test_the_entries_are_what_the_template_writes_between_words(tokenizer):
    shown = [tokenizer.decode(entry) for entry in chat_layout(tokenizer, 3)]
    assert shown == [
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n<|im_start|>user\n",
    ]


@pytest.mark.parametrize("name", ["plain", "default system message", "trims", "start symbol once"])
@settings(deadline=None)
@given(said=st.lists(words, min_size=2, max_size=6))
def test_words_between_the_entries_are_the_templates_rendering(shared_tokenizer, name, said):
    """Words whose tokens round-trip, put between the entries, give the tokens of the whole conversation."""
    shared_tokenizer.chat_template = TEMPLATES[name]
    layout = chat_layout(shared_tokenizer, len(said) + len(said) % 2)
    built = ()
    for turn, (between, text) in enumerate(zip(layout, said, strict=False)):
        if turn % 2:
            assert built + between == tuple(render(shared_tokenizer, conversation(said[:turn])))
        built += between + ids(shared_tokenizer, text)
    end = ids(shared_tokenizer, "<|im_end|>\n")
    assert built + end == tuple(render(shared_tokenizer, conversation(said), add_generation_prompt=False))


def test_a_space_that_the_tokeniser_joins_to_a_word_belongs_to_the_word():
    """Split as text, the opening would end in a space of its own, which such a tokeniser never writes before words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    joined = Tokenizer(models.BPE())
    joined.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    joined.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    joined.train_from_iterator(["INST apple", "INST Zug", "INST 7"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=joined)
    tokenizer.add_special_tokens(dict.fromkeys(["eos_token"], "!"))
    tokenizer.chat_template = TEMPLATES["brackets"]
    assert [tokenizer.decode(entry) for entry in chat_layout(tokenizer, 3)] == ["[INST]", " [/INST]", "![INST]"]


def test_a_template_without_a_generation_prompt_shows_the_assistants_header_by_its_turn(tokenizer):
    tokenizer.chat_template = TEMPLATES["no generation prompt"]
    assert tokenizer.decode(chat_layout(tokenizer, 2)[1]) == "<|im_end|>\n<|im_start|>assistant\n"


def test_turns_may_be_marked_by_words_alone(tokenizer):
    tokenizer.chat_template = TEMPLATES["ends in words"]
    shown = [tokenizer.decode(entry) for entry in chat_layout(tokenizer, 3)]
    assert (shown[1], shown[2].rstrip()) == ("\nassistant:", "\nuser:")


def test_a_template_that_hides_earlier_thoughts_serves_one_question_and_answer(tokenizer):
    tokenizer.chat_template = EMPTY_THOUGHTS
    assert tokenizer.decode(chat_layout(tokenizer, 2)[1]) == "<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_that_hides_earlier_thoughts_is_refused_for_longer_dialogues(tokenizer):
    tokenizer.chat_template = EMPTY_THOUGHTS
    with pytest.raises(ModelError, match=r"shows turn 2 or one before it otherwise.*n_turns to 2"):
        chat_layout(tokenizer, 4)


def test_a_template_that_changes_earlier_turns_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages | length }}" + LOOP
    with pytest.raises(ModelError, match=r"shows turn \d or one before it otherwise.*self_dialogue to null"):
        chat_layout(tokenizer, 4)


def test_a_template_that_shows_only_the_last_turn_is_refused(tokenizer):
    tokenizer.chat_template = LOOP.replace("in messages", "in messages[-1:]")
    with pytest.raises(ModelError, match=r"otherwise once the next one begins|turns cannot alternate"):
        chat_layout(tokenizer, 4)


def test_a_template_that_leaves_out_what_the_assistant_says_is_refused(tokenizer):
    tokenizer.chat_template = LOOP.replace(
        "message['content']", "(message['content'] if message['role'] == 'user' else 'Yes')"
    )
    with pytest.raises(ModelError, match=r"does not show what the assistant says in turn 2.*null"):
        chat_layout(tokenizer, 4)


def test_a_template_that_refuses_the_assistant_is_refused_with_its_own_words(tokenizer):
    refusal = "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
    tokenizer.chat_template = refusal + LOOP
    with pytest.raises(ModelError, match=r"refuses \(user, assistant, user\): one turn only"):
        chat_layout(tokenizer, 4)


def test_a_model_without_a_template_is_refused(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        chat_layout(tokenizer, 2)


def test_a_template_that_opens_with_the_words_themselves_is_refused(tokenizer):
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] + '<|im_end|>' }}{% endfor %}"
    with pytest.raises(ModelError, match=r"writes nothing before a user's words.*`bos` or `eot`"):
        chat_layout(tokenizer, 2)
