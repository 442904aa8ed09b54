r"""Procedural questions: seeded, verifiable tasks of reasoning-gym.

Left out: the composite data set (name its families one by one) and families that come without a reference answer.

Seeds: reasoning-gym draws item i of a data set from `seed + i`. Two sets of one family with equal settings and seeds
that are closer than their sizes share items, so keep the seeds of training and evaluation far apart.
"""

import ast
import difflib
import json
import operator
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

from pydantic import Field, JsonValue

from metagdpo.answers import boxed
from metagdpo.errors import ConfigError
from metagdpo.records.question import Question, question_id
from metagdpo.schema import Frozen

_OPERATORS: dict[type[ast.operator], tuple[str, Any]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}


class ProceduralSource(Frozen):
    """Questions of one reasoning-gym family."""

    kind: Literal["procedural"]
    name: str = Field(min_length=1)
    """Name in reports; each source has its own."""
    family: str = Field(min_length=1)
    """Name of the reasoning-gym data set, such as `chain_sum`."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the family; those left out keep its defaults."""
    n_questions: int = Field(gt=0)
    """Questions drawn; equal ones are kept once."""
    seed: int = Field(ge=0)
    domain: str = Field(min_length=1)
    licence: str = Field(default="Apache-2.0 (reasoning-gym)", min_length=1)

    def questions(self) -> Iterator[Question]:
        """Yield the questions in the order of the family.

        Raises:
            ConfigError: The family does not exist, refuses its settings, or gives no reference answers.
        """
        for index, entry in enumerate(_create(self)):
            prompt, answer = entry["question"].strip(), entry["answer"]
            if not isinstance(answer, str) or not answer.strip() or not prompt:
                message = (
                    f"ingest source `{self.name}`: item {index} of the reasoning-gym family `{self.family}` has no "
                    "reference answer, so nothing could be taught from it. Choose another family."
                )
                raise ConfigError(message)
            verifier = f"reasoning_gym:{self.family}"
            yield Question(
                id=question_id(prompt, answer, verifier),
                prompt=prompt,
                domain=self.domain,
                reference_answer=answer,
                solution=worked_solution(entry["metadata"], answer),
                verifier=verifier,
                metadata=_plain(entry["metadata"], self),
                source=f"{self.name}: reasoning-gym {self.family}, seed {self.seed}, item {index}",
                licence=self.licence,
            )


def worked_solution(metadata: dict[str, Any], answer: str) -> str | None:
    """The family's own chain of thought, or the worked steps of its expression; None when it has neither.

    Args:
        metadata: The entry's metadata.
        answer: The reference answer, which ends the solution in a box.
    """
    if isinstance(metadata.get("answer_cot"), str):
        steps = re.sub(r"\n*####.*\Z", "", metadata["answer_cot"], flags=re.DOTALL)
    else:
        steps = worked_steps(str(metadata.get("expression", "")), answer)
    return f"{steps}\nThe final answer is {boxed(answer)}" if steps else None


def worked_steps(expression: str, answer: str) -> str:
    """Whole-number arithmetic worked one operation a line, innermost and leftmost first.

    `2 + 3 * 4` gives `3 * 4 = 12`, then `2 + 12 = 14`. Empty when the expression is not plain arithmetic, has no
    operation, leaves the whole numbers, or does not come to the answer.
    """
    lines: list[str] = []
    try:
        value = _work(ast.parse(expression.strip(), mode="eval").body, lines)
        return "\n".join(lines) if value == Fraction(answer) else ""
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return ""


def _work(node: ast.expr, lines: list[str]) -> Fraction:
    """Value of a node; its operations are appended to `lines` as they are worked."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _work(node.operand, lines)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        sign, operation = _OPERATORS[type(node.op)]
        left, right = _work(node.left, lines), _work(node.right, lines)
        value = operation(left, right)
        if value.denominator == 1:
            lines.append(f"{_shown(left)} {sign} {_shown(right)} = {value}")
            return Fraction(value)
    raise ValueError("not whole-number arithmetic")


def _shown(value: Fraction) -> str:
    return f"({value})" if value < 0 else str(value)


def _create(source: ProceduralSource) -> Any:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if source.family not in DATASETS:
        near = difflib.get_close_matches(source.family, sorted(DATASETS), n=3)
        hint = f"Did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "Some are `chain_sum`, `gcd`."
        raise ConfigError(f"ingest source `{source.name}`: reasoning-gym has no family `{source.family}`. {hint}")
    try:
        return reasoning_gym.create_dataset(source.family, size=source.n_questions, seed=source.seed, **source.config)
    except (AssertionError, TypeError, ValueError, KeyError) as error:
        settings = json.dumps(source.config, sort_keys=True)
        message = (
            f"ingest source `{source.name}`: the reasoning-gym family `{source.family}` refuses the settings "
            f"{settings}: {error}. See the family's page in the reasoning-gym gallery for what it accepts."
        )
        raise ConfigError(message) from error


def _plain(metadata: dict[str, Any], source: ProceduralSource) -> dict[str, JsonValue]:
    """The metadata as JSON gives it back, so that a verifier sees the same before and after the file.

    Objects that JSON does not know, such as the fractions of `gsm_symbolic`, become text; whether the verifier can work
    with that is checked for every question when the pool is built.
    """
    try:
        plain: dict[str, JsonValue] = json.loads(json.dumps(metadata, allow_nan=False, default=str))
    except (TypeError, ValueError) as error:
        message = (
            f"ingest source `{source.name}`: the metadata of the reasoning-gym family `{source.family}` cannot be "
            f"written as JSON ({error}), so its answers could not be verified later. Choose another family."
        )
        raise ConfigError(message) from error
    return plain
