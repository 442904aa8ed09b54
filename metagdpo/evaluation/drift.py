"""Drift: how far the candidate has moved from the base, in nats a token on text that the base wrote from nothing.

    KL(p_base || p_candidate) = E_base[ log p_base(y) - log p_candidate(y) ] / E_base[ tokens of y ]

The log-ratio's expectation given the text so far is the KL of the next token, so that sums of these over a text have
the same mean and, in practice, half the interval: they are the drift, the log-ratios are reported beside it.

The samples y must come from the base at temperature 1 without truncation, otherwise the mean estimates something else.
Tokens of one sample depend on each other, so samples, not tokens, are the independent units of the interval.

Home of: KL(p_base || p_candidate) on held-out context-free text (CFS, arXiv 2505.13811; method note 2.3)
"""

from collections.abc import Sequence

import numpy as np

from metagdpo.errors import EvidenceError
from metagdpo.records.drift import Drift

LEVEL = 0.95


def estimate_drift(
    base_log_probs: Sequence[float], candidate_log_probs: Sequence[float], n_tokens: Sequence[int]
) -> Drift:
    """Ratio estimate of the KL divergence per token, with an interval clustered by sample.

    Args:
        base_log_probs: log p_base of each sample, summed over its tokens, nats.
        candidate_log_probs: log p_candidate of the same samples, nats.
        n_tokens: Scored tokens of each sample.

    Returns:
        R = sum_i x_i / sum_i n_i with x_i the log-ratio of sample i, and R -+ t SE with the linearised variance
        m / (m - 1) sum_i (x_i - R n_i)^2 / (sum_i n_i)^2 over m samples (Cochran, Sampling Techniques, chapter 6).
        The lower end may be negative: sampling noise is shown, not cut off.

    Raises:
        EvidenceError: Fewer than two samples, lengths that differ, a sample without tokens, or a value not finite.
    """
    from scipy.stats import t

    m = len(n_tokens)
    if not len(base_log_probs) == len(candidate_log_probs) == m:
        counts = f"{len(base_log_probs)}, {len(candidate_log_probs)} and {m}"
        raise EvidenceError(f"drift: base, candidate and token counts are of {counts} samples. Rerun `dvc repro gate`.")
    if m < 2:  # noqa: PLR2004
        message = f"drift: {m} sample(s) tell nothing about the spread. Raise `preserve.context_free.n_held_out`."
        raise EvidenceError(message)
    base, candidate = np.asarray(base_log_probs, dtype=np.float64), np.asarray(candidate_log_probs, dtype=np.float64)
    n = np.asarray(n_tokens, dtype=np.float64)
    for name, values, good in (
        ("base log-probability", base, np.isfinite(base)),
        ("candidate log-probability", candidate, np.isfinite(candidate)),
        ("token count", n, n > 0),
    ):
        if not good.all():
            first = int(np.flatnonzero(~good)[0])
            raise EvidenceError(f"drift: {name} of sample {first} is {values[first]}. Sample and score it again.")
    x = base - candidate
    ratio = x.sum() / n.sum()
    variance = m / (m - 1) * ((x - ratio * n) ** 2).sum() / n.sum() ** 2
    half = t.ppf((1 + LEVEL) / 2, df=m - 1) * np.sqrt(variance)
    return Drift(
        kl_per_token=float(ratio),
        low=float(ratio - half),
        high=float(ratio + half),
        n_samples=m,
        n_tokens=int(n.sum()),
    )


def drift_of(exact: Sequence[float], log_ratios: Sequence[float], n_tokens: Sequence[int]) -> Drift:
    """The drift by next-token divergences, with the log-ratio estimate of the same quantity beside it.

    Args:
        exact: Sum over each sample's tokens of KL(base || candidate) of the next token, nats.
        log_ratios: log p_base - log p_candidate of each sample, nats.
        n_tokens: Scored tokens of each sample.

    Raises:
        EvidenceError: As `estimate_drift`.
    """
    nothing = [0.0] * len(n_tokens)
    drawn = estimate_drift(log_ratios, nothing, n_tokens)
    ratios = {"log_ratio": drawn.kl_per_token, "log_ratio_low": drawn.low, "log_ratio_high": drawn.high}
    return estimate_drift(exact, nothing, n_tokens).model_copy(update=ratios)
