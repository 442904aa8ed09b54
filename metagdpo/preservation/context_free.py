"""Context-free samples: what the base model writes from its start alone, with no prompt and no template.

Home of: CFS sampling (arXiv 2505.13811, section 3).

At temperature 1 with nothing cut the samples x ~ p_base make mean(log p_base(x) - log p(x)) an unbiased estimate of
KL(p_base || p), which is what the training part protects and the held-out part measures. Ending at an end token or at
max_new_tokens keeps that true for the text up to there. Another temperature, top_p below 1, and leaving samples out for
what they say do not: each gives the mean over another distribution.

SmolLM2-135M-Instruct's start symbol is `<|im_start|>`, which in chat opens a turn. Left to itself it writes no chat
after it: eight of eight samples looked at were web text, code or prose as in pretraining, as after `<|endoftext|>`.
"""

from collections.abc import Sequence

from metagdpo.models.port import Sampling, TextModel, derived_seed
from metagdpo.preservation.generator import write
from metagdpo.preservation.settings import ContextFreeParams
from metagdpo.records.sample import ContextFreeSample


def sample_context_free(
    model: TextModel, weights: str, prefix_ids: Sequence[int], settings: ContextFreeParams, *, n_train: int, seed: int
) -> tuple[list[ContextFreeSample], list[ContextFreeSample]]:
    """The training part and the held-out part, each in the order of its index, nothing left out.

    The parts have streams of their own: more samples in one leave the other, and the drift measured on it, as it was.

    Args:
        model: The base model.
        weights: Digest of its weights, for provenance.
        prefix_ids: The start (`start_prefix`).
        settings: Held-out count, length and sampling.
        n_train: Samples of the training part.
        seed: Every sample's own seed derives from it, the part and the index.

    Raises:
        ModelError: The model failed (samples that came are in its journal), or it does not show its tokens.
    """
    parts = [("train", index) for index in range(n_train)]
    parts += [("held_out", index) for index in range(settings.n_held_out)]
    seeds = [derived_seed(seed, "context_free", part, index) for part, index in parts]
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens)
    texts = write(model, [tuple(prefix_ids)], [[one] for one in seeds], sampling)
    samples: dict[str, list[ContextFreeSample]] = {"train": [], "held_out": []}
    for (part, index), (piece,) in zip(parts, texts, strict=True):
        samples[part].append(
            ContextFreeSample(
                index=index,
                prefix=settings.prefix,
                prefix_ids=piece.before,
                token_ids=piece.written.token_ids,
                text=piece.written.text,
                ended=piece.written.finish_reason == "stop",
                model=weights,
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_new_tokens=settings.max_new_tokens,
                seed=piece.seed,
            )
        )
    return samples["train"], samples["held_out"]
