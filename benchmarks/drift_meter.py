"""What the drift meter is worth: three estimates of KL(base || candidate) a token, on the same samples of the base.

Given the text so far, each token y has a conditional divergence, and three numbers have it as their mean over y ~ p_0:

    log-ratio    log p_0(y) - log p(y)               the gate's meter
    corrected    r - 1 - log r, r = p(y) / p_0(y)     never negative; E[r - 1] = 0 (Schulman's k3)
    exact        KL(p_0(.) || p(.))                   a sum over the vocabulary (arXiv 2504.10637)

So their sums over a text share one expectation, by the law of total expectation token by token, as long as the text is
the base's own at T = 1. That the exact one is the narrowest is no theorem: the divergences of later tokens depend on
which earlier ones were drawn (tests/benchmarks/test_drift_meter.py has a model where it is the widest).

Prints: the estimates on text drawn at T = 1, T = 0.7 and top-p 0.9 and on the text that the candidate was trained on;
width and coverage of their intervals against the number of samples; what each costs in processor time.
Left out: models that do not fit into memory twice, and what the candidate forgot.

    OMP_NUM_THREADS=1 python benchmarks/drift_meter.py assets/smollm2-135m-instruct models/candidate
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metagdpo.evaluation.drift import estimate_drift
from metagdpo.models import chat
from metagdpo.models.load import load_model, load_tokenizer
from metagdpo.models.local import decode
from metagdpo.models.port import Sampling, derived_seed
from metagdpo.records.drift import Drift
from metagdpo.schema import write_json

METERS = ("log-ratio", "corrected", "exact")
ARMS = {"T = 1": (1.0, 1.0), "T = 0.7": (0.7, 1.0), "top-p 0.9": (1.0, 0.9)}
UNBIASED = "T = 1"
RESAMPLES = 2000


def main() -> None:
    """Draw, score, print; what a results file has already is not computed again."""
    parser = argparse.ArgumentParser(description="What the drift meter is worth.")
    parser.add_argument("base", type=Path)
    parser.add_argument("candidate", type=Path)
    parser.add_argument("--held-out", type=Path, default=Path("data/context_free_held_out.jsonl"))
    parser.add_argument("--trained", type=Path, default=Path("data/context_free_train.jsonl"))
    parser.add_argument("--samples", type=int, default=64, help="drawn for each way of sampling")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--results", type=Path, help="scores are kept here, arm by arm")
    arguments = parser.parse_args()
    arms = dict(scored_arms(arguments))
    pool = np.concatenate([arms["held-out"], arms[UNBIASED]])
    print("\n".join(estimates({**arms, "held-out and T = 1": pool})), flush=True)
    print("\n".join(widths(pool, arguments.sizes)))


def scored_arms(arguments: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Each arm's name and its scores: rows of samples; columns `log-ratio`, `corrected`, `exact`, tokens."""
    known = json.loads(arguments.results.read_text()) if arguments.results and arguments.results.exists() else {}
    models: list[Any] = []
    prefix, held_out = read_texts(arguments.held_out)
    texts = {"held-out": held_out, "trained on": read_texts(arguments.trained)[1]}
    for arm in (*texts, *ARMS):
        if arm not in known:
            models = models or load(arguments.base, arguments.candidate)
            drawn = texts.get(arm) or draw(models[0], models[2], prefix, arm, arguments)
            known[arm] = score(models[0], models[1], prefix, drawn, arm).tolist()
            if arguments.results:
                write_json(arguments.results, known)
        yield arm, np.array(known[arm])


def load(base: Path, candidate: Path) -> list[Any]:
    """Base, candidate, and the ids that end a text."""
    from metagdpo.training.model import load_candidate

    model = load_model(base, "float32")
    return [model, load_candidate(candidate, base, "float32"), chat.stop_ids(load_tokenizer(base), model)]


def read_texts(path: Path) -> tuple[list[int], list[list[int]]]:
    """The start symbol and the sampled tokens of a file of context-free samples, of any version."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return rows[0]["prefix_ids"], [row["token_ids"] for row in rows]


def draw(model: Any, stops: frozenset[int], prefix: list[int], arm: str, arguments: argparse.Namespace) -> list[Any]:
    """What the base writes from the start symbol alone; every sample's seed derives from arm and index."""
    temperature, top_p = ARMS[arm]
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=arguments.tokens)
    seeds = [derived_seed("drift_meter", arm, index) for index in range(arguments.samples)]
    texts: list[list[int]] = []
    start = time.process_time()
    for at in range(0, len(seeds), arguments.batch):
        part = seeds[at : at + arguments.batch]
        rows = {row: tokens for row, tokens, _ in decode(model, [prefix] * len(part), part, sampling, stops)}
        texts += [rows[row] for row in range(len(part))]
    spent, n_tokens = time.process_time() - start, sum(map(len, texts))
    print(f"{arm}: drew {n_tokens} tokens in {spent:.0f} s, {n_tokens / spent:.0f} tokens/s", flush=True)
    return texts


