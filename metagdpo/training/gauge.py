"""What a training tells about itself: values of a group it learns from, and measurements of what it does not."""

from collections.abc import Sequence

import torch
from torch import Tensor

from metagdpo.objectives.metrics import advantage_alignment, log_ratio_means, ordering_accuracy
from metagdpo.objectives.scores import GroupLoss, GroupScores
from metagdpo.records.training_step import TrainingStep
from metagdpo.training.accumulate import score_all
from metagdpo.training.collate import TokenSequence
from metagdpo.training.data import TrainGroup
from metagdpo.training.logprobs import Scorer
from metagdpo.training.parallel import Workers
from metagdpo.training.settings import EarlyStop, TrainParams

HELD_OUT_VALUES = ("objective", "ordering_accuracy", "log_ratio_best", "log_ratio_worst", "log_ratio_group")
GROUP_VALUES = (*HELD_OUT_VALUES, "advantage_alignment", "n_pairs", "n_skipped_pairs")


class Gauge:
    """Measures what is not trained on: drift on the base's own text, and held-out groups.

    Args:
        groups: Held-out groups.
        samples: Held-out context-free samples.
        reference_S: Their log-probabilities under the base, nats.
        params: Section `train`.
    """

    def __init__(
        self, groups: Sequence[TrainGroup], samples: Sequence[TokenSequence], reference_S: Tensor, params: TrainParams
    ) -> None:
        self.groups, self.samples, self.reference_S, self.params = groups, samples, reference_S, params

    def measure(self, scorer: Scorer, workers: Workers) -> dict[str, float]:
        """Values of the model as it is now: `drift`, nats a token, and `held_out_*`; only what there is data for."""
        values: dict[str, float] = {}
        if self.samples:
            mine = self._mine([each.n_computed for each in self.samples], workers)
            log_probs_S = self._score(scorer, [self.samples[i] for i in mine])
            moved = float((self.reference_S[mine] - log_probs_S).sum())
            n_tokens = sum(each.n_scored for each in self.samples)
            values["drift"] = self._sum({"drift": moved / n_tokens}, workers)["drift"]  # as in evaluation/drift.py
        if self.groups:
            totals = {f"held_out_{name}": 0.0 for name in HELD_OUT_VALUES}
            for i in self._mine([len(group.sequences) for group in self.groups], workers):
                group = self.groups[i]
                scores = group.scores(self._score(scorer, group.sequences))
                loss = self.params.objective.loss(scores)
                found = group_values(scores, loss, torch.zeros_like(scores.rewards_G))
                for name in HELD_OUT_VALUES:
                    totals[f"held_out_{name}"] += found[name] / len(self.groups)
            values |= self._sum(totals, workers)
        return values

    def _score(self, scorer: Scorer, sequences: Sequence[TokenSequence]) -> Tensor:
        return score_all(
            scorer, sequences, token_budget=self.params.token_budget, shared_prompt=self.params.shared_prompt
        )

    def _mine(self, costs: Sequence[int], workers: Workers) -> list[int]:
        # With weights split over processes all of them must make the same passes: each then measures everything.
        return list(range(len(costs))) if workers.sharded else workers.share(costs)

    def _sum(self, values: dict[str, float], workers: Workers) -> dict[str, float]:
        # Their mean, so that all decide the same about an early stop.
        shares = workers.n if workers.sharded else 1
        return {name: value / shares for name, value in workers.sum(values).items()}


def group_values(scores: GroupScores, loss: GroupLoss, slope_G: Tensor) -> dict[str, float]:
    """GROUP_VALUES of one group; the slopes are d loss / d log p of each response."""
    return {
        "objective": float(loss.value.detach()),
        "ordering_accuracy": ordering_accuracy(scores),
        **log_ratio_means(scores),
        "advantage_alignment": advantage_alignment(slope_G, scores.rewards_G),
        "n_pairs": float(loss.n_pairs),
        "n_skipped_pairs": float(loss.n_skipped),
    }


def best_step(history: Sequence[TrainingStep], early_stop: EarlyStop) -> int:
    """Step after which the held-out groups were best; the earliest of equals."""
    name = f"held_out_{early_stop.monitor}"
    sign = -1.0 if early_stop.monitor == "objective" else 1.0
    measured = [found for found in history if name in found.values]
    return max(measured, key=lambda found: (sign * found.values[name], -found.step)).step if measured else -1


def stopped(history: Sequence[TrainingStep], early_stop: EarlyStop | None) -> bool:
    """Whether the held-out groups have not been better for as many measurements as patience lasts."""
    if early_stop is None:
        return False
    best = best_step(history, early_stop)
    name = f"held_out_{early_stop.monitor}"
    return sum(name in found.values and found.step > best for found in history) >= early_stop.patience
