"""Terms that hold the model near its base, added to any objective.

Home of: CFS loss (arXiv 2505.13811: E over x ~ p_0 of -log p_theta(x), which is KL(p_0 || p_theta) up to a constant)
"""

from torch import Tensor


def context_free_nll(log_probs_S: Tensor, lengths_S: Tensor) -> Tensor:
    """Negative log-probability a token over context-free samples, nats: the mean over their own tokens.

    Normalised by its own tokens, so that the coefficient does not silently depend on lengths (the paper leaves the
    normalisation open).

    Args:
        log_probs_S: Summed log-probability of each sample, nats.
        lengths_S: Scored tokens of each sample.
    """
    return -log_probs_S.sum() / lengths_S.sum().clamp(min=1)
