import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from metagdpo.models.port import Sampling
from metagdpo.models.sampling import choose, nucleus, uniforms

PLAIN = Sampling(temperature=1.0, max_new_tokens=1)


def test_a_seed_has_its_own_stream_and_asking_for_more_numbers_keeps_the_first():
    assert uniforms(7, 5).tolist() == uniforms(7, 9)[:5].tolist()
    assert uniforms(7, 5).tolist() != uniforms(8, 5).tolist()


@pytest.mark.parametrize("token", [0, 1, 2])
def test_frequencies_match_the_distribution(token):
    """The 99.9 % binomial interval of each token's frequency over 20,000 seeded draws holds its probability."""
    p = torch.tensor([0.2, 0.5, 0.3])
    n = 20_000
    draws = torch.from_numpy(np.concatenate([uniforms(seed, 10) for seed in range(n // 10)]))
    chosen = choose(p.log().expand(n, 3), draws, PLAIN)
    interval = binomtest(int((chosen == token).sum()), n).proportion_ci(0.999)
    assert interval.low <= p[token] <= interval.high


def test_temperature_raises_probabilities_to_its_inverse():
    """At T = 0.5, p is squared: with p = (1/4, 3/4) the first token has (1/16) / (1/16 + 9/16) = 1/10."""
    logits = torch.tensor([[0.25, 0.75]]).log().expand(2, 2)
    cold = Sampling(temperature=0.5, max_new_tokens=1)
    assert choose(logits, torch.tensor([0.0999, 0.1001], dtype=torch.float64), cold).tolist() == [0, 1]


def test_at_temperature_one_nothing_is_cut_not_even_a_token_of_probability_1e_12():
    """Token 1 owns [1 - 1e-12, 1): a float32 sum would have lost it."""
    logits = torch.tensor([[0.0, np.log(1e-12)]])
    last = torch.tensor([1 - 0.5e-12], dtype=torch.float64)
    assert choose(logits, last, PLAIN).item() == 1


def test_temperature_zero_is_the_arg_max_whatever_the_uniforms():
    logits = torch.tensor([[0.1, 3.0, 2.9]])
    greedy = Sampling(temperature=0.0, max_new_tokens=1)
    assert [choose(logits, torch.tensor([u]), greedy).item() for u in (0.0, 0.999)] == [1, 1]


def test_an_impossible_token_is_never_drawn_at_either_end():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(2, 3)
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert choose(logits, ends, PLAIN).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.5, [1]), (0.51, [1, 2]), (0.8, [1, 2]), (0.81, [0, 1, 2]), (1.0, [0, 1, 2])]
)
def test_the_nucleus_is_the_smallest_likeliest_set_that_reaches_top_p(top_p, kept):
    p = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    assert nucleus(p, top_p)[0].nonzero()[:, 0].tolist() == kept


def test_the_nucleus_of_a_flat_distribution_over_a_large_vocabulary_is_found_too():
    """Of 5,000 decreasing probabilities the set is longer than the shortcut looks: same result as a plain loop."""
    p = torch.softmax(torch.linspace(1, 0, 5000, dtype=torch.float64), dim=0)
    total, size = 0.0, 0
    while total < 0.9:
        total, size = total + p[size].item(), size + 1
    assert int((nucleus(p[None], 0.9) > 0).sum()) == size > 1024
