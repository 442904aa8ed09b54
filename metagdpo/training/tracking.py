"""One MLflow run for each candidate: parameters, per-step metrics, dataset inputs, and the gate's report.

A run is found by its tag `metagdpo.run_key`, so a training that was killed and repeated ends in the same run. The files
of the pipeline are the truth: `sync_run` writes whatever the run lacks, from nothing when MLflow's state was deleted.
Left out: runs for single stages, and the model's files (release/model_registry.py).
"""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue

from metagdpo.errors import StoreError
from metagdpo.records.verdict import Verdict
from metagdpo.schema import Frozen, canonical_json, digest_directory, digest_json, digest_text

RUN_KEY = "metagdpo.run_key"
TRAINING = "metagdpo.training"  # run key of the training that an interpolated candidate comes from
SYNCED = "metagdpo.synced"
NOTE = "mlflow.note.content"  # MLflow shows this tag as the run's description
REPORT = "report"
# MLflow's limits (mlflow.utils.validation): characters of a parameter, of a tag, of a key, and entries of one request.
PARAM_LENGTH, TAG_LENGTH, KEY_LENGTH, DATASET_DIGEST_LENGTH = 6000, 8000, 250, 36
PARAMS_A_BATCH, METRICS_A_BATCH = 100, 1000

Values = Mapping[str, JsonValue]
"""Values of one step by name; only numbers are logged, so a row of metrics.jsonl can be passed as it is."""
StepMetrics = tuple[int, Values]
"""A step, counted as the training counts, and its values."""

_Point = tuple[int, str, float, int]
"""Step, name, value, Unix time in milliseconds."""


class DataInput(Frozen):
    """One file that training read, as the run page's Datasets show it."""

    path: str
    """Relative to the project's root."""
    sha256: str
    """`sha256:<hex>` of the file."""
    dvc_md5: str | None
    """The file's digest in dvc.lock; null when DVC does not know it."""
    rows: int | None = None


class RunFacts(Frozen):
    """What a run says about itself, whenever and however often it is written."""

    experiment: str
    run_key: str
    name: str
    """What people see in the list of runs."""
    params: dict[str, JsonValue]
    """Nested sections; flattened to `train.objective.kind`."""
    tags: dict[str, str]
    data: tuple[DataInput, ...]
    git_commit: str


def run_facts(
    experiment: str,
    run_key: str,
    params: Mapping[str, JsonValue],
    data: Mapping[str, str],
    *,
    md5s: Mapping[str, str],
    git_commit: str,
    alpha: float = 1.0,
) -> RunFacts:
    """What the run of a training says about itself, from its parameters and the digests of its data.

    A point on the way from the base to the trained weights is another candidate of the same training, with a verdict
    and a report of its own: it has a run of its own, which names the training's.

    Args:
        experiment: MLflow experiment.
        run_key: Of the training.
        params: Sections of params.yaml by name, `base` and `train` among them.
        data: SHA-256 of each file that training reads, by path.
        md5s: DVC's digests of those that DVC knows.
        git_commit: Commit that is checked out.
        alpha: Share of the way from the base to the trained weights; 1 is what the training left.
    """
    base, train = params["base"], params["train"]
    assert isinstance(base, dict)
    assert isinstance(train, dict)
    label = f"{objective_name(train)} ({train['method']})"
    name = f"{label} {run_key.removeprefix('sha256:')[:8]}"
    tags = {"metagdpo.method": label, "base.model": str(base["model"])}
    is_trained = alpha == 1
    return RunFacts(
        experiment=experiment,
        run_key=run_key if is_trained else digest_json([run_key, alpha]),
        name=name if is_trained else f"{name} at {alpha:g}",
        params=dict(params) if is_trained else {**params, "interpolate": {"alpha": alpha}},
        tags=tags if is_trained else {**tags, TRAINING: run_key},
        data=tuple(DataInput(path=path, sha256=sha, dvc_md5=md5s.get(path)) for path, sha in sorted(data.items())),
        git_commit=git_commit,
    )


def objective_name(train: Mapping[str, JsonValue]) -> str:
    """What a training with this section `train` is called: `gdpo`, `grpo`, or `gdpo, then grpo`."""
    objective, on_policy = train["objective"], train.get("on_policy")
    assert isinstance(objective, dict)
    if not isinstance(on_policy, dict):
        return str(objective["kind"])
    return "grpo" if on_policy["start"] == "base" else f"{objective['kind']}, then grpo"


