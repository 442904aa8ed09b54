"""What was sampled, what of it is kept, and what a person should know about it: counts for data/preservation.json."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean, median
from typing import Literal, NamedTuple, TypeVar

from metagdpo.preservation import filters
from metagdpo.preservation.filters import Text
from metagdpo.preservation.settings import Filter
from metagdpo.records.preservation_report import Dropped, PreservationReport, PreservedPart, Provenance
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue

Row = TypeVar("Row", ContextFreeSample, SelfDialogue)

WORTH_A_WORD = 0.1
"""Share of a part from which looping or lost texts are told on the terminal."""
MOSTLY = 0.5
"""Share of the dialogues from which cut turns are told."""

NAMES = {
    ("context_free", "train"): "context-free training samples",
    ("context_free", "held_out"): "held-out context-free samples",
    ("self_dialogue", "train"): "self-dialogues",
}


class _Sifted(NamedTuple):
    texts: list[Text]
    why: list[Dropped | None]


def context_free_part(
    samples: Sequence[ContextFreeSample],
    part: Literal["train", "held_out"],
    wanted: Sequence[Filter],
    provenance: Provenance,
) -> tuple[list[ContextFreeSample], PreservedPart]:
    """The samples that are kept, and the counts; of the held-out part all are kept whatever is wanted.

    Args:
        samples: Everything that was sampled for the part.
        part: Which part.
        wanted: Filters of the training part.
        provenance: Where the samples come from.
    """
    texts = [Text((sample.token_ids,), sample.ended) for sample in samples]
    why: list[Dropped | None] = [*filters.reasons(texts, wanted if part == "train" else ())]
    return _kept(samples, why), _part("context_free", part, _Sifted(texts, why), provenance)


def dialogue_part(
    dialogues: Sequence[SelfDialogue], wanted: Sequence[Filter], provenance: Provenance
) -> tuple[list[SelfDialogue], PreservedPart]:
    """The dialogues in which the assistant says something and that pass the filters, and the counts of all.

    Args:
        dialogues: Everything that was sampled.
        wanted: Filters.
        provenance: Where the dialogues come from.
    """
    texts = [Text(tuple(turn.token_ids for turn in one.turns), one.turns[-1].ended) for one in dialogues]
    chosen = filters.reasons(texts, wanted)
    why = [_without_assistant(one) or reason for one, reason in zip(dialogues, chosen, strict=True)]
    return _kept(dialogues, why), _part("self_dialogue", "train", _Sifted(texts, why), provenance)


def preservation_report(parts: Sequence[PreservedPart], n_questions: int) -> PreservationReport:
    """All parts with the warnings that follow from them."""
    said = [warning for part in parts for tell in (_bias, _loops, _losses, _cuts) for warning in tell(part)]
    return PreservationReport(n_questions=n_questions, parts=tuple(parts), warnings=tuple(dict.fromkeys(said)))


def _without_assistant(dialogue: SelfDialogue) -> Dropped | None:
    if len(dialogue.turns) > 1:
        return None
    return "user_ended_document" if dialogue.turns[0].ended else "user_unended"


def _kept(rows: Sequence[Row], why: Sequence[Dropped | None]) -> list[Row]:
    return [row for row, reason in zip(rows, why, strict=True) if reason is None]


def _part(
    source: Literal["context_free", "self_dialogue"],
    part: Literal["train", "held_out"],
    sifted: _Sifted,
    provenance: Provenance,
) -> PreservedPart:
    texts = sifted.texts
    kept = [text for text, reason in zip(texts, sifted.why, strict=True) if reason is None]
    lengths = [sum(len(piece) for piece in text.pieces) for text in kept]
    dropped = Counter(reason for reason in sifted.why if reason is not None)
    why_biased = _why_biased(provenance, dropped)
    return PreservedPart(
        source=source,
        part=part,
        asked=len(texts),
        ended=sum(text.ended for text in texts),
        cut=sum(not text.ended for text in texts),
        looping=sum(filters.loops(text) for text in texts),
        duplicates=sum(filters.duplicates(texts)),
        dropped=dict(dropped),
        kept=len(kept),
        kept_cut=sum(not text.ended for text in kept),
        tokens=sum(lengths),
        mean_tokens=mean(lengths) if lengths else None,
        median_tokens=float(median(lengths)) if lengths else None,
        distinct_share=filters.distinct_share(kept),
        unbiased=not why_biased,
        why_biased=why_biased,
        provenance=provenance,
    )


def _why_biased(provenance: Provenance, dropped: Counter[Dropped]) -> tuple[str, ...]:
    """Every way in which the texts are not draws from p_base itself."""
    found = []
    if provenance.temperature != 1:
        found.append(f"temperature {provenance.temperature:g} instead of 1")
    if provenance.top_p < 1:
        found.append(f"top_p {provenance.top_p:g} instead of 1")
    if dropped:
        found.append(f"{dropped.total()} left out ({', '.join(sorted(dropped))})")
    return tuple(found)


def _bias(part: PreservedPart) -> list[str]:
    sampled = part.provenance.temperature != 1 or part.provenance.top_p < 1
    if part.source != "context_free" or part.part != "held_out" or not sampled:
        return []
    message = (
        f"drift on these samples is no unbiased estimate of KL(base || candidate): {'; '.join(part.why_biased)}. Set "
        "preserve.context_free.temperature and top_p to 1 for one that is."
    )
    return [message]


def _loops(part: PreservedPart) -> list[str]:
    if part.looping <= WORTH_A_WORD * part.asked:
        return []
    left_out = part.dropped.get("repeats", 0)
    advice = (
        "all are kept, because leaving some out would bias drift"
        if part.part == "held_out"
        else f"{left_out} left out" if left_out else f"preserve.{part.source}.filters: [repeats] leaves them out"
    )  # fmt: skip
    return [f"{part.looping} of {part.asked} {NAMES[part.source, part.part]} repeat themselves; {advice}."]


def _losses(part: PreservedPart) -> list[str]:
    unended, otherwise = part.dropped.get("user_unended", 0), part.dropped.get("user_ended_document", 0)
    if unended + otherwise <= WORTH_A_WORD * part.asked and (part.kept or not part.asked):
        return []
    filtered = sum(part.dropped.values()) - unended - otherwise
    ways = {
        f"in {unended} the user's turn never ended (preserve.{part.source}.max_new_tokens may be too small)": unended,
        f"in {otherwise} the model ended the document instead of the user's turn": otherwise,
        f"{filtered} did not pass preserve.{part.source}.filters": filtered,
    }
    told = "; ".join(way for way, n in ways.items() if n)
    return [f"{part.kept} of {part.asked} {NAMES[part.source, part.part]} are kept: {told}."]


def _cuts(part: PreservedPart) -> list[str]:
    """Only of dialogues: a context-free sample that is cut is as good a draw as one that ended."""
    if part.source != "self_dialogue" or part.kept_cut <= MOSTLY * part.kept:
        return []
    message = (
        f"{part.kept_cut} of {part.kept} kept self-dialogues were cut at {part.provenance.max_new_tokens} tokens a "
        "turn: no further turn follows, and training sees no end of an answer there. Raise "
        "preserve.self_dialogue.max_new_tokens to see the ends; time grows with it."
    )
    return [message]
