"""Items: what a suite asks, written out once, so that base and candidate are asked exactly the same.

Deterministic: the same suite and the same asset give the same items in the same order. Documents that repeat are kept
once and counted. Left out: any look at a model; whether an item suits one is measured, not assumed.
"""

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic

from metagdpo.answers import ask
from metagdpo.errors import ConfigError, DataError
from metagdpo.evaluation.suite import AssetItems, FieldOptions, FileItems, LetteredOptions, ProceduralItems, Suite
from metagdpo.models.port import derived_seed
from metagdpo.records.question import Question, question_id
from metagdpo.schema import Frozen, digest_json

FRESH_FACTOR = 10
"""How many times a family's size is looked through for new entries, at most."""


class Item(Frozen):
    """One line of data/suites/<suite>.jsonl."""

    id: str
    prompt: str
    """The question as it is put to the model, worked examples and answer instructions included, chat template not."""
    options: tuple[str, ...] = ()
    """Choices in alphabetical order, so that ties favour no one; empty when the answer is written."""
    gold: int | None = None
    """Position of the right option."""
    question: Question | None = None
    """What verifies a written answer."""
    cluster: str | None = None
    """Passage, subject or template that the item shares with others; None when it is independent."""

    @property
    def doc(self) -> str:
        """Digest of what is asked."""
        return digest_json([self.prompt, list(self.options)])

    @property
    def target(self) -> str:
        """Digest of what is right: options and gold, or the question with its answer and verifier."""
        if self.options:
            return digest_json([list(self.options), self.gold])
        return digest_json(self.question and self.question.model_dump(mode="json"))


class ItemSet(Frozen):
    """The items of a suite with the count of what was passed over."""

    items: tuple[Item, ...]
    n_documents: int
    """Documents found, before repetitions were removed and the subset was drawn."""
    n_duplicates: int


class _FileLine(Frozen):
    id: str | None = None
    prompt: str = pydantic.Field(min_length=1)
    options: tuple[str, ...] = ()
    gold: int | None = pydantic.Field(default=None, ge=0)
    answer: str | None = None
    verifier: str = "exact"
    cluster: str | None = pydantic.Field(default=None, min_length=1)


def build_items(suite: Suite, assets: Path) -> tuple[Item, ...]:
    """The items of a suite, as `collect` finds them."""
    return collect(suite, assets).items


def collect(suite: Suite, assets: Path) -> ItemSet:
    """Read or generate a suite's documents, remove repetitions, and draw the subset in a random order.

    An evaluation that stops early has asked the first items only: their order must say nothing about them, and the
    clusters (which are drawn whole, in random order, until one does not fit any more) stay together.

    Args:
        suite: The suite.
        assets: Folder that holds a directory for each asset.

    Raises:
        ConfigError: The suite has no items, a cluster of more than `n_items`, or a family that does not exist.
        DataError: A file is missing, a line cannot be used (names file and line), or two items have one id.
    """
    found, unique = _read(suite, assets)
    drawn = [item for group in _draw(unique, suite)[0] for item in group]
    return ItemSet(items=tuple(drawn), n_documents=len(found), n_duplicates=len(found) - len(unique))


def spare_items(suite: Suite, assets: Path) -> Iterator[Sequence[Item]]:
    """Documents that could have been items and are not, a cluster at a time, in a random order; without repetitions.

    Of a procedural family, whose documents are without end, entries of another seed that `collect` does not give; the
    solved examples before the question are the suite's own.

    Args:
        suite: The suite.
        assets: Folder that holds a directory for each asset.

    Raises:
        ConfigError: As `collect`.
        DataError: As `collect`.
    """
    _, unique = _read(suite, assets)
    if isinstance(suite.items, ProceduralItems):
        yield from _fresh(suite.items, suite, seen={item.doc for item in unique})
    else:
        yield from _draw(unique, suite)[1]


def _fresh(source: ProceduralItems, suite: Suite, seen: set[str]) -> Iterator[Sequence[Item]]:
    """Entries of another seed; bounded, because a small family has nothing new at some point."""
    shots = list(itertools.islice(_entries(source, suite.name), source.shots))
    seed = derived_seed("validation", suite.name, source.seed) % 2**31
    other = source.model_copy(update={"seed": seed, "size": FRESH_FACTOR * source.size})
    for item in _written_out(other, suite, shots, enumerate(_entries(other, suite.name))):
        if item.doc not in seen:
            seen.add(item.doc)
            yield (item,)


