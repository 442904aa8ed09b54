"""Small groups, samples and dialogues that every protection can be tried on, and a judge for on-policy answers.

Leaves out meaning: the tiny model writes noise, so what counts is that texts differ in length, tokens and reward.
"""

from dataclasses import dataclass, field
from itertools import accumulate

from metagdpo.objectives.advantages import group_advantages
from metagdpo.records.group import ResponseGroup, ScoredResponse
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue, SelfTurn


def a_group(number, rewards=(1.5, 0.0, 0.5, 0.0), texts=("the answer is 5", "no", "box 5", "no answer")):
    """A question with a response for each reward."""
    responses = tuple(
        ScoredResponse(index=i, teacher="t", text=f"{text} {number}", finish_reason="stop", correct=reward,
                       well_formed=True, reward=reward, advantage=0.0)
        for i, (reward, text) in enumerate(zip(rewards, texts, strict=True))
    )  # fmt: skip
    return ResponseGroup(
        question_id=f"q{number}", prompt=f"{number} + 5?", responses=responses, degenerate=len(set(rewards)) == 1
    )


def a_sample(index):
    """A context-free sample of 10 tokens and more."""
    return ContextFreeSample(
        index=index, prefix="bos", prefix_ids=(1,), token_ids=tuple(range(10 + index, 20 + 2 * index)), text="",
        ended=False, model="w", temperature=1.0, top_p=1.0, max_new_tokens=32, seed=index,
    )  # fmt: skip


def a_dialogue(index, n_turns=4):
    """User and assistant in turn, each after two tokens of a template."""
    lengths = [3 + (index + turn) % 4 for turn in range(n_turns)]
    starts = accumulate(lengths, initial=40 + 7 * index)
    turns = tuple(
        SelfTurn(role=("user", "assistant")[turn % 2], template_ids=(1, 5 + turn % 2),
                 token_ids=tuple(range(start, start + length)), text="", ended=True, seed=turn)
        for turn, (start, length) in enumerate(zip(starts, lengths, strict=False))
    )  # fmt: skip
    return SelfDialogue(index=index, turns=turns, model="w", temperature=0.7, top_p=0.9, max_new_tokens=8)


GROUPS = [*(a_group(i) for i in range(5)), a_group(9, (0.0, 0.0, 0.0, 0.0))]
SAMPLES = [a_sample(i) for i in range(4)]
HELD_OUT = [a_sample(i) for i in range(10, 13)]
DIALOGUES = [a_dialogue(i) for i in range(4)]


@dataclass
class Judge:
    """Rewards ASCII, about half of what the tiny model writes at first; remembers what it was shown."""

    seen: list = field(default_factory=list)

    def __call__(self, question_id, completions):
        """The scored group."""
        self.seen.append((question_id, [completion.text for completion in completions]))
        rewards = [sum(letter.isascii() for letter in done.text) / max(1, len(done.text)) for done in completions]
        responses = tuple(
            ScoredResponse(index=i, teacher="policy", text=done.text, finish_reason=done.finish_reason, correct=reward,
                           well_formed=done.finish_reason == "stop", reward=reward, advantage=advantage)
            for i, (done, reward, advantage) in enumerate(
                zip(completions, rewards, group_advantages(rewards), strict=True))
        )  # fmt: skip
        return ResponseGroup(question_id=question_id, prompt="", responses=responses, degenerate=False)
