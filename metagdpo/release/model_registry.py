"""The MLflow Model Registry: versions that are plain safetensors directories, and the aliases that point at them.

A version is found by the digest of its verdict, so a release that crashed anywhere is taken up where it stopped.
`mlflow.transformers.log_model` is never used: it corrupts LoRA models with a local base (mlflow #23761).
"""

import contextlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metagdpo.errors import ModelError, StoreError
from metagdpo.lineage.store import reaching
from metagdpo.release.describe import MODEL_DESCRIPTION
from metagdpo.schema import Frozen, digest_file

VERDICT = "metagdpo.verdict"
READY = "READY"
# Weights, configuration, vocabulary, chat template, words. Whatever can run code on loading is not among them.
ALLOWED_SUFFIXES = frozenset({".safetensors", ".json", ".jsonl", ".txt", ".jinja", ".md"})
ALLOWED_NAMES = frozenset({"LICENSE", "NOTICE"})


class VersionFacts(Frozen):
    """What a version says about itself; the same facts give the same version."""

    verdict: str
    """Digest of the verdict: the version's identity."""
    run_id: str
    tags: dict[str, str]
    description: str
    """Markdown."""


class ModelRegistry:
    """Versions and aliases of one registered model."""

    def __init__(self, client: Any, model_name: str, experiment: str) -> None:
        """Bind to a model; nothing is asked of the store yet.

        Args:
            client: MlflowClient of the store.
            model_name: Name of the registered model.
            experiment: Experiment whose artifact store takes the model's files.
        """
        self.model_name = model_name
        self._client = client
        self._experiment = experiment

    def provide(self, directory: Path, facts: VersionFacts, *, at_least: int) -> int:
        """Make sure that a version with these facts and files exists; return its number.

        Args:
            directory: The candidate.
            facts: The version's verdict, run, tags and description.
            at_least: Smallest number the version may have. A store that was emptied counts from 1 again, the ledger
                does not, so lower numbers are used up.

        Raises:
            ModelError: The directory holds a file type that is not on the allow-list.
            StoreError: The store refused.
        """
        check_file_types(directory)
        with reaching(self._client.tracking_uri):
            known = self._versions(facts.verdict)
            number = min((n for n in known if n >= at_least), default=None)
            if number is None:
                number = self._create(directory, facts, at_least)
            # Left behind by a crash between taking a number and finding it too low.
            for stale in (n for n in known if n < at_least):
                self._client.delete_model_version(self.model_name, str(stale))
            self._complete(number, directory, facts)
        return number

    def problems(self, version: int, directory: Path, facts: VersionFacts, *, thorough: bool) -> list[str]:
        """What keeps the stored version from being the candidate; nothing when all is well.

        Args:
            version: The number.
            directory: The candidate.
            facts: What the version must say.
            thorough: Read every stored byte back; otherwise names and sizes are compared.

        Raises:
            StoreError: The store refused.
        """
        with reaching(self._client.tracking_uri):
            stored = self._get(version)
            if stored is None:
                return [f"version {version} does not exist"]
            wrong = [
                f"tag {key} is {stored.tags.get(key)!r}, expected {value!r}"
                for key, value in facts.tags.items()
                if stored.tags.get(key) != value
            ]
            if stored.run_id != facts.run_id:
                wrong.append(f"its source run is {stored.run_id}, expected {facts.run_id}")
            model_id = _model_id(stored)
            if thorough:
                return wrong + self._different_bytes(model_id, directory)
            missing = self._different_sizes(model_id, directory)
            return wrong + [f"file {name} is missing or has another size" for name in missing]

    def exists(self, version: int) -> bool:
        """Whether the store has this version.

        Raises:
            StoreError: The store refused.
        """
        with reaching(self._client.tracking_uri):
            return self._get(version) is not None

    def download(self, version: int, destination: Path) -> None:
        """Put a version's files into a folder, which appears complete or not at all.

        Raises:
            StoreError: The store does not have the version, or refused.
        """
        from mlflow.artifacts import download_artifacts

        with reaching(self._client.tracking_uri):
            stored = self._get(version)
            if stored is None:
                raise StoreError(f"version {version} of {self.model_name} does not exist in this MLflow store.")
            location = self._client.get_logged_model(_model_id(stored)).artifact_location
            destination.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
                # A local artifact folder is given as it lies: it is copied, so that nothing here can change it.
                got = Path(download_artifacts(location, tracking_uri=self._client.tracking_uri))
                shutil.copytree(got, Path(scratch) / "files")
                shutil.rmtree(destination, ignore_errors=True)
                (Path(scratch) / "files").replace(destination)

    def alias(self, name: str) -> int | None:
        """The version an alias points at.

        Raises:
            StoreError: The store refused.
        """
        with reaching(self._client.tracking_uri):
            return self._aliases().get(name)

    def point(self, alias: str, version: int) -> None:
        """Point an alias at a version.

        Raises:
            StoreError: The store refused.
        """
        with reaching(self._client.tracking_uri):
            self._client.set_registered_model_alias(self.model_name, alias, str(version))

    def _create(self, directory: Path, facts: VersionFacts, at_least: int) -> int:
        """A new version on a new or half-made logged model."""
        self._provide_registered_model()
        model_id = self._provide_logged_model(directory, facts)
        while True:
            with _tracking_uri_in_environment(self._client.tracking_uri):
                made = self._client.create_model_version(
                    self.model_name,
                    f"models:/{model_id}",
                    run_id=facts.run_id,
                    tags=facts.tags,
                    description=facts.description,
                    model_id=model_id,
                )
            number = int(made.version)
            if number >= at_least:
                return number
            self._client.delete_model_version(self.model_name, str(number))

    def _complete(self, number: int, directory: Path, facts: VersionFacts) -> None:
        """Put right whatever a version lacks: tags, description, files, links from the run and its metrics."""
        stored = self._client.get_model_version(self.model_name, str(number))
        for key, value in facts.tags.items():
            if stored.tags.get(key) != value:
                self._client.set_model_version_tag(self.model_name, str(number), key, value)
        if stored.description != facts.description:
            self._client.update_model_version(self.model_name, str(number), facts.description)
        model_id = _model_id(stored)
        if self._different_sizes(model_id, directory):
            self._client.log_model_artifacts(model_id, str(directory))
        if not self._client.get_model_version(self.model_name, str(number)).run_id:
            message = (
                f"version {number} of {self.model_name} has no source run. Delete it in the MLflow UI, then rerun."
            )
            raise StoreError(message)
        self._link_to_run(model_id, facts.run_id)

    def _provide_registered_model(self) -> None:
        found = self._client.search_registered_models(f"name = '{self.model_name}'", max_results=1)
        if not found:
            self._client.create_registered_model(self.model_name, description=MODEL_DESCRIPTION)

    def _provide_logged_model(self, directory: Path, facts: VersionFacts) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment).experiment_id
        found = self._client.search_logged_models([experiment], f"tags.`{VERDICT}` = '{facts.verdict}'", max_results=1)
        model = (
            found[0]
            if found
            else self._client.create_logged_model(
                experiment,
                name=self.model_name,
                source_run_id=facts.run_id,
                tags=facts.tags,
                params={key: facts.tags[key] for key in ("metagdpo.method", "base.model") if key in facts.tags},
                model_type="safetensors",
            )
        )
        if self._different_sizes(model.model_id, directory):
            self._client.log_model_artifacts(model.model_id, str(directory))
        if str(model.status) != READY:
            self._client.finalize_logged_model(model.model_id, READY)
        return str(model.model_id)

    def _link_to_run(self, model_id: str, run_id: str) -> None:
        """Let the run name its model, and the model's page show the gate's metrics."""
        from mlflow.entities import LoggedModelOutput, Metric

        run = self._client.get_run(run_id)
        outputs = run.outputs.model_outputs if run.outputs else []
        if model_id in {output.model_id for output in outputs}:
            return
        points = [
            point
            for name in run.data.metrics
            if name.startswith("gate/")
            for point in self._client.get_metric_history(run_id, name)
        ]
        # Same key, value, step and time: MLflow adds the link and no second point.
        linked = [Metric(p.key, p.value, p.timestamp, p.step, model_id=model_id) for p in points]
        if linked:
            self._client.log_batch(run_id, metrics=linked)
        self._client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])

    def _versions(self, verdict: str) -> list[int]:
        where = f"name = '{self.model_name}' and tags.`{VERDICT}` = '{verdict}'"
        return sorted(int(found.version) for found in self._client.search_model_versions(where))

    def _get(self, version: int) -> Any:
        found = self._client.search_model_versions(f"name = '{self.model_name}' and version_number = '{version}'")
        return self._client.get_model_version(self.model_name, str(version)) if found else None

    def _aliases(self) -> dict[str, int]:
        found = self._client.search_registered_models(f"name = '{self.model_name}'", max_results=1)
        return {name: int(version) for name, version in found[0].aliases.items()} if found else {}

    def _different_sizes(self, model_id: str, directory: Path) -> list[str]:
        stored = dict(self._listed(model_id, None))
        wanted = {path.relative_to(directory).as_posix(): path.stat().st_size for path in _files(directory)}
        return sorted(name for name, size in wanted.items() if stored.get(name) != size)

    def _listed(self, model_id: str, folder: str | None) -> Iterator[tuple[str, int]]:
        for entry in self._client.list_logged_model_artifacts(model_id, folder):
            if entry.is_dir:
                yield from self._listed(model_id, entry.path)
            else:
                yield entry.path, entry.file_size

    def _different_bytes(self, model_id: str, directory: Path) -> list[str]:
        from mlflow.artifacts import download_artifacts

        location = self._client.get_logged_model(model_id).artifact_location
        with tempfile.TemporaryDirectory() as scratch:
            # A local artifact folder is read where it lies; only a remote one is downloaded.
            local = location.startswith(("file:", "/"))
            destination = None if local else scratch
            got = Path(download_artifacts(location, dst_path=destination, tracking_uri=self._client.tracking_uri))
            return [
                f"file {path.relative_to(directory)} was not stored as it is here"
                for path in _files(directory)
                if not (got / path.relative_to(directory)).is_file()
                or digest_file(got / path.relative_to(directory)) != digest_file(path)
            ]


