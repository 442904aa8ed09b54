"""The context-free NLL."""

import torch

from metagdpo.objectives.anchors import context_free_nll


def test_it_is_a_mean_over_tokens_not_over_samples():
    """(4 + 30) / (1 + 9), not (4/1 + 30/9) / 2."""
    assert context_free_nll(torch.tensor([-4.0, -30.0]), torch.tensor([1, 9])).item() == torch.tensor(3.4).item()
