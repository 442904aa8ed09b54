"""Probe: ask the models under study every pool question, greedily, before any training."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from metagdpo.answers import ask
from metagdpo.models import LocalSettings, ModelSettings
from metagdpo.models.port import Message, Request, Sampling, TextModel
from metagdpo.records.probe import ProbeAnswer
from metagdpo.records.question import Question
from metagdpo.schema import Frozen


class ProbedModel(Frozen):
    """One model whose mastery is measured."""

    name: str = Field(min_length=1)
    model: ModelSettings = Field(default_factory=LocalSettings)


class ProbeParams(Frozen):
    """Section `probe`."""

    models: tuple[ProbedModel, ...] = Field(min_length=1)
    """The paper averages over five models; one is enough to measure the model that will be trained."""
    max_new_tokens: int = Field(gt=0)


def probe(questions: Sequence[Question], model: TextModel, name: str, max_new_tokens: int) -> Iterator[ProbeAnswer]:
    """Yield the model's greedy answer to every question, in the order of the questions.

    Raises:
        ModelError: The model cannot be used; answers already given are kept in its journal.
    """
    requests = [Request(messages=(Message(role="user", content=ask(question)),), seed=0) for question in questions]
    answers = dict(model.complete(requests, Sampling(temperature=0.0, max_new_tokens=max_new_tokens)))
    for position, question in enumerate(questions):
        answer = answers[position]
        yield ProbeAnswer(question_id=question.id, model=name, text=answer.text, finish_reason=answer.finish_reason)
