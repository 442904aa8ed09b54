"""train: groups, references and the base's own texts -> weights and their cost, in one visible loop; logs to MLflow.

`python -m pipelines.train` is the main job; `... METHOD SEED` is one run of the comparison.
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from metagdpo.comparison.pace import keep_time
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
from metagdpo.records.self_dialogue import SelfDialogue
from metagdpo.responses.rewards import RewardParams, score_group
from metagdpo.runs import run_from
from metagdpo.schema import digest_file, read_jsonl, read_record, write_jsonl, write_record
from metagdpo.training.candidate import run_key, write_manifest
from metagdpo.training.launch import relaunch
from metagdpo.training.loop import TrainResult, train
from metagdpo.training.model import make_policy, save_candidate
from metagdpo.training.on_policy import check_possible, train_on_policy
from metagdpo.training.on_policy_anchors import anchors_at_base
from metagdpo.training.parallel import Workers
from metagdpo.training.reference import bound_to, load_reference
from metagdpo.training.roll_out import Score
from metagdpo.training.settings import SequenceParams, TrainParams
from metagdpo.training.tracking import RunLog, objective_name, run_facts

ROOT = Path()
QUESTIONS = "data/questions.jsonl"
GROUPS = "data/groups.jsonl"
CONTEXT_FREE = "data/context_free_train.jsonl"
DIALOGUES = "data/self_dialogues.jsonl"
HELD_OUT = "data/context_free_held_out.jsonl"
REFERENCE = "data/reference.jsonl"


def main(arguments: Sequence[str]) -> None:
    """Train; killed and rerun, it goes on from its last checkpoint."""
    relaunch("pipelines.train", arguments)
    run = run_from(arguments)
    base = run.section("base", BaseParams)
    sequences = run.section("reference", SequenceParams)
    settings = run.section("train", TrainParams)
    reward = run.section("reward", RewardParams)
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
    if on_policy is not None:
        sections["reward"] = reward.model_dump(mode="json")
    data = {path: digest_file(Path(path)) for path in files_read(settings)}
    key = run_key(sections, data, identity)
    facts = run_facts(base.experiment, key, sections, data, md5s=dvc_md5s(ROOT, data), git_commit=git_commit(ROOT))
    if run.method is not None:
        facts = facts.model_copy(update={"name": f"{run.name} {facts.name}"})
    # A store that cannot be written is found out here, before anything is paid for.
    with RunLog(open_client(tracking_uri(ROOT)), facts) if Workers().main else contextlib.nullcontext() as log:
        model, tokenizer = load_model(directory, base.dtype), load_tokenizer(directory)
        groups = list(read_jsonl(Path(GROUPS), ResponseGroup))
        context_free = list(read_jsonl(Path(CONTEXT_FREE), ContextFreeSample)) if CONTEXT_FREE in data else []
        dialogues = list(read_jsonl(Path(DIALOGUES), SelfDialogue)) if DIALOGUES in data else []
        work = Path(".work/train") / key.removeprefix("sha256:")[:16]
        keep = log.metrics if log else lambda _step, _values: None
        if on_policy is not None and on_policy.start == "base":
            anchoring = anchors_at_base(
                model,
                tokenizer,
                groups,
                context_free=context_free,
                self_dialogues=dialogues,
                params=settings,
                sequences=sequences,
                seed=base.seed,
            )
            policy = make_policy(model, settings, seed=derived_seed(base.seed, "lora"))
            result = TrainResult(
                policy,
                steps=0,
                n_groups=len(groups),
                n_held_out=0,
                n_skipped_groups=0,
                n_truncated=0,
                metrics=(),
                anchoring=anchoring,
            )
        else:
            result = train(
                model,
                tokenizer,
                groups,
                context_free=context_free,
                self_dialogues=dialogues,
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
                anchoring=result.anchoring,
                first_step=len(result.metrics),
                log=keep,
            )
            result = replace(result, steps=result.steps + len(more), metrics=(*result.metrics, *more))
    save_candidate(result.model, run.trained, reference=base.model, base_directory=directory, main=result.main)
    if not result.main:
        return
    # Without the clock's numbers: the same training must give the same weights and files, to the byte.
    write_jsonl(run.trained / "metrics.jsonl", (step.model_copy(update={"speed": {}}) for step in result.metrics))
    write_manifest(
        run.trained,
        identity,
        key=key,
        objective=objective_name(settings.model_dump(mode="json")),
        data=data,
        params=sections,
        steps=result.steps,
        n_groups=result.n_groups,
        n_skipped_groups=result.n_skipped_groups,
    )
    write_record(run.cost, result.cost)
    keep_time(run, "train")
    done(
        "train",
        f"weights after {result.steps} steps on {result.n_groups} groups to {run.trained} "
        f"({result.n_skipped_groups} groups without preference, {result.n_truncated} responses cut)",
        "interpolate makes the candidate of them; `make ui` shows the curves",
    )


def files_read(settings: TrainParams) -> list[str]:
    """The data files that decide a training with this section `train`: another file leaves its key as it is.

    The held-out context-free samples are measured only; references of them stand beside those of the groups.
    """
    wanted = {getattr(anchor, "texts", anchor.kind) for anchor in settings.anchors}
    files = [GROUPS, REFERENCE]
    if wanted & {"context_free", "ewc"}:
        files.append(CONTEXT_FREE)
    if "self_dialogue" in wanted:
        files.append(DIALOGUES)
    if settings.on_policy is not None:
        files.append(QUESTIONS)
    return sorted(files)


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
    run_stage("train", lambda: main(sys.argv[1:]), of=sys.argv[1:])
