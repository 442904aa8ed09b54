"""Champion: the release that a candidate is compared with besides the base, and what releases were trained for."""

from metagdpo.schema import Frozen


class Champion(Frozen):
    """data/champion.json, found in the ledger; all null before the first release."""

    version: int | None = None
    """Version in the MLflow Model Registry."""
    entry: str | None = None
    """Digest of its ledger entry."""
    manifest: str | None = None
    """Digest over its candidate.json."""
    retained: tuple[str, ...] = ()
    """Suites that it and the releases before it were trained for: retained skills from then on (the ratchet)."""
