"""NoiseFloors: what the same weights show when nothing but the numerics of the measurement changes."""

from metagdpo.schema import Frozen


class Noise(Frozen):
    """One suite: the base against itself under another batch size or dtype (an A/A run)."""

    suite: str
    n_items: int
    flips: int
    """Items whose score changed."""
    difference: float
    """Second measurement - first, in accuracy."""
    floor: float
    """The smallest margin at which the base passes against itself in both directions; smaller margins are refused."""


class NoiseFloors(Frozen):
    """data/noise.json."""

    other: dict[str, str]
    """What was different in the second measurement: setting -> `first -> second`; empty when none was made."""
    suites: tuple[Noise, ...] = ()
