"""Annotate: which skills each question needs, by a model that is asked or by the nearest skills of a taxonomy.

MetaGDPO asks GPT-4o (method note 1.1 step 2). The taxonomy annotator is our offline stand-in: it needs no server, and
it knows only the skills that the taxonomy lists.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from metagdpo.knowledge import prompts
from metagdpo.models import LocalSettings, ModelSettings
from metagdpo.models.port import Message, Request, Sampling, TextModel, derived_seed
from metagdpo.params import BaseParams, load_yaml, validate
from metagdpo.records.annotation import Annotation, SkillLabel
from metagdpo.records.question import Question
from metagdpo.schema import Frozen, digest_record

TAXONOMY = Path(__file__).with_name("taxonomy.yaml")
DIGITS = 4
"""Similarities are rounded before they are compared: later digits differ between machines."""

Embed = Callable[[Sequence[str]], Any]
"""Texts to an array [text, dimension] of unit vectors."""


class Skill(Frozen):
    """One entry of the taxonomy."""

    name: str = Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")
    description: str = Field(min_length=1)
    """What a question that needs the skill looks like; this is what is embedded."""


class Taxonomy(Frozen):
    """A versioned list of skills."""

    version: int = Field(gt=0)
    skills: tuple[Skill, ...] = Field(min_length=1)

    @field_validator("skills")
    @classmethod
    def _names_differ(cls, skills: tuple[Skill, ...]) -> tuple[Skill, ...]:
        names = [skill.name for skill in skills]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return skills


class TaxonomyAnnotator(Frozen):
    """Nearest skills of the taxonomy by sentence embedding; no server needed."""

    kind: Literal["taxonomy"]
    embedding: str = Field(min_length=1)
    """Sentence encoder: `asset:<name>`, `hub:<owner>/<name>@<40-hex revision>`, or a local directory."""
    top_k: int = Field(gt=0)
    """Skills that a question gets at most."""
    min_similarity: float = Field(ge=-1, le=1)
    """Cosine that a skill needs at least; a question that is near none gets none."""
    batch_size: int = Field(default=64, gt=0)


class ChatAnnotator(Frozen):
    """Any text model, asked with the paper's prompt."""

    kind: Literal["chat"]
    model: ModelSettings
    temperature: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=512, gt=0)


class AnnotateParams(Frozen):
    """Section `annotate`."""

    annotator: Annotated[TaxonomyAnnotator | ChatAnnotator, Field(discriminator="kind")]

    def references(self) -> tuple[str, ...]:
        """Models that must lie on this machine before annotation, besides the base."""
        if isinstance(self.annotator, TaxonomyAnnotator):
            return (self.annotator.embedding,)
        model = self.annotator.model
        return (model.model,) if isinstance(model, LocalSettings) and model.model != "base" else ()


def annotate(questions: Sequence[Question], params: AnnotateParams, base: BaseParams, work: Path) -> list[Annotation]:
    """Annotate every question as the parameters say, in the order of the questions.

    Args:
        questions: The pool.
        params: Section `annotate`.
        base: Section `base`: the model that `base` means, and the seed.
        work: Folder where a model's replies are kept, so that a rerun pays for none twice.

    Raises:
        ModelError: The annotator cannot be used.
    """
    from metagdpo.models.load import identify, locate

    annotator = params.annotator
    if isinstance(annotator, TaxonomyAnnotator):
        from metagdpo.models.embedding import Embedder

        embed = Embedder(locate(annotator.embedding), batch_size=annotator.batch_size)
        found = annotate_with_taxonomy(
            questions,
            embed,
            load_taxonomy(),
            top_k=annotator.top_k,
            min_similarity=annotator.min_similarity,
            embedding=embed.identity,
        )
    else:
        from metagdpo.models.open import open_model

        identity = identify(base.model, locate(base.model))
        model = open_model(annotator.model, base=identity, dtype=base.dtype, work=work)
        sampling = Sampling(temperature=annotator.temperature, max_new_tokens=annotator.max_new_tokens)
        found = annotate_with_model(questions, model, sampling, base.seed)
    return list(found)


