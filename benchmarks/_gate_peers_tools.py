"""Every gate as one function from pairs and a margin to promote, block or undecided.

Installed peers are called through their own functions, with their defaults unless a name says otherwise. Three peers
cannot be installed and are restated here from what they publish; each of those functions names its source. A restated
peer shows what its rule decides, not how its program behaves.
"""

import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from metagdpo.records.paired import PairedScore

Floats = npt.NDArray[np.float64]
Outcome = Literal["promote", "block", "undecided"]
RESAMPLES = 2000
"""Bootstrap draws of evalsig where it uses a loop; its default is 10,000."""
PEERS = {"statgate": "0.1.1", "evalsig": "0.1.2", "finetunecheck": "2.0.2"}
"""What is installed from PyPI, and the version that this script was written against."""


class Pairs(NamedTuple):
    """Scores of the base and of the candidate on the same items, in 0..1."""

    before: Floats
    candidate: Floats
    clusters: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Tool:
    """One way to decide."""

    name: str
    """As in the tables; a percentage is the error rate promised to each side."""
    judge: Callable[[Pairs, float], Outcome]
    package: str | None = None
    """Distribution that must be installed."""
    flips_only: bool = True
    """Whether the decision on right-or-wrong items depends on the numbers of items, losses and gains alone."""
    binary_only: bool = False
    level: float | None = 0.05
    """Promised rate of false promotion at the margin; None where the tool promises none."""

    @property
    def there(self) -> bool:
        """Whether it can be run here."""
        return self.package is None or installed(self.package) is not None


