"""train: groups, references and context-free samples -> Candidate, in one visible loop; logs to MLflow as it goes."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from metagdpo import params
from metagdpo.lineage.manifest import dvc_md5s, git_commit
from metagdpo.lineage.store import open_client, tracking_uri
from metagdpo.models.load import load_model, load_tokenizer, locate, verify
from metagdpo.models.port import Completion, derived_seed
from metagdpo.objectives.advantages import group_advantages
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.group import ResponseGroup
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.question import Question
from metagdpo.records.response import Response
from metagdpo.records.sample import ContextFreeSample
from metagdpo.responses.rewards import RewardParams, score_group
from metagdpo.schema import digest_file, read_jsonl, read_record, write_jsonl
from metagdpo.training.candidate import run_key, write_manifest
from metagdpo.training.launch import relaunch
from metagdpo.training.loop import TrainResult, train
from metagdpo.training.model import make_policy, save_candidate
from metagdpo.training.on_policy import check_possible, train_on_policy
from metagdpo.training.parallel import Workers
from metagdpo.training.reference import bound_to, load_reference
from metagdpo.training.roll_out import Score
from metagdpo.training.settings import SequenceParams, TrainParams
from metagdpo.training.tracking import RunLog, objective_name, run_facts

ROOT = Path()
CANDIDATE = Path("models/candidate")
QUESTIONS = "data/questions.jsonl"
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
    reward = params.section("reward", RewardParams)
    on_policy = settings.on_policy
    if on_policy is not None:
        check_possible()
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
    if on_policy is not None:
        sections["reward"] = reward.model_dump(mode="json")
        data[QUESTIONS] = digest_file(Path(QUESTIONS))
    key = run_key(sections, data, identity)
    facts = run_facts(base.experiment, key, sections, data, md5s=dvc_md5s(ROOT, data), git_commit=git_commit(ROOT))
    # A store that cannot be written is found out here, before anything is paid for.
    with RunLog(open_client(tracking_uri(ROOT)), facts) if Workers().main else contextlib.nullcontext() as log:
        model, tokenizer = load_model(directory, base.dtype), load_tokenizer(directory)
        groups = list(read_jsonl(Path(GROUPS), ResponseGroup))
        work = Path(".work/train") / key.removeprefix("sha256:")[:16]
        keep = log.metrics if log else lambda _step, _values: None
        if on_policy is not None and on_policy.start == "base":
            policy = make_policy(model, settings, seed=derived_seed(base.seed, "lora"))
            result = TrainResult(
                policy, steps=0, n_groups=len(groups), n_held_out=0, n_skipped_groups=0, n_truncated=0, metrics=()
            )
        else:
            result = train(
                model,
                tokenizer,
                groups,
                context_free=list(read_jsonl(Path(CONTEXT_FREE), ContextFreeSample)),
                held_out=list(read_jsonl(Path(HELD_OUT), ContextFreeSample)),
                references=references,
                params=settings,
                sequences=sequences,
                seed=base.seed,
                work=work,
                run_key=key,
                log=keep,
            )
        if on_policy is not None:
            more = train_on_policy(
                result.model,
                tokenizer,
                groups,
                on_policy,
                params=settings,
                score=judge(reward),
                seed=base.seed,
                work=work,
                run_key=key,
                first_step=len(result.metrics),
                log=keep,
            )
            result = replace(result, steps=result.steps + len(more), metrics=(*result.metrics, *more))
    save_candidate(result.model, CANDIDATE, reference=base.model, base_directory=directory, main=result.main)
    if not result.main:
        return
    # Without the clock's numbers: the same training must give the same candidate, to the byte.
    write_jsonl(CANDIDATE / "metrics.jsonl", (step.model_copy(update={"speed": {}}) for step in result.metrics))
    write_manifest(
        CANDIDATE,
        identity,
        key=key,
        objective=objective_name(settings.model_dump(mode="json")),
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


def judge(reward: RewardParams) -> Score:
    """The policy's answers are scored by what scores a teacher's."""
    pool = {question.id: question for question in read_jsonl(Path(QUESTIONS), Question)}

    def score(question_id: str, completions: Sequence[Completion]) -> ResponseGroup:
        responses = [
            Response(
                question_id=question_id,
                index=index,
                teacher="policy",
                teacher_digest="",
                text=completion.text,
                finish_reason=completion.finish_reason,
            )
            for index, completion in enumerate(completions)
        ]
        return score_group(pool[question_id], responses, reward, group_advantages)

    return score


if __name__ == "__main__":
    run_stage("train", main)
