"""Which score of the candidate belongs to which score of the reference, and whether both were measured alike.

There is no unpaired comparison. Suites, items and the content of every item must agree, without exception. Settings
must agree as well; a setting that differs, or that one side does not state, is refused by name unless a person accepts
that field, and what was accepted stands in the report.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from metagdpo.errors import EvidenceError
from metagdpo.exchange.score_set import ScoreSet
from metagdpo.records.paired import PairedScore
from metagdpo.schema import Frozen

_SHOWN = 12
NOT_STATED = "(not stated)"


class Difference(Frozen):
    """A field of which the two sides state different values; null where one states none."""

    field: str
    against: str
    """`base` or `champion`."""
    reference: str | None
    candidate: str | None


class Pairing(NamedTuple):
    """Two score sets that may be compared."""

    pairs: dict[str, tuple[PairedScore, ...]]
    """By suite, items in the order of their names."""
    accepted: tuple[Difference, ...]
    models: tuple[Difference, ...]


def pair(reference: ScoreSet, candidate: ScoreSet, *, against: str, accept: Sequence[str]) -> Pairing:
    """Pair the scores of two models.

    Args:
        reference: Scores of the base or the champion.
        candidate: Scores of the candidate.
        against: What the reference is, for messages.
        accept: Patterns of fields that may differ.

    Raises:
        EvidenceError: The two must not be compared; names every field, suite or item that says so.
    """
    if reference.kind != candidate.kind:
        _refuse(f"the {against} is read from {reference.kind}, the candidate from {candidate.kind}", against)
    _same_names("suites", set(reference.suites), set(candidate.suites), against)
    differing = _differing(reference.identity, candidate.identity, against)
    accepted = [found for found in differing if any(fnmatchcase(found.field, pattern) for pattern in accept)]
    refused = [found for found in differing if found not in accepted]
    if refused:
        raise EvidenceError(_refusal(refused, against))
    pairs = {suite: _paired(suite, reference, candidate, against) for suite in sorted(reference.suites)}
    return Pairing(pairs, tuple(accepted), tuple(_differing(reference.model, candidate.model, against)))


def _paired(suite: str, reference: ScoreSet, candidate: ScoreSet, against: str) -> tuple[PairedScore, ...]:
    before, after = reference.suites[suite], candidate.suites[suite]
    _same_names(f"suite {suite}: items", set(before), set(after), against)
    found = []
    for item in sorted(before):
        was, now = before[item], after[item]
        fields = dict(was.content), dict(now.content)
        for difference in _differing(*fields, against):
            values = f"{against} {difference.reference or NOT_STATED}, candidate {difference.candidate or NOT_STATED}"
            _refuse(f"suite {suite}, item {item}: {difference.field} differs: {values}", against)
        if was.cluster != now.cluster:
            _refuse(f"suite {suite}, item {item}: cluster differs: {was.cluster} and {now.cluster}", against)
        found.append(PairedScore(item_id=item, before=was.score, candidate=now.score, cluster=was.cluster))
    return tuple(found)


def _differing(reference: dict[str, str], candidate: dict[str, str], against: str) -> list[Difference]:
    return [
        Difference(field=name, against=against, reference=reference.get(name), candidate=candidate.get(name))
        for name in sorted(set(reference) | set(candidate))
        if reference.get(name) != candidate.get(name)
    ]


def _same_names(what: str, reference: set[str], candidate: set[str], against: str) -> None:
    lone = [f"{name} (only {against})" for name in sorted(reference - candidate)]
    lone += [f"{name} (only candidate)" for name in sorted(candidate - reference)]
    if lone:
        more = f" and {len(lone) - _SHOWN} more" if len(lone) > _SHOWN else ""
        _refuse(f"{what} differ: {', '.join(lone[:_SHOWN])}{more}", against)


def _refusal(refused: Sequence[Difference], against: str) -> str:
    shown = [
        f"  {found.field}: {against} {found.reference or NOT_STATED}, candidate {found.candidate or NOT_STATED}"
        for found in refused[:_SHOWN]
    ]
    if len(refused) > _SHOWN:
        shown.append(f"  and {len(refused) - _SHOWN} more")
    head = f"{against} and candidate must not be compared: they were not measured alike."
    way_out = (
        "Evaluate both with the same settings. If a difference cannot change a score, accept it by name "
        f"(--accept '{refused[0].field}'); the report will show it."
    )
    return "\n".join([head, *shown, way_out])


def _refuse(problem: str, against: str) -> None:
    message = f"{against} and candidate must not be compared: {problem}."
    raise EvidenceError(f"{message} Evaluate both on the same items with the same settings.")
