"""What `lm_eval --log_samples` wrote, read without lm-eval: results_<date>.json and samples_<task>_<date>.jsonl.

Field names in messages are paths in results_<date>.json. Written against lm-eval 0.4.9 to 0.4.13.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metagdpo.errors import ConfigError, DataError, EvidenceError
from metagdpo.exchange.score_set import LONGEST_ANSWER, Reading, Scored, ScoreSet, add, as_score, chosen
from metagdpo.exchange.stated import flat, lines, mapping, read_object, refuse
from metagdpo.schema import digest_file

METRICS = ("acc", "acc_norm", "exact_match")
"""Of a task with several metrics the first of these that it has, unless one is chosen."""
CONTENT = ("doc_hash", "prompt_hash", "target_hash")

_MODEL_ARGUMENTS = {
    "pretrained", "peft", "delta", "revision", "subfolder", "gguf_file", "model", "path", "engine", "base_url",
}  # fmt: skip
_NAMES_MODEL = {
    "model_name", "model_name_sanitized", "config.model_num_parameters", "config.model_revision", "config.model_sha",
    "config.peft_sha", "config.delta_sha",
}  # fmt: skip
_COMPARED = (
    "config", "configs", "versions", "n-shot", "lm_eval_version", "transformers_version", "model_source", "max_length",
    "model_name", "model_name_sanitized", "system_instruction", "system_instruction_sha", "chat_template_sha",
    "fewshot_as_multiturn", "tokenizer_pad_token", "tokenizer_eos_token", "tokenizer_bos_token", "eot_token_id",
)  # fmt: skip
_NOTES = ("date", "git_hash", "upper_git_hash")  # commits of the folder lm-eval was started in, not of lm-eval
_DECIDES_NOTHING = ("config.bootstrap_iters", "config.use_cache")
_DATE = re.compile(r"_(\d{4}-\d{2}-\d{2}T[0-9.\-]+)\.json$")


class _Line(NamedTuple):
    """One line of a samples file."""

    where: str
    item: str
    filter: str
    value: dict[str, Any]


def is_lm_eval(path: Path) -> bool:
    """Whether a path is a results file, or a folder with one in it."""
    if path.is_dir():
        return any(path.rglob("results_*.json"))
    return path.suffix == ".json" and _DATE.search(path.name) is not None and _is_results(path)


def read_lm_eval(path: Path, reading: Reading) -> ScoreSet:
    """Read one run.

    Args:
        path: A results file, or a folder with exactly one in it, at any depth.
        reading: Metrics, filters, clusters and what is left out.

    Raises:
        ConfigError: A metric or filter must be chosen, or the chosen one is not there.
        DataError: Files are missing or not what lm-eval writes, or it cannot be told which run is meant.
        EvidenceError: A score is missing, there twice, or not in 0..1.
    """
    results_file = _results_file(path)
    results = read_object(results_file)
    configs = mapping(results.get("configs"), f"{results_file.name}: configs")
    tasks = [task for task in configs if not reading.skips(task)]
    files = {results_file.name: digest_file(results_file)}
    suites: dict[str, dict[str, Scored]] = {}
    chances: dict[str, float] = {}
    identity: dict[str, str] = {}
    for task in tasks:
        source = _samples_file(results_file, task)
        files[source.name] = digest_file(source)
        picked = _pick_filter(task, source, reading)
        metric = _pick_metric(task, picked, results, reading)
        identity |= {f"metric of {task}": metric, f"filter of {task}": picked[0].filter}
        suites[task] = _items(task, picked, metric, chosen(reading.clusters, task))
        _complete(task, suites[task], results)
        chance = _chance(mapping(configs[task], f"configs.{task}"), picked)
        if chance is not None:
            chances[task] = chance
    if not suites:
        refuse(results_file.name, "names no task whose samples could be compared")
    stated = _stated(results, tasks)
    model = {name: text for name, text in stated.items() if _names_model(name)}
    identity |= {name: text for name, text in stated.items() if name not in model}
    notes = {name: text for key in _NOTES for name, text in flat(key, results.get(key)).items()}
    return ScoreSet("lm-eval", suites, identity, model, notes, chances, files)


def _results_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.rglob("results_*.json"))
    if len(found) == 1:
        return found[0]
    listed = "\n".join(f"  {name}" for name in found[:20])
    raise DataError(f"{path} holds {len(found)} runs, and which one is meant cannot be told. Name one of:\n{listed}")


def _is_results(path: Path) -> bool:
    return {"configs", "lm_eval_version"} <= set(read_object(path))


def _samples_file(results_file: Path, task: str) -> Path:
    dated = _DATE.search(results_file.name)
    if dated is None:
        refuse(results_file.name, "has no date in its name, so its samples cannot be found; keep lm-eval's file names")
    there = {path.name: path for path in results_file.parent.iterdir()}  # names from a file never become paths
    for name in (task, re.sub(r"\W", "_", task)):
        found = there.get(f"samples_{name}_{dated[1]}.jsonl")
        if found is not None:
            return found
    message = (
        f"{results_file.name} has task {task}, and beside it is no samples_{task}_{dated[1]}.jsonl. "
        "Run lm_eval with --log_samples, or leave the task out (--skip)."
    )
    raise DataError(message)


def _pick_filter(task: str, source: Path, reading: Reading) -> list[_Line]:
    read = [
        _Line(where, _text(value.get("doc_id")), _text(value.get("filter"), "none"), value)
        for where, value in lines(source)
    ]
    filters = sorted({line.filter for line in read})
    if not read:
        raise EvidenceError(f"suite {task}: {source.name} is empty; without items nothing can be compared.")
    wanted = chosen(reading.filters, task)
    if wanted is None and len(filters) > 1:
        message = f"task {task} has several filters ({', '.join(filters)}). Choose one: --filter {task}={filters[0]}"
        raise ConfigError(message)
    if wanted is not None and wanted not in filters:
        raise ConfigError(f"task {task} has no filter {wanted!r}. It has: {', '.join(filters)}.")
    return [line for line in read if line.filter == (wanted or filters[0])]


def _text(value: Any, absent: str = "") -> str:
    return absent if value is None else str(value)


def _pick_metric(task: str, picked: list[_Line], results: Mapping[str, Any], reading: Reading) -> str:
    directions = mapping(mapping(results.get("higher_is_better"), "higher_is_better").get(task), "higher_is_better")
    listed = picked[0].value.get("metrics", sorted(directions))
    metrics = [str(name) for name in listed] if isinstance(listed, list) else []
    wanted = chosen(reading.metrics, task)
    if wanted is None:
        known = [name for name in METRICS if name in metrics]
        wanted = known[0] if known else metrics[0] if len(metrics) == 1 else None
    if wanted is None or wanted not in metrics:
        problem = "has several metrics" if wanted is None else f"has no metric {wanted!r}"
        raise ConfigError(
            f"task {task} {problem}. Choose one: --metric {task}=NAME; it has {', '.join(metrics) or 'none'}."
        )
    if directions.get(wanted) is False:
        raise ConfigError(
            f"task {task}: of {wanted} lower is better. Choose another (--metric) or leave it out (--skip)."
        )
    return wanted


def _items(task: str, picked: list[_Line], metric: str, cluster: str | None) -> dict[str, Scored]:
    items: dict[str, Scored] = {}
    for line in picked:
        if not line.item:
            refuse(line.where, "has no doc_id")
        missing = [name for name in CONTENT if not isinstance(line.value.get(name), str)]
        if missing:
            refuse(line.where, f"has no {missing[0]}: lm-eval 0.4.3 or newer writes it, and items are paired by it")
        score = as_score(line.value.get(metric), suite=task, item=line.item, what=f"metric {metric}")
        content = tuple((name, str(line.value[name])) for name in CONTENT)
        group = None if cluster is None else _cluster(line, cluster)
        add(items, task, line.item, Scored(score, content, group, _answer(line.value, metric, score)))
    return items


def _cluster(line: _Line, field: str) -> str:
    doc = mapping(line.value.get("doc"), f"{line.where}: doc")
    if doc.get(field) is None:
        raise ConfigError(f"{line.where}: the document has no field {field!r}. It has: {', '.join(sorted(doc))}.")
    return str(doc[field])


def _complete(task: str, items: Mapping[str, Scored], results: Mapping[str, Any]) -> None:
    counts = mapping(mapping(results.get("n-samples"), "n-samples").get(task), f"n-samples.{task}")
    expected = counts.get("effective", len(items))
    if expected != len(items):
        raise EvidenceError(f"suite {task}: the run scored {expected} items, its samples file holds {len(items)}.")


def _chance(config: Mapping[str, Any], picked: list[_Line]) -> float | None:
    """Accuracy of guessing among the options, averaged over the items."""
    if config.get("output_type") != "multiple_choice" or "acc_mutual_info" in picked[0].value.get("metrics", ()):
        return None
    options = [len(line.value["arguments"]) for line in picked if isinstance(line.value.get("arguments"), dict)]
    return sum(1 / n for n in options) / len(options) if len(options) == len(picked) and all(options) else None


def _answer(sample: Mapping[str, Any], metric: str, score: float) -> str | None:
    """What the model wrote or chose; None when the line does not tell, or tells something else than its score."""
    replies = sample.get("filtered_resps")
    if not isinstance(replies, list) or not replies:
        return None
    if isinstance(replies[0], str):
        return replies[0][:LONGEST_ANSWER]
    try:
        options = [str(pair["arg_1"]) for pair in sample["arguments"].values()]
        worth = [float(reply[0]) for reply in replies]
        if metric == "acc_norm":
            worth = [value / len(option.strip()) for value, option in zip(worth, options, strict=True)]
        picked = max(range(len(options)), key=worth.__getitem__)
        agrees = (picked == int(sample["target"])) == (score == 1)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError):
        return None
    return options[picked].strip()[:LONGEST_ANSWER] if agrees else None


def _stated(results: Mapping[str, Any], tasks: list[str]) -> dict[str, str]:
    stated: dict[str, str] = {}
    for key in _COMPARED:
        value = results.get(key)
        if key in {"configs", "versions", "n-shot"}:
            value = {task: mapping(value, key).get(task) for task in tasks}
        stated |= flat(key, value)
    arguments = mapping(results.get("config"), "config").get("model_args")
    if isinstance(arguments, str):  # before 0.4.10
        stated.pop("config.model_args", None)
        stated |= flat("config.model_args", dict(part.partition("=")[::2] for part in arguments.split(",") if part))
    environment = str(results.get("pretty_env_info") or "")
    for name, pattern in (("torch", r"^PyTorch version: (.+)$"), ("GPU", r"^GPU \d+: (.+)$")):
        found = sorted(set(re.findall(pattern, environment, re.MULTILINE)))
        stated |= flat(f"pretty_env_info.{name}", ", ".join(found) or None)
    return {
        name: text
        for name, text in stated.items()
        if name not in _DECIDES_NOTHING and not name.endswith(".metadata.config_source")
    }


def _names_model(name: str) -> bool:
    """lm-eval writes the model's arguments into config.model_args and into the metadata of every task."""
    head, _, argument = name.rpartition(".")
    inside = head == "config.model_args" or (head.startswith("configs.") and head.endswith(".metadata"))
    return name in _NAMES_MODEL or (inside and argument in _MODEL_ARGUMENTS)
