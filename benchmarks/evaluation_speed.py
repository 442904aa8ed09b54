"""Claim: the gate's evaluation costs at most a third of lm-eval's plain HF run of the same items, with equal scores.

Both ways are lm-eval's own run of the same items in one process: ours with the model class of `evaluation.harness` in
batches of --items, the plain way with lm-eval's HFLM, at its default batch size 1 and at larger ones. The ways take
turns; a time is the median of --repeats, in CPU seconds of the process. The last rows add up all suites at their full
number of items. Left out: reading and building items, loading the model, and what a sequential evaluation saves.

    OMP_NUM_THREADS=1 python benchmarks/evaluation_speed.py assets/smollm2-135m-instruct --items 32 --repeats 3
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from metagdpo.evaluation import harness
from metagdpo.evaluation.items import build_items
from metagdpo.evaluation.suite import Suite, load_suites
from metagdpo.models.load import load_model, load_tokenizer

OURS = "ours"


def main() -> None:
    """Print one line for each suite and way, and the sums."""
    parser = argparse.ArgumentParser(description="Cost of an evaluation, ours against plain lm-eval.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--registry", type=Path, default=Path("registry/suites"))
    parser.add_argument("--suites", nargs="*", help="only these; all without it")
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32], help="of the plain way")
    arguments = parser.parse_args()
    model, tokenizer = load_model(arguments.model, "float32"), load_tokenizer(arguments.model)
    ways = {OURS: harness._language_model(model, tokenizer, batch_size=32)}  # noqa: SLF001  (what is measured)
    from lm_eval.models.huggingface import HFLM

    for size in arguments.batch_sizes:
        ways[f"plain, batch {size}"] = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, device="cpu")
    totals = dict.fromkeys(ways, 0.0)
    print("| suite | way | CPU s an item | ours / plain | equal answers | largest difference, nats |")
    print("|---|---|---|---|---|---|")
    for suite in load_suites(arguments.registry):
        if arguments.suites and suite.name not in arguments.suites:
            continue
        items = build_items(suite, arguments.assets)
        seconds, samples = measure(suite, items[: arguments.items], ways, arguments.repeats)
        for way, spent in seconds.items():
            each = spent / min(len(items), arguments.items)
            totals[way] += each * len(items)
            same, apart = compare(suite, samples[OURS], samples[way])
            ratio = f"{seconds[OURS] / spent:.2f}"
            print(f"| {suite.name} | {way} | {each:.3f} | {ratio} | {same:.0%} | {apart:.1e} |", flush=True)
    for way, total in totals.items():
        print(f"| all items of these suites | {way} | {total:.0f} in all | {totals[OURS] / total:.2f} | | |")


def measure(suite: Suite, items: Any, ways: dict[str, Any], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median CPU seconds and lm-eval's samples of every way; the ways take turns."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    samples = {}
    for _ in range(repeats):
        for way, lm in ways.items():
            start = time.process_time()
            samples[way] = harness._samples(suite, items, lm)  # noqa: SLF001  (as above)
            seconds[way].append(time.process_time() - start)
    return {way: statistics.median(values) for way, values in seconds.items()}, samples


def compare(suite: Suite, ours: Any, theirs: Any) -> tuple[float, float]:
    """Share of items with the same choices or the same text; largest difference of log-likelihoods."""
    pairs = [(one["filtered_resps"], other["filtered_resps"]) for one, other in zip(ours, theirs, strict=True)]
    if suite.form == "generate":
        return statistics.mean(one == other for one, other in pairs), 0.0
    logs = [([v for v, _ in one], [v for v, _ in other]) for one, other in pairs]
    lengths = [[len(option) for option in sample["doc"]["options"]] for sample in ours]
    same = [choices(one, n) == choices(other, n) for (one, other), n in zip(logs, lengths, strict=True)]
    return statistics.mean(same), max(abs(a - b) for one, other in logs for a, b in zip(one, other, strict=True))


def choices(values: list[float], lengths: list[int]) -> tuple[int, int]:
    """Positions chosen by log-likelihood and by log-likelihood per character."""
    per_character = [value / length for value, length in zip(values, lengths, strict=True)]
    return values.index(max(values)), per_character.index(max(per_character))


if __name__ == "__main__":
    main()
