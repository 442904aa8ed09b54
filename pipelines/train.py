"""train: groups, references and context-free samples -> Candidate, in one visible loop; logs to MLflow as it goes."""

import contextlib
from pathlib import Path

from pydantic import JsonValue

from metagdpo import params
from metagdpo.lineage.manifest import dvc_md5s, git_commit
from metagdpo.lineage.store import open_client, tracking_uri
from metagdpo.models.load import load_model, load_tokenizer, locate, verify
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.group import ResponseGroup
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.sample import ContextFreeSample
from metagdpo.schema import digest_file, read_jsonl, read_record, write_jsonl
from metagdpo.training.candidate import run_key, write_manifest
from metagdpo.training.launch import relaunch
from metagdpo.training.loop import train
from metagdpo.training.model import save_candidate
from metagdpo.training.parallel import Workers
from metagdpo.training.reference import bound_to, load_reference
from metagdpo.training.settings import SequenceParams, TrainParams
from metagdpo.training.tracking import RunLog, run_facts

ROOT = Path()
CANDIDATE = Path("models/candidate")
GROUPS = "data/groups.jsonl"
CONTEXT_FREE = "data/context_free_train.jsonl"
HELD_OUT = "data/context_free_held_out.jsonl"
REFERENCE = "data/reference.jsonl"


def main() -> None:
    """Train a candidate; killed and rerun, it goes on from its last checkpoint."""
    relaunch("pipelines.train")
    base = params.section("base", BaseParams)
    sequences = params.section("reference", SequenceParams)
    settings = params.section("train", TrainParams)
    identity = read_record(Path("data/base.json"), ModelIdentity)
    directory = locate(base.model)
    verify(identity, directory)
    references = load_reference(
        Path(REFERENCE), bound_to(identity, base.dtype, groups=Path(GROUPS), context_free=Path(HELD_OUT))
    )
    sections: dict[str, JsonValue] = {
        name: section.model_dump(mode="json")
        for name, section in (("base", base), ("reference", sequences), ("train", settings))
    }
    data = {path: digest_file(Path(path)) for path in (GROUPS, CONTEXT_FREE, REFERENCE)}
    key = run_key(sections, data, identity)
    facts = run_facts(base.experiment, key, sections, data, md5s=dvc_md5s(ROOT, data), git_commit=git_commit(ROOT))
    # A store that cannot be written is found out here, before anything is paid for.
    with RunLog(open_client(tracking_uri(ROOT)), facts) if Workers().main else contextlib.nullcontext() as log:
        result = train(
            load_model(directory, base.dtype),
            load_tokenizer(directory),
            list(read_jsonl(Path(GROUPS), ResponseGroup)),
            context_free=list(read_jsonl(Path(CONTEXT_FREE), ContextFreeSample)),
            held_out=list(read_jsonl(Path(HELD_OUT), ContextFreeSample)),
            references=references,
            params=settings,
            sequences=sequences,
            seed=base.seed,
            work=Path(".work/train") / key.removeprefix("sha256:")[:16],
            run_key=key,
            log=log.metrics if log else lambda _step, _values: None,
        )
    save_candidate(result.model, CANDIDATE, reference=base.model, base_directory=directory, main=result.main)
    if not result.main:
        return
    # Without the clock's numbers: the same training must give the same candidate, to the byte.
    write_jsonl(CANDIDATE / "metrics.jsonl", (step.model_copy(update={"speed": {}}) for step in result.metrics))
    write_manifest(
        CANDIDATE,
        identity,
        key=key,
        objective=settings.objective.kind,
        data=data,
        params=sections,
        steps=result.steps,
        n_groups=result.n_groups,
        n_skipped_groups=result.n_skipped_groups,
    )
    done(
        "train",
        f"a candidate after {result.steps} steps on {result.n_groups} groups to {CANDIDATE} "
        f"({result.n_skipped_groups} groups without preference, {result.n_truncated} responses cut)",
        "evaluate_candidate measures it; `make ui` shows the curves",
    )


if __name__ == "__main__":
    run_stage("train", main)
