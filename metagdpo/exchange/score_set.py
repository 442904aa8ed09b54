"""ScoreSet: item scores of one model as another harness wrote them, and what it says about how they were measured.

What is stated falls into three parts. `identity` must be equal on both sides of a comparison, `model` names the model
and is what a comparison varies, `notes` do not decide a score (dates, paths, commits of the folder a harness ran in).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from metagdpo.errors import ConfigError, EvidenceError

Kind = Literal["lm-eval", "inspect", "table"]
LONGEST_ANSWER = 2000
"""Characters kept of an answer; it is only shown."""


class Scored(NamedTuple):
    """One item as one model answered it."""

    score: float
    """In 0..1, higher is better."""
    content: tuple[tuple[str, str], ...] = ()
    """What the item is, as (field, digest): document, prompt, target; must be equal on both sides."""
    cluster: str | None = None
    answer: str | None = None


@dataclass(frozen=True)
class ScoreSet:
    """Scores of one model on some suites."""

    kind: Kind
    suites: dict[str, dict[str, Scored]]
    """Suite -> item -> score."""
    identity: dict[str, str] = field(default_factory=dict)
    """Field -> value of what must be equal on both sides."""
    model: dict[str, str] = field(default_factory=dict)
    """Field -> value of what names the model."""
    notes: dict[str, str] = field(default_factory=dict)
    """Field -> value of what is stated and never compared."""
    chances: dict[str, float] = field(default_factory=dict)
    """Accuracy of guessing, of the suites whose source tells the number of options."""
    files: dict[str, str] = field(default_factory=dict)
    """File name -> digest of everything that was read."""


@dataclass(frozen=True)
class Reading:
    """What a person chooses about reading; each mapping goes from a pattern of suite names to a choice."""

    metrics: Mapping[str, str] = field(default_factory=dict)
    """Metric of an lm-eval task, scorer of an Inspect task."""
    filters: Mapping[str, str] = field(default_factory=dict)
    """Filter of an lm-eval task."""
    clusters: Mapping[str, str] = field(default_factory=dict)
    """Field of the document (lm-eval) or of the metadata (Inspect) whose value groups dependent items."""
    skip: tuple[str, ...] = ()
    """Suites that are left out."""

    def skips(self, suite: str) -> bool:
        """Whether a suite is left out."""
        return any(fnmatchcase(suite, pattern) for pattern in self.skip)


def chosen(choices: Mapping[str, str], suite: str) -> str | None:
    """The choice of the first pattern that fits a suite; None when none does."""
    return next((choice for pattern, choice in choices.items() if fnmatchcase(suite, pattern)), None)


def as_score(value: Any, *, suite: str, item: str, what: str) -> float:
    """A score in 0..1.

    Args:
        value: A number or a truth value as it was written.
        suite: For the message.
        item: For the message.
        what: What the value is, such as `metric acc`.

    Raises:
        EvidenceError: It is no number, not finite, or outside 0..1.
    """
    if isinstance(value, (bool, int, float)) and 0 <= value <= 1:
        return float(value)
    message = (
        f"suite {suite}, item {item}: {what} is {str(value)[:80]!r}, and a score is a number in 0..1. "
        "A missing score is no zero: evaluate the item again, choose another metric, or leave the suite out (--skip)."
    )
    raise EvidenceError(message)


def add(items: dict[str, Scored], suite: str, item: str, scored: Scored) -> None:
    """Put one item into a suite.

    Raises:
        EvidenceError: The suite has the item already.
    """
    if item in items:
        raise EvidenceError(f"suite {suite}, item {item}: has more than one score; which one counts cannot be told.")
    items[item] = scored


def pool(scores: ScoreSet, groups: Mapping[str, str]) -> ScoreSet:
    """Put several suites together into one: the subjects of a benchmark as one skill.

    Args:
        scores: As they were read.
        groups: Name of the new suite -> pattern of the suites that make it.

    Raises:
        ConfigError: A pattern fits no suite, a suite fits two patterns, or a new name is taken.
    """
    owner: dict[str, str] = {}
    for name, pattern in groups.items():
        members = [suite for suite in scores.suites if fnmatchcase(suite, pattern)]
        taken = [suite for suite in members if suite in owner]
        if not members or taken or (name in scores.suites and name not in members):
            problem = (
                f"`{taken[0]}` is in two pools" if taken else f"`{name}` is a suite" if members else "fits no suite"
            )
            raise ConfigError(f"--pool {name}={pattern}: {problem}. Suites are: {', '.join(sorted(scores.suites))}.")
        owner |= dict.fromkeys(members, name)
    suites: dict[str, dict[str, Scored]] = {}
    guesses: dict[str, list[tuple[int, float | None]]] = {}
    for suite, items in scores.suites.items():
        name = owner.get(suite, suite)
        target = suites.setdefault(name, {})
        guesses.setdefault(name, []).append((len(items), scores.chances.get(suite)))
        for item, scored in items.items():
            inside = suite in owner
            cluster = f"{suite}/{scored.cluster}" if inside and scored.cluster is not None else scored.cluster
            add(target, name, f"{suite}/{item}" if inside else item, scored._replace(cluster=cluster))
    chances = {
        name: sum(n * chance for n, chance in parts if chance is not None) / sum(n for n, _ in parts)
        for name, parts in guesses.items()
        if all(chance is not None for _, chance in parts)
    }
    return ScoreSet(scores.kind, suites, scores.identity, scores.model, scores.notes, chances, scores.files)
