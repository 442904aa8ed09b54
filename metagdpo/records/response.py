"""Response: one raw answer of a teacher, not yet scored."""

from metagdpo.schema import Frozen


class Response(Frozen):
    """One member of a response group (raw text; scoring is the stage `reward`)."""

    question_id: str
    index: int
    """Position in the group, 0-based, in the order of the teachers in params.yaml."""
    teacher: str
    """Name of the teacher in params.yaml, or `reference_solution`."""
    teacher_digest: str
    """Digest of the teacher's identity and sampling settings."""
    text: str
    finish_reason: str
    """`stop` when the teacher ended its answer, `length` when it was cut."""
