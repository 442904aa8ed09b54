"""The same gradients when weights are split over processes: every process makes the same sequence of passes.

With FSDP each forward and each backward gathers weights from all processes, so all must make equally many of them in
the same order, whatever groups they have. First come all passes without gradient, then all with, and who has fewer
passes an empty one with slope 0. Prompts are computed with each part of a group, never apart, and nothing is streamed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metagdpo.training.accumulate import Scored, back, score, slopes
from metagdpo.training.collate import Family, TokenSequence
from metagdpo.training.logprobs import Scorer
from metagdpo.training.parallel import Workers
from metagdpo.training.plan import make_plan

NOTHING = [TokenSequence("nothing", (0,), (0,))]
ALONE = (Family((0,), 1, 0),)


@dataclass(frozen=True)
class Job:
    """One coupled set of sequences; the arguments of `accumulate.backward_through`."""

    sequences: Sequence[TokenSequence]
    loss: Callable[[Tensor], Tensor]
    coupling_SS: Tensor  # noqa: N815  (shape suffix)


def backward_in_step(
    scorer: Scorer, jobs: Sequence[Job], workers: Workers, *, token_budget: int, shared_prompt: bool
) -> list[Scored]:
    """Add the gradients of this process's jobs; all processes call it together, with as many jobs as they have."""
    plans = [
        make_plan(
            job.sequences, job.coupling_SS, token_budget, shared_prompt=shared_prompt, packed=scorer.packed, apart=False
        )
        for job in jobs
    ]
    known = [torch.zeros(len(job.sequences), dtype=torch.float64) for job in jobs]
    # Sequences of which nothing is computed have log-probability 0 and no gradient; a pass over them reaches no layer.
    with_gradient = [(j, part.families) for j, plan in enumerate(plans) for part in plan.parts if part.n_tokens]
    without = [(j, families) for j, plan in enumerate(plans) for families in plan.measured if _n_tokens(families)]
    without += [(j, families) for j, families in with_gradient if plans[j].way == "two_passes"]
    # How many passes are missing has to be known before the first: that is a message of its own.
    empty, empty_with_gradient = (workers.most(len(own)) - len(own) for own in (without, with_gradient))
    with torch.no_grad():
        for j, families in without:
            score(scorer, jobs[j].sequences, families, known[j])
        for _ in range(empty):
            _nothing(scorer)
    for j, families in with_gradient:
        graph, members = score(scorer, jobs[j].sequences, families, known[j])
        back(graph, slopes(jobs[j].loss, known[j])[members])
    for _ in range(empty_with_gradient):
        graph = _nothing(scorer)
        back(graph, torch.zeros_like(graph))
    return [
        Scored(known_S, slopes(job.loss, known_S), plan.n_tokens, plan.way)
        for job, known_S, plan in zip(jobs, known, plans, strict=True)
    ]


def _n_tokens(families: Sequence[Family]) -> int:
    return sum(family.n_tokens for family in families)


def _nothing(scorer: Scorer) -> Tensor:
    graph, _ = score(scorer, NOTHING, ALONE, torch.zeros(1, dtype=torch.float64))
    return graph
