"""What may be left out of the base's own text, and what of it loops. Off unless asked for; never on held-out samples.

Leaving texts out for what they say changes the distribution: what remains is p_base given that it passed, and the mean
log-ratio over it is no longer KL(p_base || p). The training part may do with that; the drift meter may not.

Home of: seq-rep-4 (Welleck et al. 2020, arXiv 1908.04319): 1 - distinct 4-grams / 4-grams.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from metagdpo.preservation.settings import Filter

NGRAM = 4
LOOP_SHARE = 0.5
"""A text loops when more than this share of its 4-grams has stood in it before: a phrase of four or more tokens that
makes up the whole text loops from its third time on, and twice never suffices."""
LOOP_LEAST_TOKENS = 16
"""Shorter texts never count as loops: a short list or sum repeats itself without being stuck."""


class Text(NamedTuple):
    """What the filters look at: the sampled tokens of each piece, and whether the model ended the last one itself."""

    pieces: tuple[tuple[int, ...], ...]
    ended: bool


def ngrams(tokens: Sequence[int], n: int = NGRAM) -> list[tuple[int, ...]]:
    """All runs of n neighbouring tokens, in order; none where there are fewer tokens."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def repeated_share(tokens: Sequence[int]) -> float:
    """seq-rep-4: share of 4-grams that have stood in the text before; 0 where there is none."""
    grams = ngrams(tokens)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def loops(text: Text) -> bool:
    """Whether any piece of a text repeats itself beyond `LOOP_SHARE`."""
    return any(len(piece) >= LOOP_LEAST_TOKENS and repeated_share(piece) > LOOP_SHARE for piece in text.pieces)


def duplicates(texts: Iterable[Text]) -> list[bool]:
    """For each text whether one with the same tokens came before it."""
    seen: set[tuple[tuple[int, ...], ...]] = set()
    found = []
    for text in texts:
        found.append(text.pieces in seen)
        seen.add(text.pieces)
    return found


def reasons(texts: Sequence[Text], filters: Sequence[Filter]) -> list[Filter | None]:
    """For each text the first filter that leaves it out, in the order `unended`, `repeats`, `duplicates`; None stays.

    Copies of one text share every other property, so of them the first stays or none.
    """
    verdicts: dict[Filter, list[bool]] = {
        "unended": [not text.ended for text in texts],
        "repeats": [loops(text) for text in texts],
        "duplicates": duplicates(texts),
    }
    on = [name for name in verdicts if name in filters]
    return [next((name for name in on if verdicts[name][place]), None) for place in range(len(texts))]


def distinct_share(texts: Iterable[Text]) -> float | None:
    """Distinct 4-grams over 4-grams, of all pieces together (distinct-n, Li et al. 2016); None where there is none."""
    counts = Counter(gram for text in texts for piece in text.pieces for gram in ngrams(piece))
    return len(counts) / counts.total() if counts else None
