"""Question: what a model is asked, and how its answer is verified."""

from pydantic import Field, JsonValue

from metagdpo.schema import Frozen, digest_json


class Question(Frozen):
    """One verifiable question of the pool."""

    id: str
    """First 16 hex digits of the digest of prompt, reference answer and verifier; see `question_id`."""
    prompt: str
    """What the user says, without answer instructions."""
    domain: str
    """A broad field such as `mathematical`, `commonsense`, `logic` or `safety`."""
    reference_answer: str
    solution: str | None = None
    """A worked solution ending in the boxed reference answer, if the source has one."""
    verifier: str
    """`reasoning_gym:<family>`, `numeric`, `exact` or `choice`; see `metagdpo.answers`."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    """What the verifier needs besides the reference answer."""
    source: str
    """Where the question comes from: family and seed, or file and line."""
    licence: str


def question_id(prompt: str, reference_answer: str, verifier: str) -> str:
    """The identity of a question: equal content, equal id, wherever it came from."""
    return digest_json([prompt, reference_answer, verifier]).removeprefix("sha256:")[:16]
