"""Merge: labels that mean the same become one knowledge unit, offline and deterministically.

MetaGDPO asks a model to merge labels of the same stem or the same meaning (method note 1.1 step 3). Offline, the same
stem is decided by inflection and word order, and the same meaning by the cosine of sentence embeddings, if wanted.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field

from metagdpo.errors import DataError
from metagdpo.records.annotation import Annotation
from metagdpo.records.knowledge import KnowledgeUnit
from metagdpo.schema import Frozen

Embed = Callable[[Sequence[str]], Any]
"""Texts to an array [text, dimension] of unit vectors."""

DIGITS = 4
"""Cosines are rounded before they are compared: later digits differ between machines."""

_IGNORED = frozenset({"a", "an", "and", "for", "in", "of", "on", "the", "with"})
_DIRECTED = frozenset({"to", "from", "into", "by", "before", "after", "vs", "without"})
_VOWEL = re.compile(r"[aeiouy]")
_SHORTEST_STEM = 3


class MergeParams(Frozen):
    """Section `merge_knowledge`."""

    stem: bool
    """Merge labels that differ only in inflection and word order."""
    similarity: float | None = Field(default=None, gt=0, le=1)
    """Merge labels whose embeddings have at least this cosine; null does not look at meaning.

    Names are short: at 0.7 all-MiniLM-L6-v2 already takes integer addition for integer multiplication.
    """
    embedding: str = Field(default="asset:all-minilm-l6-v2", min_length=1)
    """Sentence encoder; read only when `similarity` is a number."""

    def references(self) -> tuple[str, ...]:
        """Models that must lie on this machine before merging."""
        return () if self.similarity is None else (self.embedding,)


def merge(annotations: Sequence[Annotation], params: MergeParams, embed: Embed | None = None) -> list[KnowledgeUnit]:
    """Knowledge units sorted by name, from all labels of all annotations.

    A unit is named after its most frequent label (number of questions), equally frequent ones alphabetically.

    Args:
        annotations: One for each question.
        params: Section `merge_knowledge`.
        embed: Texts to unit vectors; by default the encoder that the parameters name.

    Raises:
        DataError: No question has any label, or a question is annotated twice.
        ModelError: The encoder cannot be used.
    """
    questions = questions_by_label(annotations)
    groups = by_stem(questions) if params.stem else [[label] for label in questions]
    if params.similarity is not None:
        groups = by_meaning(groups, questions, embed or _encoder(params.embedding), params.similarity)
    units = [
        KnowledgeUnit(
            name=min(group, key=lambda label: _rank(label, questions)),
            aliases=tuple(sorted(group)),
            question_ids=tuple(sorted(set().union(*(questions[label] for label in group)))),
        )
        for group in groups
    ]
    return sorted(units, key=lambda unit: unit.name)


def questions_by_label(annotations: Sequence[Annotation]) -> dict[str, frozenset[str]]:
    """Every label with the questions that carry it, labels in alphabetical order.

    Raises:
        DataError: No question has any label, or a question is annotated twice.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    seen: set[str] = set()
    for annotation in annotations:
        if annotation.question_id in seen:
            raise DataError(f"question {annotation.question_id} is annotated twice. Run `dvc repro -f annotate`.")
        seen.add(annotation.question_id)
        for skill in annotation.skills:
            found[skill.name].add(annotation.question_id)
    if not found:
        message = (
            f"none of {len(annotations)} questions has a skill label, so there is nothing to merge. Lower "
            "`annotate.annotator.min_similarity`, or look at `raw` in data/annotations.jsonl: replies may not be JSON."
        )
        raise DataError(message)
    return {label: frozenset(found[label]) for label in sorted(found)}


def by_stem(labels: Sequence[str] | Mapping[str, Any]) -> list[list[str]]:
    """Labels grouped by their stem-normal form."""
    groups: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for label in labels:
        groups[stem_form(label)].append(label)
    return list(groups.values())


def by_meaning(
    groups: Sequence[list[str]], questions: Mapping[str, frozenset[str]], embed: Embed, similarity: float
) -> list[list[str]]:
    """Groups merged by the cosine of their leading labels, greedily from the most frequent label down.

    Each group joins the nearest standing group that is near enough, else it stands itself. Only leaders are compared,
    so meanings cannot drift along a chain, and the result does not depend on the order of the input.

    Args:
        groups: Labels that are already known to be the same.
        questions: The questions of every label.
        embed: Texts to unit vectors.
        similarity: Cosine from which on two leaders mean the same.
    """
    leaders = {min(group, key=lambda label: _rank(label, questions)): group for group in groups}
    order = sorted(leaders, key=lambda label: _rank(label, questions))
    vectors_LD = embed([label.replace("_", " ") for label in order])
    cosine_LL = (vectors_LD @ vectors_LD.T).round(DIGITS)
    standing: dict[int, list[str]] = {}
    for place, leader in enumerate(order):
        others = list(standing)
        nearest = int(cosine_LL[place, others].argmax()) if others else -1
        if others and cosine_LL[place, others[nearest]] >= similarity:
            standing[others[nearest]].extend(leaders[leader])
        else:
            standing[place] = list(leaders[leader])
    return list(standing.values())


def stem_form(label: str) -> tuple[str, ...]:
    """A label's words without inflection and filler words, in alphabetical order.

    `counting_of_letters` and `letter_count` have one form. Where a word gives a direction (`inches_to_metres`), the
    order is kept.
    """
    words = [word for word in label.split("_") if word not in _IGNORED]
    stems = [stem(word) for word in words]
    return tuple(stems if _DIRECTED & set(words) else sorted(stems)) or (label,)


def stem(word: str) -> str:
    """A word without its inflection: plural, -ing, -ed; derived words (`divide`, `division`) stay apart.

    In the manner of step 1 of Porter's algorithm (1980): its later steps confuse different words. A final -e and a
    doubled last letter go too, so that `dividing` meets `divide` and `adding` meets `add`.
    """
    word = _singular(word)
    for suffix, replacement in (("ied", "y"), ("ing", ""), ("ed", "")):
        base = word.removesuffix(suffix)
        if base != word and len(base) >= _SHORTEST_STEM and _VOWEL.search(base) and not word.endswith("eed"):
            word = base + replacement
            break
    if word.endswith("e") and len(word) > _SHORTEST_STEM:
        word = word[:-1]
    return word[:-1] if len(word) >= _SHORTEST_STEM and word[-1] == word[-2] and word[-1].isalpha() else word


def _singular(word: str) -> str:
    if len(word) <= _SHORTEST_STEM or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1]


def _rank(label: str, questions: Mapping[str, frozenset[str]]) -> tuple[int, str]:
    return (-len(questions[label]), label)


def _encoder(reference: str) -> Embed:
    from metagdpo.models.embedding import Embedder
    from metagdpo.models.load import locate

    return Embedder(locate(reference), batch_size=64)
