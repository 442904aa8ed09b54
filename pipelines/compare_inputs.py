"""compare_inputs: what a stage of the comparison reads, data and code -> digests, in one small file.

Seventy stages that each list ninety files make dvc.lock so long that DVC takes longer than a training: they list this.
"""

import sys
from pathlib import Path

from metagdpo.errors import ConfigError
from metagdpo.params import load_yaml
from metagdpo.progress import done, run_stage
from metagdpo.runs import FOLDER
from metagdpo.schema import digest_directory, digest_file, write_json

STAGES = ("train", "interpolate", "evaluate", "evaluate_base", "table")
YAML = FOLDER / "inputs/dvc.yaml"


def main(stage: str) -> None:
    """Write comparison/inputs/<stage>.json from the list in comparison/inputs/dvc.yaml."""
    files = [Path(name) for name in load_yaml(YAML)["stages"][stage]["deps"]]
    out = FOLDER / "inputs" / f"{stage}.json"
    write_json(out, {str(path): digest_directory(path) if path.is_dir() else digest_file(path) for path in files})
    done(f"compare_inputs {stage}", f"{len(files)} digests to {out}", "the stages of comparison/dvc.yaml depend on it")


if __name__ == "__main__":
    if sys.argv[1:] not in [[stage] for stage in STAGES]:
        print(f"usage: python -m pipelines.compare_inputs {'|'.join(STAGES)}")
        raise SystemExit(ConfigError.exit_code)
    run_stage(f"compare_inputs_{sys.argv[1]}", lambda: main(sys.argv[1]))
