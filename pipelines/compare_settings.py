"""compare_settings: comparison.yaml over params.yaml -> what each stage of each run has, all of it checked.

DVC compares these files instead of the two of them, so that a change reruns only the stages that it reaches: a method's
own, or, when all are measured on more items, only the measurements.
"""

from pathlib import Path

from metagdpo.comparison.settings import check, stage_settings
from metagdpo.errors import ConfigError
from metagdpo.progress import done, run_stage
from metagdpo.runs import FOLDER, base_run, read_comparison, runs_of
from metagdpo.schema import write_json

OUT = FOLDER / "settings"


def main() -> None:
    """Write comparison/settings/<run>/<stage>.json."""
    declared = read_comparison()
    problems = check(declared, Path())
    if problems:
        raise ConfigError("\n".join(problems))
    runs = runs_of(declared)
    for run in runs:
        for stage in ("train", "interpolate", "evaluate"):
            write_json(OUT / run.name / f"{stage}.json", stage_settings(run, stage))
    write_json(OUT / "base.json", stage_settings(base_run(declared), "evaluate"))
    counts = f"{len(declared.compare)} methods, {len(declared.seeds)} seeds"
    done("compare_settings", f"the settings of {len(runs)} runs ({counts}) to {OUT}", "`metagdpo compare --list`")


if __name__ == "__main__":
    run_stage("compare_settings", main)
