"""reward: Response -> ResponseGroup, with verifiable rewards and advantages; degenerate groups are counted."""

from itertools import groupby
from pathlib import Path

from metagdpo import params
from metagdpo.objectives.advantages import group_advantages
from metagdpo.progress import done, run_stage
from metagdpo.records.question import Question
from metagdpo.records.response import Response
from metagdpo.responses.rewards import RewardParams, score_group, summarise
from metagdpo.schema import read_jsonl, write_json, write_jsonl


def main() -> None:
    """Score every group."""
    settings = params.section("reward", RewardParams)
    pool = {question.id: question for question in read_jsonl(Path("data/questions.jsonl"), Question)}
    responses = read_jsonl(Path("data/responses.jsonl"), Response)
    groups = [
        score_group(pool[question_id], list(members), settings, group_advantages)
        for question_id, members in groupby(responses, key=lambda response: response.question_id)
    ]
    summary = summarise(groups)
    write_jsonl(Path("data/groups.jsonl"), groups)
    write_json(Path("data/groups.json"), summary)
    done(
        "reward",
        f"{len(groups)} groups to data/groups.jsonl ({sum(group.degenerate for group in groups)} degenerate)",
        "data/groups.json has rewards and counts by teacher",
    )


if __name__ == "__main__":
    run_stage("reward", main)
