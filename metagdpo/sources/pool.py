"""The pool: all sources together, every question once, nothing kept that its own verifier would mark wrong."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field, field_validator

from metagdpo import answers
from metagdpo.errors import DataError
from metagdpo.progress import bar
from metagdpo.records.question import Question
from metagdpo.schema import Frozen
from metagdpo.sources import Source


class IngestParams(Frozen):
    """Section `ingest`."""

    sources: tuple[Source, ...] = Field(min_length=1)
    """Read in this order; of equal questions the first one stays."""

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        twice = sorted(name for name, count in Counter(source.name for source in sources).items() if count > 1)
        if twice:
            raise ValueError(f"two sources are named {', '.join(twice)}; give each its own name")
        return sources


def build_pool(params: IngestParams) -> tuple[list[Question], dict[str, Any]]:
    """Read every source and keep what can be taught.

    A question is left out, and listed in the report, when its verifier does not accept its own reference answer or
    worked solution, or when the same prompt comes with an answer that its verifier does not accept.

    Returns:
        The pool in the order of the sources, and the report: `kept`, `sources` (per source: read, kept, duplicates),
        `rejected` and `conflicts` with their reasons, plain values.

    Raises:
        ConfigError: A source cannot be made.
        DataError: A file cannot be read, or nothing is left.
    """
    source_of: dict[str, str] = {}
    read: Counter[str] = Counter()
    sound: list[Question] = []
    rejected: list[dict[str, Any]] = []
    for source in params.sources:
        for question in bar(source.questions(), total=None, what=f"reading {source.name}", unit="questions"):
            read[source.name] += 1
            if question.id in source_of:
                continue
            source_of[question.id] = source.name
            problem = problem_with(question)
            if problem is None:
                sound.append(question)
            else:
                rejected.append({"question_id": question.id, "source": question.source, "problem": problem})
    pool, conflicts = resolve(sound)
    kept = Counter(source_of[question.id] for question in pool)
    lost = Counter(source_of[row["question_id"]] for row in rejected)
    lost.update(source_of[question_id] for conflict in conflicts for question_id in conflict["question_ids"])
    report = {
        "kept": len(pool),
        "sources": {
            name: {"read": read[name], "kept": kept[name], "duplicates": read[name] - kept[name] - lost[name]}
            for name in (source.name for source in params.sources)
        },
        "rejected": rejected,
        "conflicts": conflicts,
    }
    if not pool:
        raise DataError(_empty(report))
    return pool, report


def problem_with(question: Question) -> str | None:
    """Why a question must not be taught from, or None: its verifier must accept what it calls right."""
    if answers.score_answer(question, question.reference_answer) != 1.0:
        return f"the verifier {question.verifier} rejects the reference answer {question.reference_answer[:80]!r}"
    if question.solution is not None and answers.verify(question, question.solution) != 1.0:
        found = answers.final_answers(question.solution)[-1:]
        return f"the verifier {question.verifier} rejects the worked solution, which ends in {found}"
    return None


def resolve(questions: Iterable[Question]) -> tuple[list[Question], list[dict[str, Any]]]:
    """One question for each prompt; none for a prompt whose answers contradict each other.

    Answers agree when the verifier of the first one accepts them all (`0.5` and `1/2`); then the first one stays.

    Returns:
        Questions in their order, and one row for each contradiction.
    """
    by_prompt: defaultdict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_prompt[question.prompt].append(question)
    conflicts = []
    kept = []
    for prompt, same in by_prompt.items():
        if all(_agrees(same[0], other) for other in same[1:]):
            kept.append(same[0])
        else:
            conflicts.append(
                {
                    "prompt": prompt,
                    "question_ids": [question.id for question in same],
                    "answers": [question.reference_answer for question in same],
                    "sources": [question.source for question in same],
                }
            )
    return kept, conflicts


def _agrees(first: Question, other: Question) -> bool:
    return answers.score_answer(first, other.reference_answer) == 1.0


def _empty(report: dict[str, Any]) -> str:
    return "\n".join(["the pool is empty: no question is left of what the sources gave.", *_reasons(report)])


def _reasons(report: dict[str, Any]) -> Iterator[str]:
    for name, counts in report["sources"].items():
        yield f"  {name}: {counts['read']} read, {counts['duplicates']} duplicates"
    yield f"  {len(report['rejected'])} rejected, {len(report['conflicts'])} prompts with contradicting answers"
    for row in report["rejected"][:3]:
        yield f"  {row['source']}: {row['problem']}"
    yield "Correct the section `ingest` in params.yaml or the files it names."
