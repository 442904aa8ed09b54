"""The policy answers questions: prompts as stage `respond` asks them, our decoding, the scores of stage `reward`.

Every draw is a function of seed, step, place and index, and every answer is kept as soon as it is scored: what was paid
for is never decoded again, and would come out the same if it were.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from metagdpo.errors import DataError
from metagdpo.models.chat import render, stop_ids
from metagdpo.models.local import decode
from metagdpo.models.port import Completion, Message, Sampling, derived_seed
from metagdpo.records.group import ResponseGroup
from metagdpo.schema import Frozen, append_jsonl, digest_text, read_journal
from metagdpo.training.data import shuffled
from metagdpo.training.on_policy_settings import Grpo

Score = Callable[[str, Sequence[Completion]], ResponseGroup]
"""From a question's id and the answers to it to the scored group: what stage `reward` does to a teacher's answers."""


class JournaledResponse(Frozen):
    """One answer of the policy."""

    step: int
    """Of the on-policy part, 0 for the first."""
    place: int
    """Of the question in the step: one step may ask a question twice."""
    index: int
    """Of the response in its group."""
    question_id: str
    token_ids: tuple[int, ...]
    """The end token included."""
    text: str
    finish_reason: Literal["stop", "length"]
    reward: float
    correct: float
    well_formed: bool


class Answers:
    """The policy's answers by step: decoded, scored and journaled, or taken from the journal."""

    def __init__(
        self,
        policy: Any,
        tokenizer: Any,
        questions: Sequence[ResponseGroup],
        settings: Grpo,
        *,
        score: Score,
        seed: int,
        folder: Path,
        run_key: str,
    ) -> None:
        """Render the prompts and read what is there.

        Args:
            policy: The model that answers.
            tokenizer: Its tokenizer.
            questions: Only id and prompt of a group are used.
            settings: Size of a group and how it is sampled.
            score: The rewards.
            seed: Of every draw.
            folder: Holds a journal for each run key: another policy's answers are never taken for this one's.
            run_key: Of the training.

        Raises:
            DataError: There is no question, or one leaves no room for an answer.
        """
        if not questions:
            raise DataError("there are no questions to ask. Run `dvc repro reward`.")
        self._policy, self._tokenizer, self._settings = policy, tokenizer, settings
        self._questions, self._score, self._seed = questions, score, seed
        self.prompts = [_prompt_ids(policy, tokenizer, question, settings) for question in questions]
        """Token ids, one tuple for each question."""
        self._sampling = Sampling(
            temperature=settings.temperature, top_p=settings.top_p, max_new_tokens=settings.max_new_tokens
        )
        self._stops = stop_ids(tokenizer, policy)
        self._file = folder / f"responses-{digest_text(run_key).removeprefix('sha256:')[:16]}.jsonl"
        self._known = {(r.step, r.place, r.index): r for r in read_journal(self._file, JournaledResponse)}

    def ask(self, step: int, asked: Sequence[int]) -> list[JournaledResponse]:
        """G answers to each of the questions at these positions, in order.

        Raises:
            StoreError: The journal cannot be written.
        """
        size = self._settings.responses_per_question
        at_once = max(1, self._settings.decode_batch // size)
        for start in range(0, len(asked), at_once):
            chunk = dict(enumerate(asked[start : start + at_once], start=start))
            # Whole chunks, because rounding depends on what shares a batch.
            if any((step, place, index) not in self._known for place in chunk for index in range(size)):
                members = list(self._decoded(step, chunk))
                append_jsonl(self._file, members)
                self._known |= {(member.step, member.place, member.index): member for member in members}
        return self.of_step(step)

    def of_step(self, step: int) -> list[JournaledResponse]:
        """What was answered in a step, in order."""
        return [self._known[key] for key in sorted(key for key in self._known if key[0] == step)]

    def _decoded(self, step: int, chunk: Mapping[int, int]) -> Iterator[JournaledResponse]:
        """Answers to the questions at `chunk`'s values, which have the places of its keys."""
        rows = [(place, index) for place in chunk for index in range(self._settings.responses_per_question)]
        prompts = [list(self.prompts[chunk[place]]) for place, _ in rows]
        seeds = [derived_seed(self._seed, "grpo", step, place, index) for place, index in rows]
        found: dict[tuple[int, int], Completion] = {}
        self._policy.eval()  # layers that recompute their activations have no cache while they train
        for row, tokens, stopped in decode(self._policy, prompts, seeds, self._sampling, self._stops):
            found[rows[row]] = Completion(
                text=self._tokenizer.decode(tokens, skip_special_tokens=True),
                token_ids=tuple(tokens),
                finish_reason="stop" if stopped else "length",
            )
        self._policy.train()
        for place, position in chunk.items():
            completions = [found[key] for key in rows if key[0] == place]
            group = self._score(self._questions[position].question_id, completions)
            for completion, scored in zip(completions, group.responses, strict=True):
                yield JournaledResponse(
                    step=step,
                    place=place,
                    index=scored.index,
                    question_id=group.question_id,
                    token_ids=completion.token_ids,
                    text=completion.text,
                    finish_reason=completion.finish_reason,
                    reward=scored.reward,
                    correct=scored.correct,
                    well_formed=scored.well_formed,
                )


def questions_of_step(n: int, step: int, per_step: int, seed: int) -> list[int]:
    """Which of n questions a step asks: an endless walk through passes, each in an order of its own."""
    walk = range(step * per_step, (step + 1) * per_step)
    return [shuffled(n, seed, "questions", i // n)[i % n] for i in walk]


def summary(members: Sequence[JournaledResponse]) -> dict[str, float]:
    """Means over answers, for the curves."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return {
        "reward": mean([member.reward for member in members]),
        "correct": mean([member.correct for member in members]),
        "well_formed": mean([float(member.well_formed) for member in members]),
        "cut": mean([float(member.finish_reason == "length") for member in members]),
        "response_tokens": mean([float(len(member.token_ids)) for member in members]),
    }


def _prompt_ids(policy: Any, tokenizer: Any, question: ResponseGroup, settings: Grpo) -> tuple[int, ...]:
    ids = tuple(render(tokenizer, [Message(role="user", content=question.prompt)]))
    limit = getattr(policy.config, "max_position_embeddings", None)
    if limit is not None and len(ids) + settings.max_new_tokens > limit:
        message = (
            f"the prompt of question {question.question_id} has {len(ids)} tokens; with {settings.max_new_tokens} new "
            f"ones it does not fit into the model's {limit} positions. Lower train.on_policy.max_new_tokens, or drop "
            "the question."
        )
        raise DataError(message)
    return ids
