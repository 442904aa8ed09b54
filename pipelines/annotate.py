"""annotate: Question -> Annotation, the metacognitive knowledge that each question needs (raw reply kept)."""

from pathlib import Path

from metagdpo import params
from metagdpo.knowledge.annotate import AnnotateParams, annotate
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.question import Question
from metagdpo.schema import read_jsonl, write_jsonl


def main() -> None:
    """Annotate the pool."""
    base = params.section("base", BaseParams)
    questions = list(read_jsonl(Path("data/questions.jsonl"), Question))
    annotations = annotate(questions, params.section("annotate", AnnotateParams), base, Path(".work/annotate"))
    bare = sum(not annotation.skills for annotation in annotations)
    write_jsonl(Path("data/annotations.jsonl"), annotations)
    done(
        "annotate",
        f"skills of {len(annotations)} questions to data/annotations.jsonl ({bare} questions without any)",
        "`head -1 data/annotations.jsonl` shows the raw scores behind the labels",
    )


if __name__ == "__main__":
    run_stage("annotate", main)
