"""Every text that a training read, from the files that its manifest names: what is compared with the suites."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from metagdpo.errors import EvidenceError
from metagdpo.overlap import TrainingText, dialogue_texts, group_texts, pool_texts, sample_text
from metagdpo.progress import bar
from metagdpo.records.group import ResponseGroup
from metagdpo.records.question import Question
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue
from metagdpo.schema import digest_file, read_jsonl


def _questions(path: Path) -> Iterator[TrainingText]:
    return (text for question in read_jsonl(path, Question) for text in pool_texts(question))


def _groups(path: Path) -> Iterator[TrainingText]:
    return (text for group in read_jsonl(path, ResponseGroup) for text in group_texts(group))


def _samples(path: Path) -> Iterator[TrainingText]:
    return (sample_text(sample) for sample in read_jsonl(path, ContextFreeSample))


def _dialogues(path: Path) -> Iterator[TrainingText]:
    return (text for dialogue in read_jsonl(path, SelfDialogue) for text in dialogue_texts(dialogue))


def _numbers(_path: Path) -> Iterator[TrainingText]:
    """References hold log-probabilities of texts that stand in the other files."""
    return iter(())


TEXTS: dict[str, Callable[[Path], Iterator[TrainingText]]] = {
    "data/context_free_train.jsonl": _samples,
    "data/groups.jsonl": _groups,
    "data/questions.jsonl": _questions,
    "data/reference.jsonl": _numbers,
    "data/self_dialogues.jsonl": _dialogues,
}
"""How the texts of every file that training reads are found."""


def trained_on(data: Mapping[str, str]) -> Iterator[TrainingText]:
    """Every text that a candidate was trained on.

    Args:
        data: Digest of every data file behind the candidate.

    Raises:
        EvidenceError: A file is not the one that the candidate was trained on, or is of a kind that cannot be read.
    """
    wrong = []
    for name, digest in sorted(data.items()):
        if name not in TEXTS:
            wrong.append(f"{name}: the gate does not know what it holds (known are {', '.join(TEXTS)})")
        elif not Path(name).is_file():
            wrong.append(f"{name} is missing")
        elif digest_file(Path(name)) != digest:
            wrong.append(f"{name} is not the file that the candidate was trained on ({digest})")
    if wrong:
        lines = "\n".join(f"  {line}" for line in wrong)
        message = f"what the candidate was trained on cannot be compared with the suites:\n{lines}\n"
        raise EvidenceError(f"{message}Run `dvc repro`, which trains on the files as they are.")
    texts = (text for name in sorted(data) for text in TEXTS[name](Path(name)))
    return bar(texts, total=None, what="comparing the training data with the suites", unit="texts")
