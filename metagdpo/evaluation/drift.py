"""Drift: how far the candidate has moved from the base, in nats a token on text that the base wrote from nothing.

    KL(p_base || p_candidate) = E_base[ log p_base(y) - log p_candidate(y) ] / E_base[ tokens of y ]

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
        raise EvidenceError(f"drift: {m} sample(s) tell nothing about the spread. Raise `preserve.n_held_out`.")
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