def score(base: Any, candidate: Any, prefix: list[int], texts: Sequence[list[int]], arm: str) -> np.ndarray:
    """Sums of each meter over a text's tokens, and the number of tokens: [samples, 4], nats."""
    import torch

    from metagdpo.training.collate import TokenSequence, make_batch, make_families, pack
    from metagdpo.training.divergence import token_kl
    from metagdpo.training.logprobs import Scorer, token_log_probs

    scorers = Scorer(base), Scorer(candidate)
    sequences = [TokenSequence(str(i), tuple(prefix), tuple(text)) for i, text in enumerate(texts)]
    families = make_families(sequences, shared_prompt=False)
    found, spent = np.zeros((len(texts), 4)), dict.fromkeys(("two models", "their log-probs", "exact"), 0.0)
    for chosen in pack([family.n_tokens for family in families], 2048, padded=not scorers[0].packed):
        batch = make_batch(sequences, [families[i] for i in chosen], packed=scorers[0].packed)
        with torch.no_grad():
            clock = [time.process_time()]
            (base_ND, base_VD), (hidden_ND, head_VD) = (scorer.hidden(batch) for scorer in scorers)
            clock.append(time.process_time())
            first_N = token_log_probs(base_ND, base_VD, batch.target_N).double()
            ratio_N = first_N - token_log_probs(hidden_ND, head_VD, batch.target_N).double()
            clock.append(time.process_time())
            kl_N = token_kl(hidden_ND, head_VD, base_ND, base_VD).double()
            clock.append(time.process_time())
        for part, name in enumerate(spent):
            spent[name] += clock[part + 1] - clock[part]
        columns_N4 = torch.stack([ratio_N, torch.expm1(-ratio_N) + ratio_N, kl_N, torch.ones_like(kl_N)], dim=1)
        sums_S4 = columns_N4.new_zeros(len(batch.members), 4).index_add(0, batch.owner_N, columns_N4)
        found[list(batch.members)] = sums_S4.numpy()
    print(f"{arm}: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent.items()), flush=True)
    return found


def drift(scores: np.ndarray, meter: int) -> Drift:
    """The gate's own estimate and interval, of one meter's sums [samples, 4]."""
    return estimate_drift(scores[:, meter].tolist(), np.zeros(len(scores)).tolist(), scores[:, 3].tolist())


def estimates(arms: dict[str, np.ndarray]) -> Iterator[str]:
    """Lines of a Markdown table: every meter on every arm, 10^-3 nats a token."""
    yield "\n| text | samples | tokens | " + " | ".join(METERS) + " | interval, log-ratio / exact |"
    yield "|---|--:|--:|" + "---|" * len(METERS) + "--:|"
    for arm, scores in arms.items():
        found = [drift(scores, meter) for meter in range(len(METERS))]
        cells = [f"{1e3 * d.kl_per_token:.1f} [{1e3 * d.low:.1f}, {1e3 * d.high:.1f}]" for d in found]
        narrower = (found[0].high - found[0].low) / (found[2].high - found[2].low)
        yield f"| {arm} | {len(scores)} | {found[0].n_tokens} | " + " | ".join(cells) + f" | {narrower:.2f} |"


def widths(pool: np.ndarray, sizes: Sequence[int]) -> Iterator[str]:
    """Lines of a Markdown table: mean width, and how often the interval holds the pool's value, over resamples."""
    yield "\n| samples | " + " | ".join(f"{name}: width | holds" for name in METERS) + " |"
    yield "|--:|" + "--:|--:|" * len(METERS)
    rng = np.random.default_rng(0)
    for n in sizes:
        cells = []
        chosen = rng.integers(len(pool), size=(RESAMPLES, n))
        for meter in range(len(METERS)):
            width, holds = resampled(pool, meter, chosen)
            cells.append(f"{1e3 * width:.1f} | {100 * holds:.0f} %")
        yield f"| {n} | " + " | ".join(cells) + " |"


def resampled(pool: np.ndarray, meter: int, chosen: np.ndarray) -> tuple[float, float]:
    """Mean width, nats a token, and coverage of the pool's value, of the intervals of resamples of a pool.

    Args:
        pool: Sums, [samples, 4].
        meter: Column.
        chosen: Rows of the pool, [resamples, samples of one].
    """
    exact = pool[:, meter].sum() / pool[:, 3].sum()
    found = [drift(pool[rows], meter) for rows in chosen]
    holds = np.mean([each.low <= exact <= each.high for each in found])
    return float(np.mean([each.high - each.low for each in found])), float(holds)


if __name__ == "__main__":
    main()
