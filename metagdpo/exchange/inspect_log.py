"""Inspect logs, .eval or .json, read without Inspect. Fields in messages are paths in the log, after the task's name.

An item is a sample id. Values of scorers: C(orrect) is 1, P(artial) 0.5, I(ncorrect) and N(o answer) 0, truth values
and numbers in 0..1 as they are. With several epochs an item's score is the mean over its epochs, a graded score. The
prompt of an item is every message before the model's first reply. Written against inspect-ai 0.3.285.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metagdpo.errors import ConfigError, DataError, EvidenceError
from metagdpo.exchange.eval_archive import members, read_member
from metagdpo.exchange.score_set import LONGEST_ANSWER, Reading, Scored, ScoreSet, add, as_score, chosen
from metagdpo.exchange.stated import flat, mapping, read_object, refuse
from metagdpo.schema import digest_file, digest_json

VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_NOT_LOGS = {"logs.json", "eval-set.json", "listing.json"}
_MODEL_ARGUMENTS = {"model_path", "model_name", "lora_path", "peft", "adapter", "revision"}
_NOTES = {"created", "revision"}  # the commit of the folder Inspect ran in
_COMPARED = (
    "task_version", "task_args", "solver", "solver_args", "model_roles", "model_args", "model_generate_config",
    "packages", "scorers", "config", "sandbox", "approval",
)  # fmt: skip
_SETTINGS = {"eval.config", "eval.model_generate_config", "plan.config"}
_DECIDES_NOTHING = {
    "log_level", "log_level_transcript", "log_samples", "log_realtime", "log_images", "log_buffer", "log_shared",
    "log_format", "log_model_api", "log_refusals", "score_display", "display", "max_samples", "max_tasks",
    "max_subprocesses", "max_sandboxes", "max_dataset_memory", "sandbox_cleanup", "sandbox_prebuilt", "max_connections",
    "adaptive_connections", "max_retries", "timeout", "attempt_timeout", "fail_on_error", "continue_on_fail",
    "retry_on_error",
}  # fmt: skip


def is_inspect(path: Path) -> bool:
    """Whether a path is an Inspect log, or a folder with one in it."""
    if path.is_dir():
        return any(is_inspect(inner) for inner in sorted(path.iterdir()) if inner.is_file())
    if path.suffix == ".json":
        return path.name not in _NOT_LOGS and {"eval", "status", "version"} <= set(_header(path))
    return path.suffix == ".eval"


def read_inspect(path: Path, reading: Reading) -> ScoreSet:
    """Read one log, or every log of a folder: one task each, all of one model.

    Args:
        path: A .eval or .json file, or a folder of them.
        reading: Scorers, clusters and what is left out.

    Raises:
        ConfigError: A scorer must be chosen, or the chosen one is not there.
        DataError: A log is unreadable, or two logs are of one task.
        EvidenceError: An evaluation did not finish, or a score is missing, there twice, or not in 0..1.
    """
    logs = (
        [path]
        if path.is_file()
        else [inner for inner in sorted(path.iterdir()) if inner.is_file() and is_inspect(inner)]
    )
    sources: dict[str, Path] = {}
    found = ScoreSet("inspect", {})
    for log in logs:
        header = _header(log)
        spec = mapping(header.get("eval"), f"{log.name}: eval")
        task = str(spec.get("task", ""))
        if reading.skips(task):
            continue
        if not task or task in sources:
            also = f"{sources[task].name} and {log.name} are" if task else f"{log.name} is"
            raise DataError(f"{also} of the task {task!r}, and which one is meant cannot be told. Name one log.")
        sources[task] = log
        _finished(log, header, spec)
        found.suites[task] = _items(log, task, spec, header, reading, found.chances)
        found.files[log.name] = digest_file(log)
        _state(found, task, header, spec)
    if not found.suites:
        refuse(str(path), "holds no task that could be compared")
    return found


def _header(log: Path) -> dict[str, Any]:
    if log.suffix == ".json":
        return read_object(log)
    index = {member.filename: member for member in members(log)}
    if "header.json" not in index:
        raise EvidenceError(
            f"{log.name} has no header.json: its evaluation did not finish. Run `inspect eval-retry` on it."
        )
    return read_member(log, index["header.json"])


def _samples(log: Path, header: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if log.suffix == ".json":
        listed = header.get("samples")
        for number, sample in enumerate(listed if isinstance(listed, list) else []):
            yield f"{log.name}: samples[{number}]", mapping(sample, f"{log.name}: samples[{number}]")
        return
    for member in members(log):
        if member.filename.startswith("samples/") and member.filename.endswith(".json"):
            yield f"{log.name}: {member.filename}", read_member(log, member)


def _finished(log: Path, header: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    if header.get("status") != "success" or header.get("invalidated"):
        status = "invalidated" if header.get("invalidated") else header.get("status")
        raise EvidenceError(
            f"{log.name}: status is {status!r}, not 'success'; its scores are no evidence. Run it again."
        )
    config = mapping(spec.get("config"), "eval.config")
    reducers = config.get("epochs_reducer")
    if config.get("epochs", 1) not in {None, 1} and reducers not in (None, ["mean"]):
        message = (
            f"{log.name}: eval.config.epochs_reducer is {reducers}; over epochs only the mean is compared. "
            "Evaluate with one epoch, or with the reducer mean."
        )
        raise EvidenceError(message)


def _items(  # noqa: PLR0917  (one caller)
    log: Path,
    task: str,
    spec: Mapping[str, Any],
    header: Mapping[str, Any],
    reading: Reading,
    chances: dict[str, float],
) -> dict[str, Scored]:
    field = chosen(reading.clusters, task)
    epochs: dict[str, dict[str, Scored]] = {}
    options = []
    for where, sample in _samples(log, header):
        item = str(sample.get("id", ""))
        if not item or sample.get("error"):
            raise EvidenceError(
                f"{where}: {'the sample ended in an error' if item else 'has no id'}. Evaluate it again."
            )
        name, value = _value(
            task, where, mapping(sample.get("scores"), f"{where}: scores"), chosen(reading.metrics, task)
        )
        cluster = None if field is None else _cluster(where, sample, field)
        score = as_score(_number(value), suite=task, item=item, what=f"the value of {name}")
        scored = Scored(score, _content(sample), cluster, _answer(sample, name))
        add(
            epochs.setdefault(item, {}),
            task,
            item if _epoch(sample) == "1" else f"{item}, epoch {_epoch(sample)}",
            scored,
        )
        options.append(len(sample["choices"]) if isinstance(sample.get("choices"), list) else 0)
    _complete(log, task, spec, epochs)
    if options and all(options):
        chances[task] = sum(1 / n for n in options) / len(options)
    return {item: _mean(task, item, list(scores.values())) for item, scores in epochs.items()}


def _epoch(sample: Mapping[str, Any]) -> str:
    return str(sample.get("epoch", 1))


def _value(task: str, where: str, scores: Mapping[str, Any], wanted: str | None) -> tuple[str, Any]:
    """Name and value of the one scorer that counts; `scorer.key` picks one of several values of a scorer."""
    if not scores:
        raise EvidenceError(f"{where}: has no score. Score the log (`inspect score`), or leave the task out (--skip).")
    values: dict[str, Any] = {}
    for name, score in scores.items():
        value = mapping(score, f"{where}: scores.{name}").get("value")
        values |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    if wanted is None and len(values) == 1:
        wanted = next(iter(values))
    if wanted is None or wanted not in values:
        problem = "has several scores" if wanted is None else f"has no score {wanted!r}"
        raise ConfigError(f"{where} {problem}. Choose one: --metric {task}=NAME; it has {', '.join(sorted(values))}.")
    return wanted, values[wanted]


def _number(value: Any) -> Any:
    return VALUES.get(value, value) if isinstance(value, str) else value


def _content(sample: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    asked: list[Any] = []
    messages = sample.get("messages")
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict) or message.get("role") == "assistant":
            break
        asked.append([message.get("role"), message.get("content")])
    asks = {
        "input": [_text(sample.get("input")), sample.get("choices")],
        "prompt": asked,
        "target": sample.get("target"),
    }
    return tuple((name, digest_json(value)) for name, value in asks.items())


def _text(value: Any) -> Any:
    """An input without the ids that Inspect gives to the messages of every run."""
    if not isinstance(value, list):
        return value
    return [[part.get("role"), part.get("content")] if isinstance(part, dict) else part for part in value]


def _answer(sample: Mapping[str, Any], name: str) -> str | None:
    scores = sample.get("scores", {})
    answer = scores.get(name, scores.get(name.rpartition(".")[0], {})).get("answer")
    return answer[:LONGEST_ANSWER] if isinstance(answer, str) else None


def _cluster(where: str, sample: Mapping[str, Any], field: str) -> str:
    metadata = mapping(sample.get("metadata"), f"{where}: metadata")
    if metadata.get(field) is None:
        known = ", ".join(sorted(metadata)) or "nothing"
        raise ConfigError(f"{where}: the metadata has no field {field!r}. It has: {known}.")
    return str(metadata[field])


def _complete(log: Path, task: str, spec: Mapping[str, Any], epochs: Mapping[str, Mapping[str, Scored]]) -> None:
    wanted = mapping(spec.get("config"), "eval.config").get("epochs") or 1
    short = sorted(item for item, scores in epochs.items() if len(scores) != wanted)
    if short:
        found = len(epochs[short[0]])
        raise EvidenceError(f"suite {task}, item {short[0]}: {log.name} has {found} of {wanted} epochs.")
    listed = mapping(spec.get("dataset"), "eval.dataset").get("sample_ids")
    missing = sorted(set(map(str, listed)) - set(epochs)) if isinstance(listed, list) else []
    if missing or not epochs:
        what = f"no score of item {missing[0]}" if missing else "no samples"
        raise EvidenceError(f"suite {task}: {log.name} has {what}. Evaluate it again, with --log-samples.")


def _mean(task: str, item: str, scores: list[Scored]) -> Scored:
    if len({scored.content for scored in scores}) > 1:
        raise EvidenceError(f"suite {task}, item {item}: input, prompt or target differ between epochs.")
    answer = scores[0].answer if len(scores) == 1 else None
    return scores[0]._replace(score=sum(scored.score for scored in scores) / len(scores), answer=answer)


def _state(found: ScoreSet, task: str, header: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Add what a log states about its evaluation; every log of a folder must be of one model."""
    model = {name: text for key in ("model", "model_base_url") for name, text in flat(key, spec.get(key)).items()}
    stated = {name: text for key in _COMPARED for name, text in flat(f"eval.{key}", spec.get(key)).items()}
    stated |= flat("plan", {key: mapping(header.get("plan"), "plan").get(key) for key in ("steps", "config")})
    stated |= {f"eval.dataset.{key}": text for key in ("name", "samples") for text in _dataset(spec, key)}
    for name, text in stated.items():
        head, _, last = name.rpartition(".")
        if head == "eval.model_args" and last in _MODEL_ARGUMENTS:
            model[name] = text
        elif head not in _SETTINGS or last not in _DECIDES_NOTHING:
            found.identity[f"{task}: {name}"] = text
    for key in _NOTES:
        found.notes.update(flat(f"{task}: eval.{key}", spec.get(key)))
    if found.model and found.model != model:
        raise DataError(
            f"the folder's logs are of different models ({found.model}, {model}). Name the log of one model."
        )
    found.model.update(model)


def _dataset(spec: Mapping[str, Any], key: str) -> list[str]:
    return list(flat(key, mapping(spec.get("dataset"), "eval.dataset").get(key)).values())
