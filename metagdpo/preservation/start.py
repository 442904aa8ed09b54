"""The ids from which the base writes when nobody asks: start symbol, document separator, chat opening, or given ids."""

from typing import Any

from metagdpo.errors import ConfigError, ModelError
from metagdpo.preservation.chat_layout import chat_layout
from metagdpo.preservation.settings import ContextFreeParams

DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "</s>", "<eos>")
"""Names under which models separate the documents they were pretrained on."""


def start_prefix(tokenizer: Any, settings: ContextFreeParams) -> tuple[int, ...]:
    """The ids before the first sampled token; never scored.

    `chat_user_prefix` is the one choice by which a chat template reaches these samples, the user's own choice: a model
    tuned on chat then writes what users ask (Magpie, arXiv 2406.08464). A default system message stands in it.

    Args:
        tokenizer: A transformers tokenizer.
        settings: Which start.

    Raises:
        ModelError: The tokenizer has no such start; names the other choices.
        ConfigError: A custom id is outside the vocabulary.
    """
    match settings.prefix:
        case "bos":
            return _start_symbol(tokenizer)
        case "eot":
            return _document_separator(tokenizer)
        case "chat_user_prefix":
            return chat_layout(tokenizer, 1)[0]
        case "custom":
            return _given(tokenizer, settings.prefix_ids)


def _start_symbol(tokenizer: Any) -> tuple[int, ...]:
    if tokenizer.bos_token_id is None:
        message = (
            f"the tokenizer in {tokenizer.name_or_path} has no start symbol. Set preserve.context_free.prefix to `eot` "
            "(its document separator), to `chat_user_prefix` (its chat template up to a user's words), or to `custom` "
            "with prefix_ids."
        )
        raise ModelError(message)
    return (int(tokenizer.bos_token_id),)


def _document_separator(tokenizer: Any) -> tuple[int, ...]:
    vocabulary = tokenizer.get_added_vocab()
    ends = [vocabulary[name] for name in DOCUMENT_ENDS if name in vocabulary]
    if not ends:
        message = (
            f"the tokenizer in {tokenizer.name_or_path} has none of the document separators "
            f"{', '.join(DOCUMENT_ENDS)}. Set preserve.context_free.prefix to `bos`, to `chat_user_prefix`, or to "
            "`custom` with prefix_ids."
        )
        raise ModelError(message)
    return (int(ends[0]),)


def _given(tokenizer: Any, prefix_ids: tuple[int, ...]) -> tuple[int, ...]:
    if not all(0 <= token < len(tokenizer) for token in prefix_ids):
        message = (
            f"preserve.context_free.prefix_ids {list(prefix_ids)} must lie in the vocabulary, 0..{len(tokenizer) - 1}."
        )
        raise ConfigError(message)
    return prefix_ids
