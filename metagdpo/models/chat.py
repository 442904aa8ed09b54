"""The one home of chat rendering: messages to token ids, and the tokens that end a turn.

A template may add what nobody wrote: SmolLM2's puts a default system message first. That is what the model was trained
on and therefore right for chat; context-free sampling never passes through here.
"""

from collections.abc import Sequence
from typing import Any

from metagdpo.errors import ModelError
from metagdpo.models.port import Message

END_NAMES = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|end_of_turn|>",
    "<|endoftext|>", "<|end_of_text|>",
)  # fmt: skip
"""Names under which models end a turn or a document; not every model lists its own among its end tokens."""


def render(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
    """Token ids of a conversation as the model's own chat template writes it.

    Args:
        tokenizer: A transformers tokenizer.
        messages: The turns, in order.
        add_generation_prompt: End with the opening of the assistant's turn.

    Raises:
        ModelError: The model has no chat template, or the template refuses the conversation.
    """
    if not tokenizer.chat_template:
        message = (
            f"the tokenizer in {tokenizer.name_or_path} has no chat template, and guessing one would measure another "
            "model. Put the template its authors give into chat_template.jinja beside tokenizer.json, or use an "
            "instruction-tuned model."
        )
        raise ModelError(message)
    import jinja2

    try:
        ids = tokenizer.apply_chat_template(
            [message.model_dump() for message in messages],
            add_generation_prompt=add_generation_prompt,
            tokenize=True,
            return_dict=False,
        )
    except jinja2.TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise ModelError(f"the chat template in {tokenizer.name_or_path} refuses ({roles}): {error}") from error
    return [int(token) for token in ids]


def stop_ids(tokenizer: Any, model: Any) -> frozenset[int]:
    """Ids that end a completion: the end tokens of tokenizer and generation configuration, and END_NAMES.

    Args:
        tokenizer: A transformers tokenizer.
        model: The transformers model; its generation configuration may name several end tokens.
    """
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = configured if isinstance(configured, list) else [configured]
    vocabulary = tokenizer.get_added_vocab()
    named = [vocabulary.get(name) for name in END_NAMES]
    return frozenset(token for token in (tokenizer.eos_token_id, *listed, *named) if token is not None)
