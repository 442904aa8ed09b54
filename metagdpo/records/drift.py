"""Drift: how far the candidate has moved from the base on context-free text."""

from metagdpo.schema import Frozen


class Drift(Frozen):
    """KL(base || candidate) per token on held-out samples of the base (CFS, arXiv 2505.13811); unbiased at T = 1."""

    kl_per_token: float
    """Nats a token: sum over samples and tokens of the KL of the next token over the whole vocabulary, by the tokens.
    In verdicts of earlier versions, which have no `log_ratio`, this was the log-ratio."""
    low: float
    high: float
    """95 % interval of the ratio estimator, clustered by sample."""
    n_samples: int
    n_tokens: int
    log_ratio: float | None = None
    """The same quantity from the drawn tokens alone, log p_base - log p_candidate: as CFS states it, and noisier."""
    log_ratio_low: float | None = None
    log_ratio_high: float | None = None


class DriftSample(Frozen):
    """One held-out sample's share of the drift."""

    key: str
    nats_per_token: float
    """KL of the next token over the whole vocabulary, mean over its tokens."""
    log_ratio: float | None = None
    """(log p_base - log p_candidate) / tokens."""