def load_taxonomy(path: Path = TAXONOMY) -> Taxonomy:
    """Read a taxonomy.

    Raises:
        ConfigError: It is not one; lists every problem.
    """
    return validate(load_yaml(path), Taxonomy, where=str(path))


def annotate_with_model(
    questions: Sequence[Question], model: TextModel, sampling: Sampling, seed: int
) -> Iterator[Annotation]:
    """Yield the skills that a model names for each question; an unreadable reply gives none and is kept.

    Raises:
        ModelError: The model cannot be used.
    """
    requests = [
        Request(
            messages=(Message(role="user", content=prompts.annotate_prompt(question.prompt, question.domain)),),
            seed=derived_seed("annotate", seed, question.id),
        )
        for question in questions
    ]
    annotator = f"chat: model {model.identity}, prompt {prompts.VERSION}, sampling {digest_record(sampling)}"
    replies = dict(model.complete(requests, sampling))
    for position, question in enumerate(questions):
        text = replies[position].text
        yield Annotation(question_id=question.id, skills=parse_skills(text), annotator=annotator, raw=text)


def parse_skills(reply: str) -> tuple[SkillLabel, ...]:
    """The skills of a reply `{skill: reason}`, whatever is written around it; none when there is no such object.

    Thoughts before the reply (`<think>...</think>`) are passed over. Names become lower case words joined by
    underscores; of names that become equal the first one stays.
    """
    labels: dict[str, SkillLabel] = {}
    for name, reason in _first_object(reply.rpartition("</think>")[2]).items():
        plain = normalised_name(name)
        if plain and isinstance(reason, str):
            labels.setdefault(plain, SkillLabel(name=plain, reason=reason.strip()))
    return tuple(labels.values())


def normalised_name(name: str) -> str:
    """`Adding  Two-Digit numbers!` becomes `adding_two_digit_numbers`."""
    return "_".join(re.findall(r"[^\W_]+", name.casefold()))


def annotate_with_taxonomy(
    questions: Sequence[Question],
    embed: Embed,
    taxonomy: Taxonomy,
    *,
    top_k: int,
    min_similarity: float,
    embedding: str,
) -> Iterator[Annotation]:
    """Yield the nearest skills of each question; `raw` keeps its similarity to every skill of the taxonomy.

    Args:
        questions: The pool.
        embed: Texts to unit vectors.
        taxonomy: Skills to choose from.
        top_k: Skills a question gets at most; equally near ones in alphabetical order.
        min_similarity: Cosine that a skill needs at least.
        embedding: Identity of the encoder behind `embed`.
    """
    annotator = (
        f"taxonomy: version {taxonomy.version} {digest_record(taxonomy)}, embedding {embedding}, "
        f"top_k {top_k}, min_similarity {min_similarity}"
    )
    skills_KD = embed([skill.description for skill in taxonomy.skills])
    questions_ND = embed([question.prompt for question in questions])
    for question, row_K in zip(questions, (questions_ND @ skills_KD.T).tolist(), strict=True):
        scores = {
            skill.name: round(similarity, DIGITS) for skill, similarity in zip(taxonomy.skills, row_K, strict=True)
        }
        near = sorted((-score, name) for name, score in scores.items() if score >= min_similarity)[:top_k]
        yield Annotation(
            question_id=question.id,
            skills=tuple(
                SkillLabel(name=name, reason=f"cosine {-score:.4f} to its description") for score, name in near
            ),
            annotator=annotator,
            raw=scores,
        )


def _first_object(text: str) -> dict[str, Any]:
    """The first JSON object in a text that is not empty; an empty one when there is none."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        if value:
            return dict(value)
    return {}
