"""champion: ledger + candidate -> the release that this candidate has to stand up to besides the base.

It always runs and costs nothing; its output changes only when another release becomes the one to compare with, so that
nothing after it runs again without a reason.
"""

from pathlib import Path

from metagdpo import params
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.candidate import Candidate
from metagdpo.release import ledger
from metagdpo.release.incumbent import champion_for
from metagdpo.schema import digest_record, read_record, write_record


def main() -> None:
    """Write data/champion.json."""
    name = params.section("base", BaseParams).experiment
    candidate = read_record(Path("models/candidate/candidate.json"), Candidate)
    champion = champion_for(ledger.read(Path("registry/ledger.jsonl")), name, digest_record(candidate))
    write_record(Path("data/champion.json"), champion)
    found = "none before this candidate" if champion.version is None else f"version {champion.version} of `{name}`"
    done("champion", f"data/champion.json ({found})", "the gate compares with it as with the base")


if __name__ == "__main__":
    run_stage("champion", main)
