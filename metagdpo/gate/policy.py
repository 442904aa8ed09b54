"""registry/policy.yaml as a typed object: what the gate demands of a candidate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from metagdpo.errors import ConfigError
from metagdpo.params import load_yaml, validate
from metagdpo.schema import Frozen

Margin = Annotated[float, Field(gt=0, lt=1)]


class Policy(Frozen):
    """Error rate, margins and minimum evidence; which suites are required is said in registry/suites."""

    alpha: float = Field(gt=0, lt=0.5)
    """One-sided error rate of each suite's test: the chance to pass a candidate that lost just the margin."""
    power: float = Field(gt=0.5, lt=1)
    """Probability with which an unchanged candidate should pass, and with which `items needed` is planned."""
    default_margin: Margin
    """Largest accepted loss of accuracy (0.04 is 4 points) on a suite without a margin of its own."""
    margins: dict[str, Margin] = Field(default_factory=dict)
    """Largest accepted loss of accuracy by suite."""
    min_items: int = Field(ge=1)
    """A suite with fewer items stays undecided, whatever its score."""
    max_kl_per_token: float | None = Field(default=None, gt=0)
    """Largest accepted KL(base || candidate) in nats a token on context-free text; null: reported, never decides."""

    def margin(self, suite: str) -> float:
        """Largest accepted loss of accuracy on a suite."""
        return self.margins.get(suite, self.default_margin)


def read_policy(path: Path) -> Policy:
    """Read the policy.

    Raises:
        ConfigError: The file is missing or invalid; every problem is listed with its path.
    """
    return validate(load_yaml(path), Policy, where=str(path))


def check_suites(policy: Policy, suites: Sequence[str]) -> None:
    """Refuse margins that name no suite: a misspelt name would silently fall back to the default margin.

    Raises:
        ConfigError: Names the margins without a suite and the suites there are.
    """
    unknown = sorted(set(policy.margins) - set(suites))
    if unknown:
        message = (
            f"registry/policy.yaml sets margins for unknown suites: {', '.join(unknown)}. "
            f"Suites are: {', '.join(sorted(suites)) or 'none'}. Correct the name or remove the line."
        )
        raise ConfigError(message)
