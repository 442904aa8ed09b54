"""The answer contract: how a final answer is asked for, found in a text, and verified.

Probe, teachers, rewards and target suites all use this one contract. Mastery and reward ask whether an answer is right
(`correctness`), in a box or not: a model that was never shown the box still knows what it knows, and the form is
rewarded by itself. A target suite asks for both at once (`verify`).
"""

import functools
import re
from typing import Any

from metagdpo.errors import DataError
from metagdpo.records.question import Question

INSTRUCTION = "Put the final answer in \\boxed{}."

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def ask(question: Question) -> str:
    """The user message for a question: its text and how to answer."""
    return f"{question.prompt}\n{INSTRUCTION}"


def boxed(answer: str) -> str:
    r"""An answer as the contract wants it: `\boxed{answer}`."""
    return f"\\boxed{{{answer}}}"


def final_answers(text: str) -> list[str]:
    r"""Contents of every `\boxed{...}` in a text, in order, braces balanced; an unclosed box counts for nothing."""
    found = []
    for match in re.finditer(r"\\boxed\s*\{", text):
        depth = 1
        for position in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                found.append(text[match.end() : position].strip())
                break
    return found


def is_well_formed(text: str) -> bool:
    """Exactly one non-empty final answer in the asked form."""
    answers = final_answers(text)
    return len(answers) == 1 and answers[0] != ""


def stated_answer(question: Question, text: str) -> str | None:
    """The answer that a text ends with: its last box, or, where the reference answer is a number, its last number."""
    answers = final_answers(text)
    if answers:
        return answers[-1]
    if not _NUMBER.fullmatch(question.reference_answer.strip()):
        return None
    numbers = _NUMBER.findall(text)
    return numbers[-1].rstrip(",") if numbers else None


def correctness(question: Question, text: str) -> float:
    """Score in 0..1 of the answer that a text ends with, in a box or not; 0 when it has none.

    Raises:
        DataError: The question names a verifier that does not exist.
    """
    answer = stated_answer(question, text)
    return 0.0 if answer is None else score_answer(question, answer)


def verify(question: Question, text: str) -> float:
    """Score a model's text in 0..1 by its last boxed answer; 0 when it has none.

    Raises:
        DataError: The question names a verifier that does not exist.
    """
    answers = final_answers(text)
    return score_answer(question, answers[-1]) if answers else 0.0


def score_answer(question: Question, answer: str) -> float:
    """Score a bare answer in 0..1 with the question's verifier.

    Raises:
        DataError: The question names a verifier that does not exist.
    """
    kind, _, family = question.verifier.partition(":")
    if kind == "reasoning_gym":
        entry = {"question": question.prompt, "answer": question.reference_answer, "metadata": question.metadata}
        verifier = _family(family)
        try:
            return min(1.0, max(0.0, float(verifier.score_answer(answer, entry))))
        except Exception:  # noqa: BLE001  (some families fail on texts that they cannot parse: a wrong answer, no more)
            return 0.0
    if kind == "numeric":
        return float(_as_number(answer) is not None and _as_number(answer) == _as_number(question.reference_answer))
    if kind == "choice":
        return float(_letter(answer) == _letter(question.reference_answer) != "")
    if kind == "exact":
        return float(_normalised(answer) == _normalised(question.reference_answer))
    message = (
        f"question {question.id} ({question.source}) names the verifier `{question.verifier}`; "
        "known are `reasoning_gym:<family>`, `numeric`, `choice` and `exact`."
    )
    raise DataError(message)


@functools.cache
def _family(name: str) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.create_dataset(name, size=1, seed=0)
    except ValueError as error:
        message = f"the verifier `reasoning_gym:{name}` does not exist: reasoning-gym has no such family ({error})."
        raise DataError(message) from error


def _as_number(text: str) -> float | None:
    match = _NUMBER.search(text.replace("$", "").replace("%", ""))
    if match is None:
        return None
    numerator, _, denominator = match.group().replace(",", "").partition("/")
    if not denominator:
        return float(numerator)
    return float(numerator) / float(denominator) if float(denominator) else None


def _letter(text: str) -> str:
    match = re.search(r"\b([A-J])\b", text.upper())
    return match.group(1) if match else ""


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .!?\"'")
