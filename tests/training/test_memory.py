"""Activations held at once, counted: bytes of tensors that autograd saved and has not yet used."""

import weakref

import pytest
import torch

from metagdpo.models.load import load_model
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.scores import GroupScores
from metagdpo.training.accumulate import backward_through
from metagdpo.training.collate import TokenSequence
from metagdpo.training.logprobs import Scorer

PROMPT, RESPONSE = 40, 21


class Meter:
    """Counts what autograd keeps for backward, weights left out: each storage once, from saving to freeing."""

    def __init__(self, model):
        self.known = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
        self.held, self.now, self.peak = {}, 0, 0

    def pack(self, tensor):
        key = tensor.untyped_storage().data_ptr()
        if key in self.known:
            return tensor
        held = Held(tensor)
        count, size = self.held.get(key, (0, tensor.untyped_storage().nbytes()))
        self.held[key] = (count + 1, size)
        self.now += size if count == 0 else 0
        self.peak = max(self.peak, self.now)
        weakref.finalize(held, self.free, key)
        return held

    def free(self, key):
        count, size = self.held.pop(key)
        if count > 1:
            self.held[key] = (count - 1, size)
        else:
            self.now -= size


class Held:
    def __init__(self, tensor):
        self.tensor = tensor


def peak(scorer, G, objective, budget):
    """Most bytes held during the gradient of one group of G, and the way it was computed."""
    sequences = [
        TokenSequence(str(i), tuple(range(3, 3 + PROMPT)), tuple(range(50 + i, 50 + i + RESPONSE))) for i in range(G)
    ]
    rewards = torch.arange(G, dtype=torch.float64)

    def loss(log_probs):
        return objective.loss(GroupScores(log_probs, log_probs.detach(), rewards, torch.full((G,), RESPONSE))).value

    meter = Meter(scorer.policy)
    with torch.autograd.graph.saved_tensors_hooks(meter.pack, lambda held: getattr(held, "tensor", held)):
        found = backward_through(scorer, sequences, loss, token_budget=budget, coupling_SS=objective.coupling(rewards))
    return meter.peak, found.way


@pytest.fixture(scope="module")
def scorer(tiny_model_dir):
    return Scorer(load_model(tiny_model_dir, "float32"))


@pytest.mark.parametrize(("pairs", "way"), [("adjacent", "streamed"), ("all", "two_passes")])
def test_what_is_held_does_not_grow_with_the_group(scorer, pairs, way):
    """At most 1.15 times as much at G = 64 as at G = 4, with the same budget: one prompt and three responses."""
    budget = PROMPT + 3 * (RESPONSE - 1)
    small, large = (peak(scorer, G, Gdpo(pairs=pairs), budget) for G in (4, 64))
    assert (small[1], large[1]) == (way, way)
    assert large[0] <= 1.15 * small[0]


def test_the_whole_group_at_once_does_grow(scorer):
    """The measure sees what it is for: sixteen times the responses, at least five times the bytes."""
    assert peak(scorer, 64, Gdpo(), 10_000)[0] > 5 * peak(scorer, 4, Gdpo(), 10_000)[0]
