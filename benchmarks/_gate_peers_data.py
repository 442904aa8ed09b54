"""Pairs of known truth: what the candidate really lost is a parameter, not an estimate."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from _gate_peers_tools import Floats, Pairs

BASE = 0.8
"""Accuracy of the base unless a row says otherwise; 95 % of it, finetunecheck's limit, is 4 points below."""


@dataclass(frozen=True)
class Flips:
    """Independent right-or-wrong items."""

    n: int
    lost: float
    """P(base right, candidate wrong)."""
    gained: float
    base: float = BASE

    def draw(self, draws: int, seed: int) -> Iterator[Pairs]:
        """Simulated comparisons."""
        cells = [self.base - self.lost, self.lost, self.gained, 1 - self.base - self.gained]
        for both, lost, gained, neither in np.random.default_rng(seed).multinomial(self.n, cells, draws):
            before = np.repeat([1.0, 1.0, 0.0, 0.0], [both, lost, gained, neither])
            yield Pairs(before, np.repeat([1.0, 0.0, 1.0, 0.0], [both, lost, gained, neither]))


@dataclass(frozen=True)
class Passages:
    """Twenty passages with twenty questions each; a passage is lost more or less as a whole."""

    lost: float
    gained: float
    whole: bool
    """Each passage is forgotten altogether or not at all; else the share lost varies (Beta, intra-class corr. 0.29)."""
    passages: int = 20
    questions: int = 20

    def draw(self, draws: int, seed: int) -> Iterator[Pairs]:
        """Simulated comparisons."""
        rng = np.random.default_rng(seed)
        names = tuple(str(name) for name in np.repeat(np.arange(self.passages), self.questions))
        share = self.lost / BASE  # among the items that the base has right
        for _ in range(draws):
            if self.whole:
                fate = (rng.random(self.passages) < share).astype(np.float64)
            else:
                fate = rng.beta(2.5 * share, 2.5 * (1 - share), self.passages)
            before = (rng.random(len(names)) < BASE).astype(np.float64)
            lost = rng.random(len(names)) < np.repeat(fate, self.questions)
            gained = rng.random(len(names)) < self.gained / (1 - BASE)
            yield Pairs(before, np.where(before == 1, np.where(lost, 0.0, 1.0), np.where(gained, 1.0, 0.0)), names)


@dataclass(frozen=True)
class Graded:
    """Graded scores that hardly move, except for a few items that drop to zero."""

    n: int
    loss: float
    """Mean loss."""

    def draw(self, draws: int, seed: int) -> Iterator[Pairs]:
        """Simulated comparisons."""
        rng = np.random.default_rng(seed)
        for _ in range(draws):
            before = rng.uniform(0.7, 0.9, self.n)
            noise = rng.uniform(-0.02, 0.02, self.n)
            dropped = rng.random(self.n) < self.loss / BASE
            yield Pairs(before, np.where(dropped, 0.0, before + noise))


def shuffled(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """The same items in random order, as a sequential evaluation meets them."""
    order: Floats = rng.permutation(len(pairs.before))
    return Pairs(pairs.before[order], pairs.candidate[order])
