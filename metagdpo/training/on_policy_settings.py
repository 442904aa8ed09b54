"""`train.on_policy` of params.yaml. Apart from the training itself, so that its code is no concern of other stages."""

from typing import Literal

from pydantic import Field

from metagdpo.schema import Frozen


class Grpo(Frozen):
    """GRPO through TRL (extra `grpo`): the policy answers the groups' questions itself; docs/on-policy.md.

    Anchors, schedule, warm-up, clipping of the norm, weight decay, token budget and checkpoints are those of section
    `train`; the anchors act in every update and hold to the base, also after an offline part.
    """

    start: Literal["base", "offline"] = "base"
    """`offline` first trains `objective` from the groups, then goes on from there: the paper's warm-up. `base` uses
    nothing of the groups but their questions (and their responses as texts, where an anchor `kl` on `groups` asks)."""
    steps: int = Field(gt=0)
    """Each asks some questions and learns from the answers."""
    questions_per_step: int = Field(default=8, gt=0)
    responses_per_question: int = Field(default=8, ge=2)
    """G, the size of a group."""
    max_new_tokens: int = Field(gt=0)
    """A response is cut there, and then not well formed."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the sampling, and of the probabilities in the loss."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Below 1 the loss still takes the whole distribution for the one that was sampled from."""
    decode_batch: int = Field(default=64, gt=0)
    """Responses decoded at once; a group is never split."""
    learning_rate: float = Field(gt=0)
    """Peak rate; not that of the offline objective."""
    beta: float = Field(default=0.0, ge=0)
    """Coefficient of KL(policy || base). 0, which is current practice, relies on the policy's own text to stay close,
    and saves a forward pass."""
    loss: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
    """What a token weighs: 1 / tokens of the step; 1 / tokens of its response (the original, which favours short right
    answers and long wrong ones); 1 / max_new_tokens."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Advantages are divided by the standard deviation of the group, of the step, or not at all (Dr. GRPO)."""
    updates_per_step: int = Field(default=1, gt=0)
    """mu: updates with the same responses; with 1 every probability ratio is 1 and nothing is clipped. Anchors act in
    each update, with texts of their own."""
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    """From the second update on, probability ratios are clipped to 1 - epsilon .. 1 + epsilon."""