def _read(suite: Suite, assets: Path) -> tuple[list[Item], list[Item]]:
    """All documents, and those that are left without repetitions."""
    found = list(_documents(suite, assets))
    # Equal question and equal options: the first one stays, whatever its gold answer.
    unique = list({digest_json([item.prompt, list(item.options)]): item for item in reversed(found)}.values())[::-1]
    if not unique:
        message = f"suite {suite.name} has no items: {suite.reference} yields none with the suite's settings. "
        raise ConfigError(message + f"Correct registry/suites/{suite.name}.yaml, or remove it.")
    repeated = [name for name, times in Counter(item.id for item in unique).items() if times > 1]
    if repeated:
        message = f"suite {suite.name}: {len(repeated)} ids stand for several items each, such as {repeated[0]!r}. "
        raise DataError(message + "Give every item an id of its own, or leave `id` away.")
    return found, unique


def _draw(items: Sequence[Item], suite: Suite) -> tuple[list[list[Item]], list[list[Item]]]:
    """Clusters in a random order (lone items are clusters of one): those that become items, and the others."""
    rng = random.Random(derived_seed("suite", suite.name, suite.seed))  # noqa: S311  (no secret)
    groups: dict[str, list[Item]] = {}
    for number, item in enumerate(items):
        # A prefix keeps names of clusters and numbers of lone items apart.
        groups.setdefault(f"item {number}" if item.cluster is None else f"cluster {item.cluster}", []).append(item)
    name, largest = max(((name, len(group)) for name, group in groups.items()), key=lambda each: each[1])
    if largest > suite.n_items:
        message = f"suite {suite.name}: {name} has {largest} items, more than its n_items ({suite.n_items}): "
        raise ConfigError(message + "it could never be drawn. Raise n_items, or choose a finer field for the clusters.")
    order = [groups[chosen] for chosen in rng.sample(list(groups), len(groups))]
    ends = itertools.accumulate(len(group) for group in order)
    n_drawn = sum(end <= suite.n_items for end in ends)
    return order[:n_drawn], order[n_drawn:]


def _documents(suite: Suite, assets: Path) -> Iterator[Item]:
    match suite.items:
        case AssetItems():
            return _from_asset(suite.items, assets)
        case ProceduralItems():
            return _from_family(suite.items, suite)
        case FileItems():
            return _from_file(suite.items, suite)


def _from_asset(source: AssetItems, assets: Path) -> Iterator[Item]:
    path = assets / source.asset / source.file
    for number, row in _rows(path, f"Run `dvc repro assets`, which provides the asset `{source.asset}`."):
        if any(row.get(field) != value for field, value in source.where.items()):
            continue
        try:
            prompt = source.prompt.format_map(row).strip()
            options, right = _options(source.options, row)
            cluster = None if source.cluster is None else str(row[source.cluster])
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            message = f"{path}, line {number}: not an item as the suite describes it ({type(error).__name__}: {error})."
            raise DataError(message) from error
        yield _choice(prompt, options, right, cluster=cluster)


def _options(layout: LetteredOptions | FieldOptions, row: dict[str, Any]) -> tuple[list[str], str]:
    if isinstance(layout, FieldOptions):
        right = row[layout.right].strip()
        return [right, *(row[field].strip() for field in layout.wrong)], right
    options = [text.strip() for text in re.split(r"(?:^|\n)[A-Z]\. ", row[layout.options])[1:]]
    answer = row[layout.answer].strip()
    labelled = re.match(r"([A-Z])(?:\.|$)", answer)
    if labelled is None:
        raise ValueError(f"the answer {answer[:60]!r} begins with no letter")
    return options, options[ord(labelled.group(1)) - ord("A")]


def _from_family(source: ProceduralItems, suite: Suite) -> Iterator[Item]:
    entries = list(enumerate(_entries(source, suite.name)))
    shots = [entry for _, entry in entries[: source.shots]]
    return _written_out(source, suite, shots, entries[source.shots :])


