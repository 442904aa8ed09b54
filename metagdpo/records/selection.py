"""SelectedQuestion and DroppedQuestion: MetaKL, each row with the reason for its fate."""

from typing import Literal

from metagdpo.schema import Frozen


class SelectedQuestion(Frozen):
    """One question of MetaKL (Algorithm 1)."""

    question_id: str
    reason: Literal["complex", "reminder", "gap"]
    """`complex`: at least r units; `reminder`: already correct, kept to be remembered; `gap`: largest gap."""
    units: tuple[str, ...]
    closed: tuple[str, ...]
    """The units whose target ratio was still open when the question was taken."""
    order: int
    """0 for the first question taken."""


class DroppedQuestion(Frozen):
    """One pool question that was not selected."""

    question_id: str
    reason: Literal["no_units", "targets_met", "size_limit"]
    units: tuple[str, ...]
