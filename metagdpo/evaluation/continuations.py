"""Log-probabilities of several continuations of one question, the question computed once.

lm-eval computes question and option together for every option, pads them to one length, and runs the vocabulary head at
every position. Here the longest prefix that a question's options share stands once in the text, each option's rest sees
that prefix and itself only (attention mask) and counts its positions from there, several questions lie side by side
without padding, and the head sees only positions whose next token is scored. Equal up to rounding.

Left out: models whose attention is not a mask over keys (state spaces), or looks back less far than an item is long.

Legend: T positions of a pack, K positions whose next token is scored, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from metagdpo.errors import DataError

Request = tuple[list[int], list[int]]
"""Token ids of context and continuation; the context has at least one."""


class _Family(NamedTuple):
    """Requests with one context."""

    context: int
    """Length of the context, in tokens."""
    shared: int
    """Length of the prefix that is computed once; at least the context."""
    texts: list[list[int]]
    positions: list[int]
    """Positions of the requests in the caller's list."""

    @property
    def size(self) -> int:
        """Tokens that it takes in a pack; the last token of a text is only predicted, never read."""
        return self.shared + sum(max(0, len(text) - 1 - self.shared) for text in self.texts)


def continuation_log_probs(
    model: Any, requests: Sequence[Request], *, max_length: int, pack_tokens: int
) -> Iterator[tuple[int, tuple[float, bool]]]:
    """Score continuations of contexts.

    Args:
        model: Causal model of transformers, in evaluation mode; also with an adapter.
        requests: Contexts and continuations.
        max_length: Most tokens that the model can read.
        pack_tokens: Tokens of a pack; attention grows with the square of it, a small pack reads the weights too often.

    Yields:
        Position of the request, and its log p(continuation | context) in nats with whether greedy decoding would write
        the continuation; in any order.

    Raises:
        DataError: A request is longer than the model can read: cutting it would silently ask something else.
    """
    import torch

    for pack in _packs(_families(requests, max_length), pack_tokens):
        with torch.inference_mode():
            results = list(_score(model, pack))
        yield from results


def _families(requests: Sequence[Request], max_length: int) -> list[_Family]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, (context, continuation) in enumerate(requests):
        if len(context) + len(continuation) - 1 > max_length:
            message = (
                f"an item has {len(context) + len(continuation)} tokens, and the model reads at most {max_length}. "
            )
            raise DataError(message + "Remove such items from the suite, or shorten its prompt.")
        groups.setdefault(tuple(context), []).append(position)
    families = []
    for context_ids, positions in groups.items():
        texts = [[*context_ids, *requests[position][1]] for position in positions]
        # At most all but the last token of the shortest: that one is only predicted, never read.
        limit = min(len(text) for text in texts) - 1
        shared = next(
            (t for t in range(len(context_ids), limit) if len({text[t] for text in texts}) > 1),
            max(limit, len(context_ids)),
        )
        families.append(_Family(len(context_ids), shared, texts, positions))
    return families


def _packs(families: Sequence[_Family], pack_tokens: int) -> Iterator[list[_Family]]:
    """First fit, largest first: little room is left over; a family larger than a pack has one of its own."""
    packs: list[tuple[int, list[_Family]]] = []
    for family in sorted(families, key=lambda f: f.size, reverse=True):
        for number, (used, members) in enumerate(packs):
            if used + family.size <= pack_tokens:
                packs[number] = (used + family.size, [*members, family])
                break
        else:
            packs.append((family.size, [family]))
    return (members for _, members in packs)


def _score(model: Any, pack: Sequence[_Family]) -> Iterator[tuple[int, tuple[float, bool]]]:
    import torch

    size = sum(family.size for family in pack)
    ids, places = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.long)
    sees_TT = torch.zeros(size, size, dtype=torch.bool)
    scored: list[tuple[int, list[int], list[int]]] = []  # request, where its tokens are predicted, the tokens
    end = 0
    for family in pack:
        start, end = end, end + family.shared
        prefix = slice(start, end)
        ids[prefix], places[prefix] = torch.tensor(family.texts[0][: family.shared]), torch.arange(family.shared)
        sees_TT[prefix, prefix] = _causal(family.shared)
        for position, text in zip(family.positions, family.texts, strict=True):
            rest = text[family.shared : -1]
            own = slice(end, end + len(rest))
            ids[own] = torch.tensor(rest, dtype=torch.long)
            places[own] = family.shared + torch.arange(len(rest))
            sees_TT[own, prefix] = True
            sees_TT[own, own] = _causal(len(rest))
            predicted_at = [*range(start + family.context - 1, prefix.stop), *range(own.start, own.stop)]
            tokens = text[family.context :]
            scored.append((position, predicted_at[: len(tokens)], tokens))
            end = own.stop
    kept = sorted({at for _, where, _ in scored for at in where})
    logits_KV = _logits(model, ids, places, sees_TT, torch.tensor(kept))
    row = {at: number for number, at in enumerate(kept)}
    rows = torch.tensor([row[at] for _, where, _ in scored for at in where], device=logits_KV.device)
    tokens_N = torch.tensor([token for _, _, tokens in scored for token in tokens], device=logits_KV.device)
    greedy_N = (logits_KV[rows, tokens_N] == logits_KV.amax(-1)[rows]).cpu()
    # logsumexp would be closer to float64: in float32 on a CPU torch's log_softmax over 49,152 entries is 4e-6 nats too
    # high. But an option's sum shall be lm-eval's own.
    log_probs_N = logits_KV.log_softmax(-1)[rows, tokens_N].cpu()
    end = 0
    for position, _, tokens in scored:
        start, end = end, end + len(tokens)
        yield position, (float(log_probs_N[start:end].sum()), bool(greedy_N[start:end].all()))


def _logits(model: Any, ids_T: Any, places_T: Any, sees_TT: Any, kept_K: Any) -> Any:
    import torch

    mask_TT = torch.zeros(sees_TT.shape, dtype=model.dtype).masked_fill(~sees_TT, torch.finfo(model.dtype).min)
    logits_1KV = model(
        input_ids=ids_T[None].to(model.device),
        position_ids=places_T[None].to(model.device),
        attention_mask=mask_TT[None, None].to(model.device),
        use_cache=False,
        logits_to_keep=kept_K.to(model.device),
    ).logits
    return logits_1KV[0].to(torch.promote_types(logits_1KV.dtype, torch.float32))


def _causal(size: int) -> Any:
    import torch

    return torch.ones(size, size, dtype=torch.bool).tril()
