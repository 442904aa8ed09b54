"""evaluate_champion: the release that the candidate has to stand up to + suites -> ItemScore.

Nothing when there is none. Its scores were the candidate's once: as long as nothing that decides them has changed, they
are reused.
"""

import functools
from pathlib import Path
from typing import Any

from metagdpo import params
from metagdpo.evaluation.harness import EvaluateParams, evaluate_to
from metagdpo.evaluation.suite import load_suites
from metagdpo.lineage.store import open_client, tracking_uri
from metagdpo.models.load import load_tokenizer, locate, verify
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.champion import Champion
from metagdpo.release.incumbent import fetch
from metagdpo.release.model_registry import ModelRegistry
from metagdpo.schema import read_record, write_jsonl, write_record
from metagdpo.training.candidate import read_manifest
from metagdpo.training.model import load_candidate

OUT = Path("evaluations/champion")


def main() -> None:
    """Fetch the champion, check every byte, and score it."""
    base = params.section("base", BaseParams)
    settings = params.section("evaluate", EvaluateParams)
    champion = read_record(Path("data/champion.json"), Champion)
    if champion.version is None:
        write_jsonl(OUT / "scores.jsonl", [])
        done(
            "evaluate_champion",
            f"nothing to {OUT} (no release before this candidate)",
            "the gate compares with the base",
        )
        return
    registry = ModelRegistry(open_client(tracking_uri(Path())), base.experiment, base.experiment)
    directory = fetch(champion, registry, Path(".work/champion"))
    released = read_manifest(directory)
    base_directory = locate(released.base.reference)
    verify(released.base, base_directory)

    @functools.cache
    def load() -> tuple[Any, Any]:
        return load_candidate(directory, base_directory, base.dtype), load_tokenizer(base_directory)

    suites = load_suites(Path("registry/suites"))
    found = evaluate_to(OUT, load, released.identity, suites, settings, dtype=base.dtype)
    write_record(OUT / "identity.json", released.identity)
    done("evaluate_champion", f"version {champion.version}: {found}", "the gate compares with it as with the base")


if __name__ == "__main__":
    run_stage("evaluate_champion", main)
