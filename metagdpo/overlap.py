"""Overlap of training texts with the items of suites: what a candidate must not have seen before it is measured.

A text overlaps an item when it holds the whole item as a run of words, or at least a share of the item's own word
n-grams. Neither may cry wolf:

- Items of one template share nearly all words. An n-gram that several items of a suite share is the suite's
  boilerplate; its words are no item's own, and n-grams that touch them count for nothing. Equal items count once, and
  so do items of one cluster: what these share (a passage) is theirs. So of `... arithmetic problem: 12 + 5 =` nothing
  is left to share but the whole, and another sum is another question.
- Numbers make the question. N-grams that are mostly numbers, signs and single letters count for nothing either, so that
  sums, lists and grids are found as a whole only.
- A few words coincide by chance. An item of fewer words than an n-gram is found only where a question, or a line of
  it, says nothing else.

Matches are made on the words themselves, not on hashes of them: two different n-grams are never taken for one.
Not looked for, but counted: items that are mostly layout (drawings of symbols), of which words tell too little.
Left out: paraphrases, translations, and the same task in another template.
"""

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from metagdpo.answers import ask
from metagdpo.evaluation.items import Item
from metagdpo.gate.policy import OverlapSettings
from metagdpo.records.group import ResponseGroup
from metagdpo.records.overlap import Overlap, TrainingOverlaps
from metagdpo.records.question import Question
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue
from metagdpo.words import goes_on, is_prose, words

SHOWN = 160
"""Characters of a text that a row shows."""

Words = tuple[str, ...]


class TrainingText(NamedTuple):
    """Something that a model is trained on."""

    name: str
    text: str
    is_question: bool
    """A question is compared line by line as well; in running text, few words coincide by chance."""


class Form(NamedTuple):
    """One way in which an item may stand in a text."""

    suite: str
    item_id: str
    words: Words
    is_line: bool
    """Whether it stands on one line: rows of a matrix are no line of a larger one."""
    n_grams: int
    """Different n-grams, boilerplate included: what is mostly boilerplate can only be found as a whole."""


def pool_texts(question: Question) -> Iterator[TrainingText]:
    """What may be trained on of a question: itself as it is asked, and its worked solution."""
    yield TrainingText(question.id, ask(question), is_question=True)
    if question.solution is not None:
        yield TrainingText(f"{question.id}/solution", question.solution, is_question=False)


def group_texts(group: ResponseGroup) -> Iterator[TrainingText]:
    """What is trained on of a group: the prompt and every response."""
    yield TrainingText(group.question_id, group.prompt, is_question=True)
    for response in group.responses:
        name = f"{group.question_id}/response {response.index} of {response.teacher}"
        yield TrainingText(name, response.text, is_question=False)


def sample_text(sample: ContextFreeSample) -> TrainingText:
    """A context-free sample: a benchmark that the base knows by heart counts as well."""
    return TrainingText(f"context-free sample {sample.index}", sample.text, is_question=False)


def dialogue_texts(dialogue: SelfDialogue) -> Iterator[TrainingText]:
    """The turns of a self-dialogue: the user's ask, as prompts do, and the assistant's are running text."""
    for number, turn in enumerate(dialogue.turns, start=1):
        name = f"self-dialogue {dialogue.index}, turn {number} ({turn.role})"
        yield TrainingText(name, turn.text, is_question=turn.role == "user")


