"""CI's last look: the smoke run left a verdict, a registry version with the alias `champion`, and a ledger line."""

from pathlib import Path

from mlflow import MlflowClient

from metagdpo.lineage.store import tracking_uri
from metagdpo.params import BaseParams, section
from metagdpo.records.verdict import Verdict
from metagdpo.release import ledger
from metagdpo.schema import digest_record, read_record


def main() -> None:
    """Assert that verdict, version and ledger exist and name each other."""
    verdict = read_record(Path("reports/verdict.json"), Verdict)
    name = section("base", BaseParams).experiment
    champion = MlflowClient(tracking_uri()).get_model_version_by_alias(name, "champion")
    last = ledger.read(Path("registry/ledger.jsonl"))[-1]
    assert verdict.decision == "PROMOTE", verdict.reasons
    assert last.action == "registered", last
    assert digest_record(verdict) == last.verdict, "the ledger's last line is about another verdict"
    assert str(champion.version) == str(last.version), "the champion is another version"
    print(f"smoke: {verdict.decision}, version {champion.version} of `{name}` is champion, ledger line {last.sequence}")


if __name__ == "__main__":
    main()