def _written_out(
    source: ProceduralItems,
    suite: Suite,
    shots: Sequence[dict[str, Any]],
    entries: Iterable[tuple[int, dict[str, Any]]],
) -> Iterator[Item]:
    """Items of numbered entries, after the solved examples; none asks what an example asks."""
    examples = "".join(f"{source.prompt.format(question=e['question'])} {e['answer']}\n\n" for e in shots)
    seen = {entry["question"] for entry in shots}
    for position, entry in entries:
        if entry["question"] in seen:
            continue
        verifier = f"reasoning_gym:{source.family}"
        question = Question(
            id=question_id(entry["question"], entry["answer"], verifier),
            prompt=entry["question"],
            domain=suite.skill,
            reference_answer=entry["answer"],
            verifier=verifier,
            metadata=entry["metadata"],
            source=f"reasoning-gym {source.family}, seed {source.seed}, entry {position}",
            licence=suite.licence,
        )
        if source.answer == "boxed":
            yield Item(id=question.id, prompt=ask(question), question=question)
            continue
        prompt = examples + source.prompt.format(question=question.prompt)
        if not source.options:
            yield Item(id=question.id, prompt=prompt, question=question)
        elif question.reference_answer in source.options:
            yield _choice(prompt, list(source.options), question.reference_answer)
        else:
            message = f"suite {suite.name}: the answer {question.reference_answer!r} is none of its options"
            raise ConfigError(f"{message} {list(source.options)}. Complete `items.options` in its file.")


def _entries(source: ProceduralItems, suite: str) -> Iterator[dict[str, Any]]:
    import reasoning_gym

    try:
        dataset = reasoning_gym.create_dataset(source.family, seed=source.seed, size=source.size, **source.config)
    except (ValueError, TypeError, AssertionError) as error:
        message = f"suite {suite}: reasoning-gym cannot make the family `{source.family}` with {source.config}: {error}"
        raise ConfigError(f"{message}. Correct registry/suites/{suite}.yaml.") from error
    for entry in dataset:
        # Through JSON: what is verified later is what the file holds (tuples become lists).
        metadata = json.loads(json.dumps(entry["metadata"], default=str))
        yield {"question": entry["question"].strip(), "answer": str(entry["answer"]), "metadata": metadata}


def _from_file(source: FileItems, suite: Suite) -> Iterator[Item]:
    path = Path(source.path)
    for number, row in _rows(path, f"Correct `items.path` in registry/suites/{suite.name}.yaml."):
        try:
            line = _FileLine.model_validate_json(json.dumps(row))
        except pydantic.ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise DataError(f"{path}, line {number}: {where}: {problem['msg']}.") from error
        yield _file_item(line, suite, f"{path}, line {number}")


def _file_item(line: _FileLine, suite: Suite, where: str) -> Item:
    if suite.form == "choice":
        if len(line.options) < 2 or line.gold is None or line.gold >= len(line.options):  # noqa: PLR2004
            raise DataError(
                f"{where}: a choice needs at least two `options` and `gold`, the position of the right one."
            )
        return _choice(line.prompt, list(line.options), line.options[line.gold], name=line.id, cluster=line.cluster)
    if line.answer is None:
        raise DataError(f"{where}: `metric: {suite.metric}` needs `answer`.")
    question = Question(
        id=line.id or question_id(line.prompt, line.answer, line.verifier),
        prompt=line.prompt,
        domain=suite.skill,
        reference_answer=line.answer,
        verifier=line.verifier,
        source=where,
        licence=suite.licence,
    )
    prompt = ask(question) if suite.answer == "boxed" else line.prompt
    return Item(id=question.id, prompt=prompt, question=question, cluster=line.cluster)


def _choice(
    prompt: str, options: list[str], right: str, *, name: str | None = None, cluster: str | None = None
) -> Item:
    ordered = sorted(options)
    identity = digest_json([prompt, ordered, right]).removeprefix("sha256:")[:16]
    gold = ordered.index(right)
    return Item(id=name or identity, prompt=prompt, options=tuple(ordered), gold=gold, cluster=cluster)


def _rows(path: Path, way_out: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist. {way_out}")
    with path.open(encoding="utf-8") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: expected an object, got {type(row).__name__}.")
            yield number, row
