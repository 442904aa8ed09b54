"""merge_knowledge: Annotation -> KnowledgeUnit (canonical name, aliases, questions)."""

from pathlib import Path

from metagdpo import params
from metagdpo.knowledge.merge import MergeParams, merge
from metagdpo.progress import done, run_stage
from metagdpo.records.annotation import Annotation
from metagdpo.schema import read_jsonl, write_jsonl


def main() -> None:
    """Merge labels of the same meaning into units."""
    annotations = list(read_jsonl(Path("data/annotations.jsonl"), Annotation))
    units = merge(annotations, params.section("merge_knowledge", MergeParams))
    labels = sum(len(unit.aliases) for unit in units)
    write_jsonl(Path("data/knowledge.jsonl"), units)
    done("merge_knowledge", f"{len(units)} units from {labels} labels to data/knowledge.jsonl", "`metagdpo explain`")


if __name__ == "__main__":
    run_stage("merge_knowledge", main)
