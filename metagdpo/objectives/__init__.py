"""Training objectives; the union is the registry. A new one is a file here and a name in it."""

from typing import Annotated

from pydantic import Field

from metagdpo.objectives.dpo import Dpo
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.gvpo import Gvpo
from metagdpo.objectives.sft import Sft

Objective = Annotated[Gdpo | Dpo | Sft | Gvpo, Field(discriminator="kind")]
"""Each has `loss(scores: GroupScores) -> GroupLoss`."""
