"""plan: suites, the base's scores, policy -> what the gate will be able to show, before anything is trained.

Margins that the suites cannot show are warnings; margins below the noise floor stop the run.
"""

from pathlib import Path

from metagdpo.evaluation.suite import load_suites
from metagdpo.gate.plan import table
from metagdpo.gate.policy import read_policy
from metagdpo.planning import base_scores, check_margins, make_plan, measure_noise, planned_suites
from metagdpo.progress import done, run_stage
from metagdpo.schema import write_json, write_record, write_text

BASE = Path("evaluations/base")
OUT = Path("data")


def main() -> None:
    """Write data/plan.md, data/plan.json and data/noise.json, and warn in the terminal."""
    policy = read_policy(Path("registry/policy.yaml"))
    suites = planned_suites(policy, load_suites(Path("registry/suites")), base_scores(BASE))
    noise = measure_noise(BASE, Path("evaluations/noise"), policy)
    rows = make_plan(policy, suites)
    assumed = f"alpha {policy.alpha:g}, power {policy.power:g}, flip rate {policy.expected_flip_rate:g}"
    write_record(OUT / "noise.json", noise)
    write_json(OUT / "plan.json", [row.model_dump(mode="json") for row in rows])
    write_text(OUT / "plan.md", "\n".join([f"# What the gate can show ({assumed})", "", *table(rows, "markdown"), ""]))
    print("\n".join(table(rows)))
    check_margins(suites, noise)
    warned = sum(len(row.warnings) for row in rows)
    done(
        "plan",
        f"data/plan.md, plan.json and noise.json ({warned} warnings; {assumed})",
        "`metagdpo gate plan --help` tries other assumptions",
    )


if __name__ == "__main__":
    run_stage("plan", main)
