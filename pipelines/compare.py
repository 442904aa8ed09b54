"""compare: finished runs, the base's scores, policy -> verdicts, one table, pictures; runs that are missing are named.

Left out: the champion (methods are compared with what they all started from), and a release of any of these candidates.
"""

from pathlib import Path

from metagdpo.comparison.evidence import judge, open_court
from metagdpo.comparison.page import write_page
from metagdpo.comparison.statistics import compare
from metagdpo.comparison.table import summary, write_tables
from metagdpo.errors import MetagdpoError
from metagdpo.gate.policy import read_policy
from metagdpo.progress import done, note, run_stage
from metagdpo.records.comparison import RunResult
from metagdpo.records.paired import PairedScore
from metagdpo.runs import BASE, RESULTS, read_comparison, run_of
from metagdpo.schema import write_jsonl, write_record


def main() -> None:
    """Judge every run, compare the methods, and write comparison/results."""
    declared = read_comparison()
    court = open_court(read_policy(Path("registry/policy.yaml")), Path("registry/suites"), Path("data/suites"), BASE)
    labels = {name: declared.methods[name].label for name in declared.compare}
    results: list[RunResult] = []
    pairs: dict[tuple[str, int], dict[str, list[PairedScore]]] = {}
    failed: dict[tuple[str, int], str] = {}
    for method, label in labels.items():
        for seed in declared.seeds:
            try:
                gated = judge(run_of(method, seed, declared), label, court)
            except MetagdpoError as error:
                # One method's failure must not cost the table of the others.
                failed[method, seed] = str(error)
                note("compare", f"MISSING {method} with seed {seed}: {error}")
            else:
                results.append(gated.result)
                pairs[method, seed] = gated.pairs
    comparison = compare(results, pairs, labels=labels, seeds=declared.seeds, failed=failed)
    write_record(RESULTS / "comparison.json", comparison)
    write_jsonl(RESULTS / "runs.jsonl", results)
    write_tables(RESULTS, comparison)
    changes = {name: declared.methods[name].changes for name in labels}
    write_page(RESULTS, comparison, changes, declared.shared)
    print("\n".join(summary(comparison)))
    lost = f", {len(failed)} MISSING" if failed else ""
    done(
        "compare", f"{RESULTS} ({len(results)} runs{lost})", f"open {RESULTS}/index.html, or `metagdpo compare --show`"
    )


if __name__ == "__main__":
    run_stage("compare", main)