class Index:
    """The items of all suites, ready to be looked for; read-only."""

    def __init__(self, suites: Mapping[str, Sequence[Item]], settings: OverlapSettings) -> None:
        """Index every form of every item.

        Args:
            suites: Items by suite.
            settings: Length of n-grams, share, and what makes boilerplate.
        """
        self._settings = settings
        self._forms: list[Form] = []
        self._own: dict[Words, tuple[int, ...]] = {}
        self._anchors: dict[Words, tuple[tuple[int, int], ...]] = {}
        self._alone: dict[Words, tuple[int, ...]] = {}
        self._beginnings: dict[tuple[str, str], str] = {}
        self.n_items = sum(len(items) for items in suites.values())
        """Items looked for."""
        for suite, items in sorted(suites.items()):
            self._add(suite, sorted(items, key=lambda item: item.id))
        self.n_without_words = self.n_items - len(self._beginnings)
        """Items that say nothing in words, or are mostly layout: they cannot be looked for."""

    def find(self, text: TrainingText) -> list[Overlap]:
        """The item that a text overlaps most, for each suite that it touches, by name of the suite."""
        n = self._settings.ngram
        lines = _lines(text.text)
        flat = tuple(word for line in lines for word in line)
        whole: set[int] = set()
        grams: set[Words] = set()
        for start, gram in enumerate(_grams(flat, n)):
            if gram in self._own:
                grams.add(gram)
                anchored = self._anchors.get(gram, ())
                whole.update(form for form, at in anchored if self._holds(flat, start - at, form))
        if text.is_question:
            whole.update(self._alone.get(flat, ()))
            whole.update(form for line in lines for form in self._alone.get(line, ()) if self._forms[form].is_line)
        found = Counter(form for gram in grams for form in self._own[gram])
        shares = {form: count / self._forms[form].n_grams for form, count in found.items()}
        matched = {form: share for form, share in shares.items() if share >= self._settings.share}
        return self._best(text, whole, matched)

    def _best(self, text: TrainingText, whole: set[int], matched: Mapping[int, float]) -> list[Overlap]:
        best: dict[str, Overlap] = {}
        # An exact match before any share, then the larger share, then the order of suites and items.
        ranked = sorted((form not in whole, -matched.get(form, 1.0), form) for form in whole | set(matched))
        for inexact, share, number in ranked:
            form = self._forms[number]
            if form.suite not in best:
                best[form.suite] = Overlap(
                    text_id=text.name,
                    suite=form.suite,
                    item_id=form.item_id,
                    kind="ngram" if inexact else "exact",
                    share=-share if inexact else 1.0,
                    text=_beginning(text.text),
                    item=self._beginnings[form.suite, form.item_id],
                )
        return [best[suite] for suite in sorted(best)]

    def _holds(self, text: Words, start: int, number: int) -> bool:
        """Whether the whole form stands at that place, and no expression goes on beyond its ends."""
        form = self._forms[number].words
        end = start + len(form)
        if start < 0 or text[start:end] != form:
            return False
        longer = end < len(text) and goes_on(form[-1], text[end])
        return not (longer or (start > 0 and goes_on(form[0], text[start - 1])))

    def _add(self, suite: str, items: Sequence[Item]) -> None:
        n, common = self._settings.ngram, self._settings.common
        forms, questions = item_forms(items, common), _questions(items)
        held: defaultdict[object, set[Words]] = defaultdict(set)
        for item, found in zip(items, forms, strict=True):
            # Equal items are one holder; so are the items of a cluster.
            holder = tuple(found.whole) if item.cluster is None else item.cluster
            held[holder].update(gram for form in (*found.whole, *found.stripped) for gram in _grams(form, n))
        frequency = Counter(itertools.chain.from_iterable(held.values()))
        del held
        for item, found, question in zip(items, forms, questions, strict=True):
            if found.whole:
                self._beginnings[suite, item.id] = _beginning(question)
            for form, is_line in found.whole.items():
                self._anchor(form, self._add_form(suite, item.id, form, frequency, is_line=is_line), frequency)
            for form, is_line in found.stripped.items():
                self._add_form(suite, item.id, form, frequency, is_line=is_line)

    def _add_form(self, suite: str, item_id: str, form: Words, frequency: Mapping[Words, int], *, is_line: bool) -> int:
        n, number = self._settings.ngram, len(self._forms)
        grams = set(_grams(form, n))
        self._forms.append(Form(suite, item_id, form, is_line, len(grams)))
        self._alone[form] = (*self._alone.get(form, ()), number)
        for gram in own_grams(form, n, {gram for gram in grams if frequency[gram] >= self._settings.common}):
            self._own[gram] = (*self._own.get(gram, ()), number)
        return number

    def _anchor(self, form: Words, number: int, frequency: Mapping[Words, int]) -> None:
        """The rarest n-gram of a form leads to it: forms of one template share all but that."""
        places = enumerate(_grams(form, self._settings.ngram))
        at, anchor = min(places, key=lambda each: frequency[each[1]], default=(0, None))
        if anchor is not None:
            self._anchors[anchor] = (*self._anchors.get(anchor, ()), (number, at))
            self._own.setdefault(anchor, ())  # one look-up for both, in `find`


def pool_overlaps(index: Index, question: Question) -> list[Overlap]:
    """What makes a question unfit for the pool: overlaps of itself, and of its worked solution."""
    return [found for text in pool_texts(question) for found in index.find(text)]


