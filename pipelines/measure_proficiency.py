"""measure_proficiency: ProbeAnswer + KnowledgeUnit -> ProficiencyProfile (average and strict)."""

from collections import defaultdict
from pathlib import Path

from metagdpo.answers import correctness
from metagdpo.knowledge.proficiency import measure
from metagdpo.progress import done, run_stage
from metagdpo.records.knowledge import KnowledgeUnit
from metagdpo.records.probe import ProbeAnswer
from metagdpo.records.question import Question
from metagdpo.schema import read_jsonl, write_record


def main() -> None:
    """Score the probe answers and average them over units."""
    questions = {question.id: question for question in read_jsonl(Path("data/questions.jsonl"), Question)}
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for answer in read_jsonl(Path("data/probe.jsonl"), ProbeAnswer):
        scores[answer.model][answer.question_id] = correctness(questions[answer.question_id], answer.text)
    profile = measure(list(read_jsonl(Path("data/knowledge.jsonl"), KnowledgeUnit)), scores)
    write_record(Path("data/proficiency.json"), profile)
    mean = sum(question.average for question in profile.questions) / len(profile.questions)
    done(
        "measure_proficiency",
        f"{len(profile.units)} units, mean accuracy {mean:.3f} to data/proficiency.json",
        "`metagdpo explain` names the weakest units",
    )


if __name__ == "__main__":
    run_stage("measure_proficiency", main)
