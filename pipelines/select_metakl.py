"""select_metakl: questions, units and mastery -> SelectedQuestion = MetaKL (Algorithm 1), each with its reason."""

from pathlib import Path

from metagdpo import params
from metagdpo.knowledge.selection import SelectionParams, select
from metagdpo.progress import done, run_stage
from metagdpo.records.knowledge import KnowledgeUnit
from metagdpo.records.proficiency import ProficiencyProfile
from metagdpo.schema import read_jsonl, read_record, write_json, write_jsonl


def main() -> None:
    """Select MetaKL and tell the fate of every question."""
    selection = select(
        list(read_jsonl(Path("data/knowledge.jsonl"), KnowledgeUnit)),
        read_record(Path("data/proficiency.json"), ProficiencyProfile),
        params.section("select_metakl", SelectionParams),
    )
    write_jsonl(Path("data/metakl.jsonl"), selection.selected)
    write_jsonl(Path("data/dropped.jsonl"), selection.dropped)
    write_json(Path("data/selection.json"), selection.table)
    done(
        "select_metakl",
        f"{len(selection.selected)} questions to data/metakl.jsonl, {len(selection.dropped)} to data/dropped.jsonl",
        "data/selection.json has pool, mastery, target and kept for each unit",
    )


if __name__ == "__main__":
    run_stage("select_metakl", main)
