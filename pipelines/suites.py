"""suites: registry/suites + assets -> the items of every suite, fixed before anything is trained."""

from pathlib import Path

from metagdpo.evaluation.items import build_items
from metagdpo.evaluation.suite import load_suites
from metagdpo.progress import done, run_stage
from metagdpo.schema import write_jsonl


def main() -> None:
    """Write the items of every suite to data/suites/<suite>.jsonl."""
    counts = {}
    for suite in load_suites(Path("registry/suites")):
        counts[suite.name] = write_jsonl(Path(f"data/suites/{suite.name}.jsonl"), build_items(suite, Path("assets")))
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    done("suites", f"items to data/suites ({listed})", "registry/README.md says how to add a suite")


if __name__ == "__main__":
    run_stage("suites", main)
