"""ingest: sources -> Question, the pool of verifiable questions."""

from pathlib import Path

from metagdpo import params
from metagdpo.progress import done, run_stage
from metagdpo.schema import write_json, write_jsonl
from metagdpo.sources.pool import IngestParams, build_pool


def main() -> None:
    """Build the pool and the report of what was left out of it, and why."""
    pool, report = build_pool(params.section("ingest", IngestParams))
    count = write_jsonl(Path("data/questions.jsonl"), pool)
    write_json(Path("data/pool.json"), report)
    done("ingest", f"{count} questions to data/questions.jsonl", "data/pool.json lists what was left out and why")


if __name__ == "__main__":
    run_stage("ingest", main)
