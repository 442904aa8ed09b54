"""Everything the base writes by itself, in one call: samples without context, self-dialogues, and their counts."""

from typing import Any, NamedTuple

from metagdpo.models.port import TextModel
from metagdpo.preservation.chat_layout import Ids, chat_layout
from metagdpo.preservation.context_free import sample_context_free
from metagdpo.preservation.report import context_free_part, dialogue_part, preservation_report
from metagdpo.preservation.self_dialogue import sample_dialogues
from metagdpo.preservation.settings import ContextFreeParams, PreserveParams, SelfDialogueParams
from metagdpo.preservation.start import start_prefix
from metagdpo.records.preservation_report import PreservationReport, PreservedPart, Provenance
from metagdpo.records.sample import ContextFreeSample, Prefix
from metagdpo.records.self_dialogue import SelfDialogue


class OwnText(NamedTuple):
    """What the stage `preserve` writes."""

    training: list[ContextFreeSample]
    held_out: list[ContextFreeSample]
    dialogues: list[SelfDialogue]
    report: PreservationReport


def sample_own_text(
    model: TextModel, weights: str, tokenizer: Any, settings: PreserveParams, *, n_questions: int, seed: int
) -> OwnText:
    """Sample, leave out what was asked to be left out, and count.

    Args:
        model: The base model.
        weights: Digest of its weights, for provenance.
        tokenizer: Its transformers tokenizer.
        settings: Section `preserve`.
        n_questions: Selected questions, to which ratios refer.
        seed: Every text's own seed derives from it.

    Raises:
        ModelError: The tokenizer lacks the wanted start or a usable chat template (told before anything is sampled), or
            the model failed.
        ConfigError: A custom start is outside the vocabulary.
    """
    free, chat = settings.context_free, settings.self_dialogue
    prefix = start_prefix(tokenizer, free)
    n_dialogues = 0 if chat is None else chat.amount(n_questions)
    layout = chat_layout(tokenizer, chat.n_turns) if chat is not None and n_dialogues else ()
    drawn = sample_context_free(model, weights, prefix, free, n_train=free.amount(n_questions), seed=seed)
    origin = _provenance(weights, tokenizer, (prefix,), free, prefix=free.prefix, seed=seed)
    training, training_counts = context_free_part(drawn[0], "train", free.filters, origin)
    held_out, held_out_counts = context_free_part(drawn[1], "held_out", (), origin)
    dialogues: list[SelfDialogue] = []
    parts: list[PreservedPart] = [training_counts, held_out_counts]
    if chat is not None and layout:
        written = sample_dialogues(model, weights, layout, chat, n=n_dialogues, seed=seed)
        origin = _provenance(weights, tokenizer, layout, chat, prefix="chat_user_prefix", seed=seed)
        dialogues, counts = dialogue_part(written, chat.filters, origin)
        parts.append(counts)
    return OwnText(training, held_out, dialogues, preservation_report(parts, n_questions))


def _provenance(
    weights: str,
    tokenizer: Any,
    layout: tuple[Ids, ...],
    settings: ContextFreeParams | SelfDialogueParams,
    *,
    prefix: Prefix,
    seed: int,
) -> Provenance:
    return Provenance(
        model=weights,
        prefix=prefix,
        prefix_ids=layout[0],
        prefix_text=tokenizer.decode(list(layout[0])),
        n_turns=len(layout),
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        seed=seed,
    )
