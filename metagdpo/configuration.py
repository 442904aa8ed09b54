"""`metagdpo check`: every configuration file validated together, all problems in one list."""

from pathlib import Path

from metagdpo.assets import load_catalogue
from metagdpo.comparison.settings import check as check_methods
from metagdpo.errors import MetagdpoError
from metagdpo.evaluation.harness import EvaluateParams
from metagdpo.evaluation.suite import load_suites
from metagdpo.evaluation.validation import InterpolateParams
from metagdpo.gate.comparisons import with_ratchet
from metagdpo.gate.policy import read_policy
from metagdpo.knowledge.annotate import AnnotateParams
from metagdpo.knowledge.describe import DescribeParams
from metagdpo.knowledge.merge import MergeParams
from metagdpo.knowledge.probe import ProbeParams
from metagdpo.knowledge.selection import SelectionParams
from metagdpo.params import BaseParams, load_yaml, problems
from metagdpo.planning import suite_infos
from metagdpo.preservation.settings import PreserveParams
from metagdpo.release import ledger
from metagdpo.release.incumbent import champion_for
from metagdpo.responses.reconstruct import ReconstructParams
from metagdpo.responses.rewards import RewardParams
from metagdpo.responses.sample import RespondParams
from metagdpo.runs import COMPARISON, read_comparison
from metagdpo.schema import Frozen
from metagdpo.sources.pool import IngestParams
from metagdpo.training.settings import SequenceParams, TrainParams

SECTIONS: dict[str, type[Frozen]] = {
    "base": BaseParams,
    "ingest": IngestParams,
    "annotate": AnnotateParams,
    "merge_knowledge": MergeParams,
    "probe": ProbeParams,
    "select_metakl": SelectionParams,
    "describe_metakl": DescribeParams,
    "reconstruct": ReconstructParams,
    "respond": RespondParams,
    "reward": RewardParams,
    "preserve": PreserveParams,
    "reference": SequenceParams,
    "train": TrainParams,
    "interpolate": InterpolateParams,
    "evaluate": EvaluateParams,
}
"""Section of params.yaml -> its type, in the order of the pipeline."""


def check_params(path: Path) -> list[str]:
    """Every problem of params.yaml as `  path: what is wrong (got value)`; empty when it is valid."""
    document = load_yaml(path)
    if not isinstance(document, dict):
        return [f"  {path.name}: expected one section for each stage, got {type(document).__name__}"]
    lines = [f"  {name}: this section is missing" for name in SECTIONS if name not in document]
    lines += [f"  {name}: no stage has such a section" for name in document if name not in SECTIONS]
    for name, kind in SECTIONS.items():
        if name in document:
            lines += problems(document[name], kind, prefix=name)[1]
    return lines


def check(root: Path) -> list[str]:
    """Every problem of params.yaml, comparison.yaml, the asset catalogue, the suites, the policy and the ledger."""
    found = []
    try:
        lines = check_params(root / "params.yaml")
        found += ["params.yaml is not valid:", *lines] if lines else []
    except MetagdpoError as error:
        found.append(str(error))
    found += _comparison(root)
    registry = root / "registry"
    found += [*_looks(root), *_ratchet(root)]
    for read in (
        lambda: load_catalogue(registry / "assets.yaml"),
        lambda: load_suites(registry / "suites"),
        lambda: read_policy(registry / "policy.yaml"),
        lambda: ledger.read(registry / "ledger.jsonl"),
    ):
        try:
            read()
        except MetagdpoError as error:
            found.append(str(error))
    return found


def _comparison(root: Path) -> list[str]:
    """Every method of the comparison, with params.yaml and the shared values below it."""
    if not (root / COMPARISON).is_file():
        return []
    try:
        return check_methods(read_comparison(root / COMPARISON), root)
    except MetagdpoError as error:
        return [str(error)]


def _looks(root: Path) -> list[str]:
    """Early stopping looks after every batch: two sizes would leave batches that nobody looks at."""
    try:
        policy = read_policy(root / "registry/policy.yaml")
        evaluate, _ = problems(load_yaml(root / "params.yaml").get("evaluate"), EvaluateParams)
    except (MetagdpoError, AttributeError):
        return []  # told by those who read these files
    if policy.sequential is None or evaluate is None or policy.sequential.items_per_look == evaluate.items_per_look:
        return []
    message = (
        f"registry/policy.yaml looks every {policy.sequential.items_per_look} items and params.yaml scores "
        f"{evaluate.items_per_look} at a time (evaluate.items_per_look): set both to one number."
    )
    return [message]


def _ratchet(root: Path) -> list[str]:
    """Skills of earlier releases whose suites are gone: better told before training than by the gate."""
    try:
        name = problems(load_yaml(root / "params.yaml").get("base"), BaseParams)[0]
        entries = ledger.read(root / "registry/ledger.jsonl")
        policy, suites = read_policy(root / "registry/policy.yaml"), load_suites(root / "registry/suites")
    except (MetagdpoError, AttributeError):
        return []  # told by those who read these files
    if name is None or not policy.champion:
        return []
    try:
        with_ratchet(suite_infos(suites), champion_for(entries, name.experiment, candidate=""))
    except MetagdpoError as error:
        return [str(error)]
    return []
