"""Context-free samples: what the base model writes from its start symbol alone, with no prompt and no template.

Home of: CFS sampling (arXiv 2505.13811, section 3).

At temperature 1 with nothing cut the samples x ~ p_base make mean(log p_base(x) - log p(x)) an unbiased estimate of
KL(p_base || p), which is what the training part protects and the held-out part measures. Ending at the end token or at
max_new_tokens keeps that true for the text up to there. Filtering or removing repeats would not, so nothing is dropped.

SmolLM2-135M-Instruct's start symbol is `<|im_start|>`, which in chat opens a turn. Left to itself it writes no chat
after it: eight of eight samples looked at were web text, code or prose as in pretraining, as after `<|endoftext|>`.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from metagdpo.errors import ConfigError, ModelError
from metagdpo.models.port import Request, Sampling, TextModel, derived_seed
from metagdpo.records.sample import ContextFreeSample
from metagdpo.schema import Frozen

DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "</s>", "<eos>")
"""Names under which models separate the documents they were pretrained on."""


class PreserveParams(Frozen):
    """Section `preserve`."""

    n_train: int = Field(ge=0)
    """Samples for the CFS term of training; 0 goes without."""
    n_held_out: int = Field(ge=2)
    """Samples that training never sees, to measure drift on; one alone would give no interval."""
    max_new_tokens: int = Field(gt=0)
    prefix: Literal["bos", "eot", "custom"] = "bos"
    """Start symbol: the model's own, its document separator (for models without one), or `prefix_ids`."""
    prefix_ids: tuple[int, ...] = ()
    """Token ids, for `custom` alone."""
    temperature: float = Field(default=1.0, gt=0)
    """Other values than 1 sharpen or flatten what is preserved, and drift is then no longer unbiased."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    batch_size: int = Field(default=64, gt=0)

    @model_validator(mode="after")
    def _prefix_is_clear(self) -> "PreserveParams":
        if (self.prefix == "custom") != bool(self.prefix_ids):
            message = "prefix_ids are given if and only if prefix is `custom`"
            raise ValueError(message)
        return self


def start_symbol(tokenizer: Any, settings: PreserveParams) -> tuple[int, ...]:
    """The ids from which the model writes; never scored.

    Args:
        tokenizer: A transformers tokenizer.
        settings: Which start symbol.

    Raises:
        ModelError: The tokenizer has no such symbol; names the other choices.
        ConfigError: A custom id is outside the vocabulary.
    """
    if settings.prefix == "custom":
        if not all(0 <= token < len(tokenizer) for token in settings.prefix_ids):
            raise ConfigError(
                f"preserve.prefix_ids {list(settings.prefix_ids)} must lie in the vocabulary, 0..{len(tokenizer) - 1}."
            )
        return settings.prefix_ids
    if settings.prefix == "bos":
        if tokenizer.bos_token_id is None:
            message = (
                f"the tokenizer in {tokenizer.name_or_path} has no start symbol. Set preserve.prefix to `eot` (its "
                "document separator) or to `custom` with prefix_ids."
            )
            raise ModelError(message)
        return (int(tokenizer.bos_token_id),)
    vocabulary = tokenizer.get_added_vocab()
    ends = [vocabulary[name] for name in DOCUMENT_ENDS if name in vocabulary]
    if not ends:
        message = (
            f"the tokenizer in {tokenizer.name_or_path} has none of the document separators "
            f"{', '.join(DOCUMENT_ENDS)}. Set preserve.prefix to `bos`, or to `custom` with prefix_ids."
        )
        raise ModelError(message)
    return (int(ends[0]),)


def sample_context_free(
    model: TextModel, weights: str, prefix_ids: Sequence[int], settings: PreserveParams, seed: int
) -> tuple[list[ContextFreeSample], list[ContextFreeSample]]:
    """The training part and the held-out part, each in the order of its index.

    The parts have streams of their own: more samples in one leave the other, and the drift measured on it, as it was.

    Args:
        model: The base model.
        weights: Digest of its weights, for provenance.
        prefix_ids: The start symbol.
        settings: Counts, length and sampling.
        seed: Every sample's own seed derives from it, the part and the index.

    Raises:
        ModelError: The model failed (samples that came are in its journal), or it does not show its tokens.
    """
    parts = [("train", index) for index in range(settings.n_train)]
    parts += [("held_out", index) for index in range(settings.n_held_out)]
    seeds = [derived_seed(seed, "context_free", part, index) for part, index in parts]
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens)
    found = dict(model.complete([Request(prefix_ids=tuple(prefix_ids), seed=s) for s in seeds], sampling))
    samples: dict[str, list[ContextFreeSample]] = {"train": [], "held_out": []}
    for position, (part, index) in enumerate(parts):
        completion = found[position]
        if not completion.token_ids:
            message = f"{model.identity} does not show the tokens it sampled; context-free text needs a local model."
            raise ModelError(message)
        samples[part].append(
            ContextFreeSample(
                index=index,
                prefix_ids=tuple(prefix_ids),
                token_ids=completion.token_ids,
                text=completion.text,
                ended=completion.finish_reason == "stop",
                model=weights,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=seeds[position],
            )
        )
    return samples["train"], samples["held_out"]
