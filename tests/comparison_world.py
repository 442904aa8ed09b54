"""A comparison as it might come out: eight methods, three seeds, a target and four retained suites, from one draw.

Items have a difficulty that all runs share; a method moves the chance of losing or gaining an item, a seed adds to it.
"""

import numpy as np

from metagdpo.records.comparison import RunResult
from metagdpo.records.drift import Drift
from metagdpo.records.paired import PairedScore
from metagdpo.records.training_cost import TrainingCost
from metagdpo.records.verdict import SuiteFinding

SUITES = {
    "addition": ("target", "adding and subtracting two two-digit numbers", 0.0),
    "piqa": ("required", "physical common sense", 0.66),
    "stereoset": ("required", "telling a sensible continuation of a sentence from an unrelated one", 0.79),
    "string_insertion": ("required", "copying a short string exactly, under a long rule that seldom applies", 0.55),
    "word_reversal": ("required", "reversing the order of words", 0.62),
}
# label, chance of learning an item of the target, chance of losing a known item, drift in nats a token.
METHODS = {
    "sft": ("SFT", 0.62, 0.19, 0.31),
    "sft-cfs": ("SFT + CFS", 0.58, 0.05, 0.06),
    "sft-sa": ("SFT + SA-SFT", 0.59, 0.09, 0.12),
    "sft-wise": ("SFT, Wise-FT", 0.45, 0.06, 0.09),
    "dpo": ("DPO", 0.21, 0.12, 0.22),
    "gdpo-unweighted": ("GDPO without weights", 0.26, 0.06, 0.08),
    "gdpo": ("GDPO", 0.28, 0.07, 0.09),
    "gdpo-cfs": ("GDPO + CFS", 0.24, 0.02, 0.02),
}
SEEDS = (1, 2, 3)
N_ITEMS = 200
LABELS = {name: label for name, (label, *_) in METHODS.items()}


def finding(suite, tier="required", difference=0.0, skill="", **changed):
    values = {
        "suite": suite,
        "tier": tier,
        "skill": skill or f"skill of {suite}",
        "n_items": N_ITEMS,
        "n_planned": N_ITEMS,
        "before": 0.5,
        "candidate": min(1.0, max(0.0, 0.5 + difference)),
        "difference": difference,
        "low": difference - 0.03,
        "high": difference + 0.03,
        "lost": 4,
        "gained": 4,
        "margin": 0.0 if tier == "target" else 0.04,
        "chance": 0.0,
        "method": "exact",
        "p_non_inferior": 0.5,
        "p_worse": 0.5,
        "outcome": "undecided",
        "power_if_unchanged": 0.8,
        "items_needed": None,
    }
    return SuiteFinding(**values | changed)


def result(method, seed, findings=None, kl=0.05, label=None, **changed):
    values = {
        "method": method,
        "label": label or METHODS.get(method, (method,))[0],
        "seed": seed,
        "decision": "INCONCLUSIVE",
        "reasons": ("nothing is proven.",),
        "findings": tuple(findings) if findings is not None else (finding("a"),),
        "drift": Drift(kl_per_token=kl, low=0.8 * kl, high=1.2 * kl, n_samples=32, n_tokens=3000),
        "cost": TrainingCost(
            n_steps=20, n_tokens=8000 + seed, n_sampled_tokens=0, seconds=100.0 + seed, peak_memory_gb=1.5
        ),
        "alpha": 1.0,
        "run_key": f"sha256:{method}-{seed}",
    }
    return RunResult(**values | changed)


def scores(before, candidate, clusters=None):
    """Paired scores from two lists; items are named by their place."""
    return [
        PairedScore(item_id=f"i{i}", before=float(b), candidate=float(c), cluster=clusters[i] if clusters else None)
        for i, (b, c) in enumerate(zip(before, candidate, strict=True))
    ]


def world(methods=METHODS, seeds=SEEDS, n_items=N_ITEMS):
    """Runs and pairs of the whole comparison; equal arguments give equal numbers."""
    rng = np.random.default_rng(20261121)
    ease = {suite: rng.normal(size=n_items) for suite in SUITES}
    known = {suite: (rng.random(n_items) < base).astype(float) for suite, (_, _, base) in SUITES.items()}
    runs, pairs = [], {}
    for method, (label, learn, lose, kl) in methods.items():
        for seed in seeds:
            luck = 1 + 0.15 * rng.normal()
            tables, findings = {}, []
            for suite, (tier, skill, _) in SUITES.items():
                hard = rng.normal(size=n_items) * 0.6 + ease[suite]
                before = known[suite]
                if tier == "target":
                    after = (hard < np.quantile(hard, learn * luck)).astype(float)
                else:
                    lost, gained = hard > np.quantile(hard, 1 - lose * luck), hard < np.quantile(hard, 0.03)
                    after = np.where(before == 1, ~lost, gained).astype(float)
                tables[suite] = scores(before, after)
                change = float((after - before).mean())
                findings.append(finding(suite, tier, change, skill))
            pairs[method, seed] = tables
            worst = min(f.difference for f in findings[1:])
            decision = "BLOCK" if worst < -0.08 else "PROMOTE" if worst > -0.025 else "INCONCLUSIVE"
            drift = kl * luck
            runs.append(
                result(
                    method,
                    seed,
                    findings,
                    kl=drift,
                    label=label,
                    decision=decision,
                    alpha=round(0.4 + 0.2 * (seed % 3), 1) if method == "sft-wise" else 1.0,
                    cost=TrainingCost(
                        n_steps=20,
                        n_tokens=8000 + 37 * seed,
                        n_sampled_tokens=0,
                        seconds=90.0 + 40 * len(label) / 5 + seed,
                        peak_memory_gb=1.4 + 0.02 * len(label),
                    ),
                )
            )
    return runs, pairs
