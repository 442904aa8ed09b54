"""Drift: how far the candidate has moved from the base on context-free text."""

from metagdpo.schema import Frozen


class Drift(Frozen):
    """KL(base || candidate) per token, estimated on held-out samples of the base (CFS, method note 2.3)."""

    kl_per_token: float
    """Nats a token: sum over samples of (log p_base - log p_candidate) / sum of tokens. Unbiased only at T = 1."""
    low: float
    high: float
    """95 % interval of the ratio estimator, clustered by sample."""
    n_samples: int
    n_tokens: int


class DriftSample(Frozen):
    """One held-out sample's share of the drift."""

    key: str
    nats_per_token: float
    """(log p_base - log p_candidate) / tokens."""