class RunLog:
    """The run of the training that is going on.

    Opening it writes parameters, tags and dataset inputs, so that a store which cannot be written stops the work before
    anything is paid for. Later failures of the store are told once and never stop training; `sync_run` makes up for
    them. Use it as a context manager: the run ends FINISHED, FAILED, or KILLED when the person interrupts.

    Raises:
        StoreError: The store refused at the start.
    """

    def __init__(self, client: Any, facts: RunFacts, *, flush_every: int = 200) -> None:
        """Find or create the run.

        Args:
            client: MlflowClient of the store.
            facts: What the run says about itself.
            flush_every: Metric values that are held back to be written together.
        """
        self._client = client
        self._flush_every = flush_every
        self._waiting: list[_Point] = []
        self._lost_store = False
        with _refusals():
            self.run_id = _write_facts(client, facts)
            client.update_run(self.run_id, status="RUNNING")
            self._known = _Known(client, self.run_id)

    def metrics(self, step: int, values: Values) -> None:
        """Log the values of one step; values that the run already has are passed over."""
        self._waiting.extend(_points(step, values))
        if len(self._waiting) >= self._flush_every:
            self.flush()

    def flush(self) -> None:
        """Write what was held back."""
        rows, self._waiting = self._waiting, []
        self._attempt(lambda: _write_metrics(self._client, self.run_id, self._known, rows))

    def __enter__(self) -> Self:
        """Start of the training."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as the training ended."""
        self.flush()
        ended = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        self._attempt(lambda: self._client.set_terminated(self.run_id, ended))

    def _attempt(self, write: Callable[[], None]) -> None:
        if self._lost_store:
            return  # each further try would wait for the same dead server
        try:
            write()
        except Exception as error:  # noqa: BLE001  (whatever a store does wrong, the training is worth more)
            self._lost_store = True
            print(
                f"warning: MLflow refused ({_reason(error)}). Training goes on; the release will write what is missing."
            )


def sync_run(
    client: Any,
    facts: RunFacts,
    metrics: Iterable[StepMetrics],
    *,
    verdict: Verdict | None = None,
    report: Path | None = None,
    note: str = "",
) -> str:
    """Make the run complete from files, whatever it lacks, and return its run id; complete runs are left alone.

    Args:
        client: MlflowClient of the store.
        facts: What the run says about itself.
        metrics: Every step of the training, as the training's own file holds them.
        verdict: Adds `gate/<suite>/difference`, low, high, base, candidate and the drift as metrics; those against the
            champion stand below `gate/<suite>/vs_champion/`.
        report: Folder whose files become the artifacts under `report/`.
        note: Markdown shown at the top of the run page.

    Raises:
        StoreError: The store refused.
    """
    steps = list(metrics)
    gate = {} if verdict is None else gate_metrics(verdict)
    report_digest = digest_directory(report) if report else None
    # The commit moves on after a release; a run keeps the one it came from.
    lasting = facts.model_dump(mode="json", exclude={"git_commit"})
    wanted = digest_json([lasting, [[step, dict(values)] for step, values in steps], gate, report_digest, note])
    with _refusals():
        found = _find(client, facts)
        if found is not None and found.data.tags.get(SYNCED) == wanted and _has_report(client, found, report):
            return str(found.info.run_id)
        run_id = _write_facts(client, facts)
        points = [point for step, values in [*steps, (0, gate)] for point in _points(step, values)]
        _write_metrics(client, run_id, _Known(client, run_id), points)
        if report is not None:
            client.log_artifacts(run_id, str(report), REPORT)
        if client.get_run(run_id).info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED")
        _write_tags(client, run_id, {SYNCED: wanted, **({NOTE: note} if note else {})})
    return run_id


def gate_metrics(verdict: Verdict) -> dict[str, JsonValue]:
    """The verdict's numbers under the names that the run page shows; difference = candidate - base."""
    values: dict[str, JsonValue] = {}
    for finding in verdict.findings:
        prefix = f"gate/{finding.suite}/" + ("vs_champion/" if finding.against == "champion" else "")
        names = {"difference": finding.difference, "low": finding.low, "high": finding.high}
        values |= {f"{prefix}{name}": float(value) for name, value in names.items()}
        values |= {f"{prefix}{finding.against}": finding.before, f"{prefix}candidate": finding.candidate}
    if verdict.drift is not None:
        values |= {f"gate/drift/{name}": getattr(verdict.drift, name) for name in ("kl_per_token", "low", "high")}
    return values


def flatten(sections: Mapping[str, JsonValue], prefix: str = "") -> dict[str, str]:
    """Nested parameters as `a.b.c: text`; lists become JSON, an empty mapping `{}`, and long values are cut.

    A cut value ends in the digest of the whole, so two different values never look alike.
    """
    flat: dict[str, str] = {}
    for key, value in sections.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else canonical_json(value)
            flat[_safe_key(name)] = _cut(text, PARAM_LENGTH)
    return flat


