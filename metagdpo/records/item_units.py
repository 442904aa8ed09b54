"""ItemUnits: the knowledge units that one item of a suite needs."""

from metagdpo.schema import Frozen


class ItemUnits(Frozen):
    """One line of data/suite_units.jsonl."""

    suite: str
    item_id: str
    units: tuple[str, ...]
    """Canonical names in alphabetical order; the suite's own unit is always among them."""