def installed(package: str) -> str | None:
    """Version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def how_to_install() -> str:
    """Lines that make the missing peers importable without touching the environment; empty when none is missing."""
    missing = [f"{name}=={version}" for name, version in PEERS.items() if installed(name) is None]
    if not missing:
        return ""
    return (
        f"Left out, not installed: {', '.join(missing)}. To have them:\n"
        f"  pip install --no-deps --target /tmp/gate-peers {' '.join(missing)}\n"
        "  PYTHONPATH=/tmp/gate-peers python benchmarks/gate_peers.py"
    )


def ours(alpha: float) -> Callable[[Pairs, float], Outcome]:
    """The test of metagdpo.gate.hypotheses."""

    def judge(pairs: Pairs, margin: float) -> Outcome:
        p_non_inferior, p_worse = p_values(pairs, margin)
        if p_non_inferior <= alpha:
            return "promote"
        return "block" if p_worse <= alpha else "undecided"

    return judge


def p_values(pairs: Pairs, margin: float) -> tuple[float, float]:
    """What `hypotheses.compare` decides on, without the interval, which costs most of its time and decides nothing."""
    from metagdpo.gate import betting, hypotheses

    claim = hypotheses.absolute(margin)
    scores = paired_scores(pairs)
    if hypotheses.method_for(scores, claim) == "exact":
        return exact_p_values(*hypotheses.counts(scores), margin)
    before, candidate, clusters = hypotheses.arrays(scores)
    excess, lowest, highest = hypotheses.claimed(before, candidate, claim)
    passes = betting.p_positive(excess, lowest, highest, clusters)
    return passes, betting.p_positive(-excess, -highest, -lowest, clusters)


@cache
def exact_p_values(n: int, lost: int, gained: int, margin: float) -> tuple[float, float]:
    """Of the exact test, for both claims."""
    from metagdpo.gate import paired

    return paired.exact_p_non_inferior(n, lost, gained, margin), paired.exact_p_worse(n, lost, gained, margin)


def paired_scores(pairs: Pairs) -> list["PairedScore"]:
    """As the gate takes them."""
    from metagdpo.records.paired import PairedScore

    clusters = pairs.clusters or [None] * len(pairs.before)
    rows = zip(pairs.before.tolist(), pairs.candidate.tolist(), clusters, strict=True)
    return [
        PairedScore(item_id=str(i), before=before, candidate=candidate, cluster=cluster)
        for i, (before, candidate, cluster) in enumerate(rows)
    ]


def statgate(alpha: float, *, by_cluster: bool = False) -> Callable[[Pairs, float], Outcome]:
    """`statgate compare --alpha`; by cluster: the items of a passage are given as runs of one case."""

    def judge(pairs: Pairs, margin: float) -> Outcome:
        from statgate.config import GateSettings
        from statgate.records import EvalRecord
        from statgate.verdict import evaluate_gate

        clusters = pairs.clusters if by_cluster and pairs.clusters else [str(i) for i in range(len(pairs.before))]
        sides = [
            [
                EvalRecord(case_id=case, run_index=i, score=float(value))
                for i, (case, value) in enumerate(zip(clusters, values, strict=True))
            ]
            for values in (pairs.before, pairs.candidate)
        ]
        settings = GateSettings(alpha=alpha, margin=margin, seed=0, permutations=100)  # its p-value never decides
        verdict = evaluate_gate(sides[0], sides[1], settings).verdict.value
        return {"SHIP": "promote", "BLOCK": "block"}.get(verdict, "undecided")  # type: ignore[return-value]  # of three

    return judge


def nel_gate(pairs: Pairs, margin: float) -> Outcome:
    """`nel gate` of NeMo Evaluator, restated.

    Source: NVIDIA-NeMo/Evaluator, engine/gate.py at 01b9028 and metrics/confidence.py at 16f5384.
    A two-sided 95 % interval of the mean difference (Student's t; with a category on every item a cluster-robust
    standard error and the normal quantile), compared with `max_drop`; fewer than 10 items are insufficient.
    """
    from scipy import stats

    difference = pairs.candidate - pairs.before
    n, mean = len(difference), float(difference.mean())
    if n < 10:
        return "undecided"
    if pairs.clusters is not None and len(set(pairs.clusters)) > 1:
        sums = cluster_sums(difference - mean, pairs.clusters)
        groups = len(sums)
        half = stats.norm.ppf(0.975) * math.sqrt(groups / (groups - 1) * float((sums**2).sum())) / n
    else:
        half = stats.t.ppf(0.975, n - 1) * float(difference.std(ddof=1)) / math.sqrt(n)
    low, high = round(mean - half, 6), round(mean + half, 6)
    if -high > margin:
        return "block"
    return "promote" if -low <= margin else "undecided"


def nel_compare(pairs: Pairs, margin: float) -> Outcome:
    """`nel compare --strict --max-drop`, restated for right-or-wrong items; WARN counts as undecided.

    Source: NVIDIA-NeMo/Evaluator, engine/comparison.py at 01fbb57. One-sided exact McNemar test at 5 %; BLOCK when
    significant and the net loss exceeds `max_drop`; INCONCLUSIVE when 2.8 / sqrt(flips) is above ten times `max_drop`.
    """
    lost, gained = flips(pairs)
    if lost + gained == 0:
        return "promote"
    if round(mcnemar_p(lost, gained), 6) < 0.05:
        return "block" if (lost - gained) / len(pairs.before) > margin else "undecided"
    return "undecided" if 2.8 / math.sqrt(lost + gained) > 10 * margin else "promote"


def evalsig_gate(pairs: Pairs, margin: float) -> Outcome:
    """`evalsig gate --min-delta`: asks whether the candidate is better, by at least the number given."""
    from evalsig.compare.gate import gate

    verdict = gate(*run_frames(pairs), min_delta=margin, n_resamples=RESAMPLES).verdict.value
    return {"ALLOW": "promote", "REJECT": "block"}.get(verdict, "undecided")  # type: ignore[return-value]  # of three


def evalsig_interval(pairs: Pairs, margin: float) -> Outcome:
    """The 90 % interval of `evalsig compare --alpha 0.1`, held against the margin by the reader."""
    from evalsig.compare.compare import compare

    cluster = None if pairs.clusters is None else "passage"
    low, high = compare(*run_frames(pairs), alpha=0.1, cluster=cluster, n_resamples=RESAMPLES).ci
    if low > -margin:
        return "promote"
    return "block" if high < -margin else "undecided"


def degradation_test(pairs: Pairs, _margin: float) -> Outcome:
    """One-sided exact McNemar test at 5 %, restated; "not flagged" counts as promote, though the paper proves no such.

    Source: Kuebler et al., "When LLMs get significantly worse", arXiv 2602.10144.
    """
    return "block" if mcnemar_p(*flips(pairs)) <= 0.05 else "promote"


def unpaired_z(pairs: Pairs, _margin: float) -> Outcome:
    """The two-sided unpaired z-test of lm-eval's scripts/model_comparator.py at 1c62da1, restated; p > 0.05 passes."""
    from scipy import stats

    n = len(pairs.before)
    error = math.sqrt(sum(float(side.var(ddof=1)) / n for side in (pairs.before, pairs.candidate)))
    difference = float((pairs.candidate - pairs.before).mean())
    if error == 0:  # 0 / 0: lm-eval's p is NaN, and NaN > alpha is false
        return "block"
    different = 2 * stats.norm.sf(abs(difference) / error) <= 0.05
    return "block" if different and difference < 0 else "promote"


def retention(pairs: Pairs, _margin: float) -> Outcome:
    """List of affected capabilities of finetunecheck: those that kept less than 95 % of the base's mean score."""
    from finetunecheck.forgetting.detector import ForgettingDetector

    if len(pairs.before) < 20:  # its runner calls fewer samples insufficient evidence
        return "undecided"
    rates = retention_rates([pairs])
    affected, resilient = ForgettingDetector.identify_affected_capabilities(rates)
    return "block" if affected else "promote" if resilient else "undecided"