class _Known:
    """The steps that a run already has, per metric; asked of the store once per name."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._names = set(client.get_run(run_id).data.metrics)
        self._steps: dict[str, set[int]] = {}

    def steps(self, name: str) -> set[int]:
        if name not in self._steps:
            stored = self._client.get_metric_history(self._run_id, name) if name in self._names else []
            self._steps[name] = {point.step for point in stored}
        return self._steps[name]


def _points(step: int, values: Values) -> list[_Point]:
    now = time.time_ns() // 1_000_000
    return [
        (step, name, float(value), now)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _find(client: Any, facts: RunFacts) -> Any:
    experiment = client.get_experiment_by_name(facts.experiment)
    if experiment is None or experiment.lifecycle_stage != "active":
        return None
    where = f"tags.`{RUN_KEY}` = '{facts.run_key}'"
    found = client.search_runs([experiment.experiment_id], where, max_results=1, order_by=["attributes.start_time ASC"])
    return found[0] if found else None


def _write_facts(client: Any, facts: RunFacts) -> str:
    found = _find(client, facts)
    if found is None:
        run = client.create_run(
            _experiment(client, facts.experiment), tags={RUN_KEY: facts.run_key}, run_name=facts.name
        )
    else:
        run = found
    run_id = str(run.info.run_id)
    tags = {**facts.tags, "git.commit": facts.git_commit}
    _write_tags(client, run_id, {key: value for key, value in tags.items() if key not in run.data.tags})
    _write_params(client, run_id, run.data.params, flatten(facts.params))
    present = (
        {(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs} if run.inputs else set()
    )
    inputs = [_dataset(item, facts.git_commit) for item in facts.data]
    missing = [entry for entry in inputs if (entry.dataset.name, entry.dataset.digest) not in present]
    if missing:
        client.log_inputs(run_id, missing)
    return run_id


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=_artifact_location(client.tracking_uri)))
    if found.lifecycle_stage != "active":
        print(f"the MLflow experiment {name} had been deleted; it is restored")
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _artifact_location(uri: str) -> str | None:
    """Beside the embedded database; a server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def _write_tags(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(_safe_key(key), _cut(value, TAG_LENGTH)) for key, value in tags.items()])


def _write_params(client: Any, run_id: str, present: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    # Parameters are write-once. The run key is their digest, so those present are those wanted.
    missing = [Param(key, value) for key, value in wanted.items() if key not in present]
    for start in range(0, len(missing), PARAMS_A_BATCH):
        client.log_batch(run_id, params=missing[start : start + PARAMS_A_BATCH])


def _write_metrics(client: Any, run_id: str, known: _Known, points: Iterable[_Point]) -> None:
    """Write points; a step that is there is never written twice."""
    from mlflow.entities import Metric

    fresh = []
    for step, name, value, stamp in points:
        key = _safe_key(name)
        if step not in known.steps(key):
            fresh.append(Metric(key, value, stamp, step))
    for start in range(0, len(fresh), METRICS_A_BATCH):
        batch = fresh[start : start + METRICS_A_BATCH]
        client.log_batch(run_id, metrics=batch)
        for metric in batch:
            known.steps(metric.key).add(metric.step)


def _dataset(item: DataInput, git_commit: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = {"mlflow.data.context": "training", "sha256": item.sha256, "git.commit": git_commit}
    if item.dvc_md5 is not None:
        tags["dvc.md5"] = item.dvc_md5
    dataset = Dataset(
        name=item.path,
        # MLflow holds 36 characters; the whole digest is the tag `sha256`.
        digest=item.sha256.removeprefix("sha256:")[:DATASET_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": item.path}),
        profile=None if item.rows is None else json.dumps({"num_rows": item.rows}),
    )
    return DatasetInput(dataset, [InputTag(key, value) for key, value in sorted(tags.items())])


def _has_report(client: Any, run: Any, report: Path | None) -> bool:
    return report is None or bool(client.list_artifacts(run.info.run_id, REPORT))


def _safe_key(name: str) -> str:
    """MLflow accepts letters, digits and `_-. :/` in names."""
    return _cut(re.sub(r"[^\w\-. :/]", "_", name), KEY_LENGTH)


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    ending = f"... (cut; {digest_text(text)})"
    return text[: length - len(ending)] + ending


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    # A database address may hold a password.
    return re.sub(r"//[^/@\s]*@", "//***@", text.splitlines()[0])[:300]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        message = (
            f"the MLflow store refused: {_reason(error)}\n"
            "Start its server, free disk space, or correct MLFLOW_TRACKING_URI (unset it to use mlflow.db in the "
            "project's root), then run `dvc repro`: finished work is kept."
        )
        raise StoreError(message) from error
