"""Written answers: greedy, what all prompts begin with computed once for a batch, finished answers leave it.

Left out: sampling; two runs of one model must give the same answers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from metagdpo.errors import DataError
from metagdpo.models.chat import stop_ids
from metagdpo.models.local import decode
from metagdpo.models.port import Sampling


def written_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    until: Sequence[str],
    ends: frozenset[int],
    max_new_tokens: int,
    batch_size: int,
    max_length: int,
) -> Iterator[tuple[int, str]]:
    """Write greedy answers, prompts of similar length together, longest first.

    Args:
        model: Causal model of transformers, in evaluation mode; also with an adapter.
        tokenizer: Of the model.
        prompts: Token ids.
        until: Texts that end an answer, besides the model's own end token.
        ends: Tokens that contain one of these texts (`ending_tokens`).
        max_new_tokens: Length limit of an answer.
        batch_size: Answers written together.
        max_length: Most tokens that the model can read.

    Yields:
        Position of the prompt, and its answer up to the first stop text.

    Raises:
        DataError: A prompt and its answer are longer than the model can read.
    """
    longest = max(len(prompt) for prompt in prompts)
    if longest + max_new_tokens > max_length:
        message = (
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit into the model's {max_length}. "
        )
        raise DataError(message + "Shorten the suite's prompt or its max_new_tokens.")
    stops = stop_ids(tokenizer, model)
    sampling = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
    prefix = common_prefix(prompts)
    order = sorted(range(len(prompts)), key=lambda position: -len(prompts[position]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        rests = [prompts[position][len(prefix) :] for position in batch]
        for row, tokens, _ in decode(model, rests, [0] * len(batch), sampling, stops | ends, prefix=prefix):
            ended = bool(tokens) and tokens[-1] in stops
            text = tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
            for stop in until:
                text = text.partition(stop)[0]
            yield batch[row], text


def ending_tokens(tokenizer: Any, until: Sequence[str]) -> frozenset[int]:
    """Tokens that contain a stop text, alone or with more; what an answer says before that text is kept."""
    texts = enumerate(tokenizer.decode([token]) for token in range(len(tokenizer))) if until else ()
    return frozenset(token for token, text in texts if any(stop in text for stop in until))


def common_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """Tokens with which all prompts begin (worked examples, chat opening), at most all but the last of the shortest."""
    first, last = min(prompts), max(prompts)  # in the order of lists, these two differ first
    limit = min(len(prompt) for prompt in prompts) - 1
    return first[: next((t for t in range(limit) if first[t] != last[t]), limit)]