def training_overlaps(index: Index, texts: Iterable[TrainingText], *, examples: int = 20) -> TrainingOverlaps:
    """Compare everything that was trained on; streams.

    Args:
        index: The items of all suites.
        texts: Training texts.
        examples: Rows kept for each suite; the counts know all of them.
    """
    n_texts, counts = 0, Counter[str]()
    rows: list[Overlap] = []
    for text in texts:
        n_texts += 1
        for found in index.find(text):
            counts[found.suite] += 1
            if counts[found.suite] <= examples:
                rows.append(found)
    return TrainingOverlaps(
        n_texts=n_texts,
        suites=dict(sorted(counts.items())),
        examples=tuple(sorted(rows, key=lambda row: row.suite)),
    )


class Forms(NamedTuple):
    """In what words an item may stand in a training text, and whether these stand on one line."""

    whole: dict[Words, bool]
    """The question after the suite's worked examples, and that joined with the right option, where there is one."""
    stripped: dict[Words, bool]
    """The same without the words that all questions of the suite begin and end with."""


def item_forms(items: Sequence[Item], common: int) -> list[Forms]:
    """The forms of each item of a suite.

    A question that `common` items or more share with other options asks nothing by itself: it counts only together
    with the right one.
    """
    questions = _questions(items)
    lines = [_lines(question) for question in questions]
    asked = [tuple(word for line in found for word in line) for found in lines]
    options = ["" if item.gold is None else item.options[item.gold] for item in items]
    rights = [tuple(words(option)) for option in options]
    head, tail = _shared_ends(list(dict.fromkeys(asked)))
    holders = Counter(question for question, _ in set(zip(asked, rights, strict=True)))
    forms = []
    for text, option, found, question, right in zip(questions, options, lines, asked, rights, strict=True):
        if not _says(text + option, (*question, *right)):
            forms.append(Forms({}, {}))
            continue
        alone = question and holders[question] < common
        endings = dict.fromkeys([() if alone or not right else right, right])
        inner = question[head : len(question) - tail]
        at_once, within = _is_line(found, 0, len(question)), _is_line(found, head, head + len(inner))
        whole = {(*question, *ending): at_once for ending in endings}
        stripped = {(*inner, *ending): within for ending in endings if inner}
        forms.append(Forms(whole, {form: line for form, line in stripped.items() if form not in whole}))
    return forms


def own_grams(form: Words, n: int, boilerplate: set[Words]) -> set[Words]:
    """The n-grams of a form that are prose and touch no word inside a boilerplate n-gram."""
    grams = list(_grams(form, n))
    taken = [False] * len(form)
    for start, gram in enumerate(grams):
        if gram in boilerplate:
            taken[start : start + n] = [True] * n
    return {gram for start, gram in enumerate(grams) if not any(taken[start : start + n]) and is_prose(gram)}


def _lines(text: str) -> list[Words]:
    """The words of each line."""
    return [tuple(words(line)) for line in text.splitlines()]


def _is_line(lines: Sequence[Words], start: int, end: int) -> bool:
    """Whether the words from `start` to `end` stand on one line."""
    breaks = itertools.accumulate(len(line) for line in lines)
    return not any(start < at < end for at in breaks)


def _says(text: str, found: Words) -> bool:
    """Whether words hold at least a third of what a text is made of, white space aside; lists of digits hold more."""
    return 3 * sum(map(len, found)) >= len("".join(text.split())) > 0


def _questions(items: Sequence[Item]) -> list[str]:
    """What each item asks: a written answer's question, or a choice's prompt behind the suite's worked examples.

    Examples are the same for all, and end with a blank line.
    """
    prompts = [item.prompt for item in items]
    # Letter by letter is what is wanted; two different prompts are needed to share.
    shared = os.path.commonprefix(prompts) if len(set(prompts)) > 1 else ""  # noqa: RUF071
    start = shared.rfind("\n\n") + 2 if "\n\n" in shared else 0
    return [item.prompt[start:] if item.question is None else item.question.prompt for item in items]


def _shared_ends(questions: Sequence[Words]) -> tuple[int, int]:
    """How many words all questions begin with, and how many they end with beyond these."""
    if len(questions) < 2:  # noqa: PLR2004  (two are needed to share)
        return 0, 0
    head = _shared_length(questions)
    return head, _shared_length([question[head:][::-1] for question in questions])


def _shared_length(sequences: Sequence[Words]) -> int:
    return next(
        (at for at, column in enumerate(zip(*sequences, strict=False)) if len(set(column)) > 1),
        min(len(sequence) for sequence in sequences),
    )


def _grams(sequence: Words, n: int) -> Iterator[Words]:
    return zip(*(sequence[start:] for start in range(n)), strict=False)


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
