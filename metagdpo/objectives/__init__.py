"""Training objectives and anchors; the unions are the registry. A new objective is a file here and a name in one."""

from typing import Annotated

from pydantic import Field

from metagdpo.objectives.anchors import Anchor
from metagdpo.objectives.dpo import Dpo
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.gvpo import Gvpo
from metagdpo.objectives.sft import Sft

Objective = Annotated[Gdpo | Dpo | Sft | Gvpo, Field(discriminator="kind")]
"""Each has `loss(scores: GroupScores) -> GroupLoss`, and `coupling(rewards_G: Tensor) -> Tensor`.

The coupling is bool [G, G] and symmetric, in the order of the responses. (i, j) says that d loss / d log p_i may depend
on log p_j; (i, i) that d loss / d log p_i is not zero by construction, so that response i matters at all. All False for
a degenerate group. Training streams by it: a response can be back-propagated, and its activations freed, as soon as the
log-probabilities it is coupled with are known.
"""

__all__ = ["Anchor", "Objective"]