def retention_rates(suites: Sequence[Pairs]) -> dict[str, float | None]:
    """Its capability retention rate of each suite."""
    from finetunecheck.forgetting.metrics import capability_retention_rate
    from finetunecheck.models import CategoryScore, MeasurementStatus

    sides = [
        {
            f"suite {i}": CategoryScore(
                category=f"suite {i}",
                mean_score=float(side.mean()),
                num_samples=len(side),
                status=MeasurementStatus.MEASURED,
            )
            for i, side in enumerate(chosen)
        }
        for chosen in ([pairs.before for pairs in suites], [pairs.candidate for pairs in suites])
    ]
    rates: dict[str, float | None] = capability_retention_rate(sides[0], sides[1])
    return rates


TOOLS: Mapping[str, Tool] = {
    "ours": Tool("metagdpo 5 %", ours(0.05)),
    "ours_half": Tool("metagdpo 2.5 %", ours(0.025), level=0.025),
    "nel_gate": Tool("nel gate 2.5 %", nel_gate, level=0.025),
    "statgate": Tool("statgate 2.5 %", statgate(0.05), "statgate", level=0.025),
    "statgate_5": Tool("statgate 5 %", statgate(0.1), "statgate"),
    "statgate_cases": Tool("statgate 5 %, passage = case", statgate(0.1, by_cluster=True), "statgate"),
    "evalsig_interval": Tool("evalsig interval 5 %", evalsig_interval, "evalsig"),
    "evalsig_gate": Tool("evalsig gate", evalsig_gate, "evalsig", level=None),
    "nel_compare": Tool("nel compare", nel_compare, binary_only=True, level=None),
    "mcnemar": Tool("McNemar, not flagged", degradation_test, binary_only=True, level=None),
    "z": Tool("lm-eval z", unpaired_z, flips_only=False, level=None),
    "retention": Tool("finetunecheck 95 %", retention, "finetunecheck", flips_only=False, level=None),
}


def all_suites(name: str) -> Callable[[Sequence[Pairs], float], Outcome]:
    """One decision over several suites, as each tool makes it."""
    return {
        "ours": lambda suites, margin: strictest([TOOLS["ours"].judge(suite, margin) for suite in suites]),
        "nel_gate": lambda suites, margin: strictest([nel_gate(suite, margin) for suite in suites]),
        "statgate_5": lambda suites, margin: TOOLS["statgate_5"].judge(pooled(suites), margin),
        "evalsig_interval": lambda suites, margin: evalsig_interval(pooled(suites), margin),
        "mcnemar": lambda suites, margin: degradation_test(pooled(suites), margin),
        "z": lambda suites, margin: strictest([unpaired_z(suite, margin) for suite in suites]),
        "retention": lambda suites, _: pattern(suites),
    }[name]


def strictest(outcomes: Sequence[Outcome]) -> Outcome:
    """Intersection-union: one block blocks, all must pass; metagdpo and `nel gate` do the same here."""
    return "block" if "block" in outcomes else "undecided" if "undecided" in outcomes else "promote"


def pattern(suites: Sequence[Pairs]) -> Outcome:
    """Forgetting pattern of finetunecheck over all suites: MINIMAL passes, CATASTROPHIC and SELECTIVE block."""
    from finetunecheck.forgetting.detector import ForgettingDetector
    from finetunecheck.forgetting.metrics import selective_forgetting_index

    rates = retention_rates(suites)
    change = float(np.mean([suite.candidate.mean() - suite.before.mean() for suite in suites]))
    found = ForgettingDetector.classify_pattern(rates, change, selective_forgetting_index(rates)).name
    return "promote" if found == "MINIMAL" else "undecided" if found == "GRADUAL" else "block"


def pooled(suites: Sequence[Pairs]) -> Pairs:
    """All items as one suite."""
    return Pairs(
        np.concatenate([suite.before for suite in suites]), np.concatenate([suite.candidate for suite in suites])
    )


def flips(pairs: Pairs) -> tuple[int, int]:
    """Items lost and gained."""
    return int((pairs.before > pairs.candidate).sum()), int((pairs.before < pairs.candidate).sum())


@cache
def mcnemar_p(lost: int, gained: int) -> float:
    """P(at least so many losses | flips) when both directions are equally likely."""
    from scipy import stats

    return float(stats.binom.sf(lost - 1, lost + gained, 0.5))


def cluster_sums(values: Floats, clusters: Sequence[str]) -> Floats:
    """Sum of the values of each cluster."""
    _, index = np.unique(np.array(clusters), return_inverse=True)
    return np.bincount(index, weights=values).astype(np.float64)


def run_frames(pairs: Pairs) -> tuple[object, object]:
    """Both sides as evalsig reads them."""
    from evalsig.types import ItemResult, RunFrame

    clusters = pairs.clusters or [None] * len(pairs.before)
    base, candidate = (
        RunFrame(
            run_id=name,
            model_id=name,
            task_id="suite",
            metric_name="accuracy",
            items=[
                ItemResult(item_id=f"{i:06}", score=float(value), cluster_id=cluster)
                for i, (value, cluster) in enumerate(zip(values, clusters, strict=True))
            ],
        )
        for name, values in (("base", pairs.before), ("candidate", pairs.candidate))
    )
    return base, candidate
