"""Annotation: the metacognitive knowledge that a question needs, with the raw reply it was read from."""

from pydantic import JsonValue

from metagdpo.schema import Frozen


class SkillLabel(Frozen):
    """One skill label of one question."""

    name: str
    """Lower case, words joined by underscores."""
    reason: str
    """Why the question needs it: the annotator's words, or the similarity that led to it."""


class Annotation(Frozen):
    """The skills of one question. A question may end with none: counted and reported, never hidden."""

    question_id: str
    skills: tuple[SkillLabel, ...]
    annotator: str
    """Annotator kind with the digest or version of everything that decides its reply."""
    raw: JsonValue
    """The reply as it came: the text of a model, or all similarity scores of the taxonomy."""