def check_file_types(directory: Path) -> None:
    """Refuse a model directory that holds anything but safetensors, JSON and text.

    Raises:
        ModelError: Names every file that is refused, and why.
    """
    refused = [f"  {path.relative_to(directory)}: {why}" for path in _entries(directory) if (why := _refusal(path))]
    if refused:
        accepted = ", ".join(sorted(ALLOWED_SUFFIXES))
        message = "\n".join([f"{directory} holds files that are never registered:", *refused, f"Accepted: {accepted}."])
        raise ModelError(message)


def _refusal(path: Path) -> str | None:
    if path.is_symlink():
        return "a link, which may lead out of the directory"
    if path.suffix not in ALLOWED_SUFFIXES and path.name not in ALLOWED_NAMES:
        return "a type that is not on the allow-list (a pickle can run code when it is loaded)"
    if path.suffix == ".safetensors" and not _has_safetensors_header(path):
        return "not a safetensors file inside, whatever its name"
    return None


def _has_safetensors_header(path: Path) -> bool:
    """8 bytes of little-endian length, then that many bytes of a JSON object."""
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0  # noqa: PLR2004  (bytes of the length)
        if not 0 < length <= path.stat().st_size - 8:
            return False
        try:
            return isinstance(json.loads(stream.read(length)), dict)
        except ValueError:
            return False


def _entries(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _model_id(version: Any) -> str:
    return str(version.source).removeprefix("models:/")


@contextlib.contextmanager
def _tracking_uri_in_environment(uri: str) -> Iterator[None]:
    """For one call: MLflow's SQL registry looks a logged model up with a client of its own, not with ours.

    Without this it would open, and create, an `mlflow.db` in the current folder (mlflow 3.17,
    store/model_registry/sqlalchemy_store.py, create_model_version).
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before
