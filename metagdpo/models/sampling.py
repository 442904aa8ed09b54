"""Drawing the next token: inverse-transform sampling, one uniform number for each row and step.

A row's uniforms come from its own seed alone, so a completion does not depend on what shares its batch, on the order of
the requests, or on where an interrupted run went on (up to rounding of the logits: a batch of another shape may flip a
draw that falls within about 1e-6 of a boundary in float32, more often in bfloat16).
"""

from typing import Any

import numpy as np

from metagdpo.models.port import Sampling

_LIKELIEST = 1024


def uniforms(seed: int, n: int) -> Any:
    """The first n numbers in [0, 1) of a seed's own stream (Philox, counter based): step t uses number t."""
    return np.random.Generator(np.random.Philox(key=seed)).random(n)


def choose(logits_BV: Any, uniforms_B: Any, sampling: Sampling) -> Any:
    """One token id for each row.

    Temperature 0 is the arg max. Otherwise p = softmax(logits / temperature), with top_p < 1 only the smallest set of
    likeliest tokens whose probability reaches top_p, and the token is the first whose cumulative probability, in
    the order of the vocabulary, exceeds u. With temperature 1 and top_p 1 that is the model's own distribution, nothing
    cut: cumulative sums are float64, so that tokens far below 1e-7 keep their share.

    Args:
        logits_BV: Logits [rows, vocabulary].
        uniforms_B: One number in [0, 1) for each row, float64.
        sampling: Temperature and top_p.
    """
    import torch

    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1)
    p_BV = torch.softmax(logits_BV.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        p_BV = nucleus(p_BV, sampling.top_p)
    cumulative_BV = p_BV.cumsum(dim=-1, dtype=torch.float64)
    total_B1 = cumulative_BV[:, -1:]
    # Strictly below the total, so that rounding can never choose a token after the last possible one.
    threshold_B1 = torch.minimum(uniforms_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    return torch.searchsorted(cumulative_BV, threshold_B1, right=True)[:, 0]


def nucleus(p_BV: Any, top_p: float) -> Any:
    """Probabilities with everything outside the smallest likeliest set that reaches top_p set to zero.

    Tokens as likely as the last one of the set stay too. Not renormalised.
    Source: nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751, section 3.1).
    """
    import torch

    # Sorting a whole vocabulary costs as much as the model's step; nearly always the set is far smaller.
    likeliest_BK = p_BV.topk(min(_LIKELIEST, p_BV.shape[-1]), dim=-1).values
    if bool((likeliest_BK.sum(dim=-1) < top_p).any()):
        likeliest_BK = p_BV.sort(dim=-1, descending=True).values
    before_BK = likeliest_BK.cumsum(dim=-1, dtype=torch.float64) - likeliest_BK
    smallest_B1 = likeliest_BK.masked_fill(before_BK >= top_p, 1.0).min(dim=-1, keepdim=True).values
    return p_BV.masked_fill(p_BV < smallest_B1, 0.0)
