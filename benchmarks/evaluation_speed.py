"""Claim: multiple-choice items cost a fraction of plain lm-eval HF time, with the same decisions.

Both ways score the same requests with the same model in one process, suite by suite; the plain way is lm-eval's own
HFLM at several batch sizes. Times are CPU seconds of the process. Left out: reading and building items.

    python benchmarks/evaluation_speed.py assets/smollm2-135m-instruct --items 64
"""

import argparse
import time
from pathlib import Path

from metagdpo.evaluation.continuations import continuation_log_probs
from metagdpo.evaluation.items import build_items
from metagdpo.evaluation.suite import load_suites
from metagdpo.models.load import load_model, load_tokenizer

PLAIN_BATCH_SIZES = (1, 8, 32)


def main() -> None:
    """Print one line for each choice suite and way."""
    parser = argparse.ArgumentParser(description="Cost of choice items, ours against plain lm-eval.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--suites", type=Path, default=Path("registry/suites"))
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--items", type=int, default=64)
    arguments = parser.parse_args()
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = load_model(arguments.model, "float32"), load_tokenizer(arguments.model)
    print(f"{'suite':16} {'way':16} {'CPU s':>8} {'items/s':>8} {'ours/plain':>11} {'same decisions':>15}")
    for suite in load_suites(arguments.suites):
        if suite.form != "choice":
            continue
        items = build_items(suite, arguments.assets)[: arguments.items]
        plain = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu")
        requests = [
            (("", ""), *plain._encode_pair(item.prompt, f" {option}"))  # noqa: SLF001  (the request form of its own)
            for item in items
            for option in item.options
        ]
        start = time.process_time()
        pairs = [request[1:] for request in requests]
        ours = [value for _, value in sorted(continuation_log_probs(model, pairs, max_length=plain.max_length))]
        seconds = time.process_time() - start
        print(f"{suite.name:16} {'ours':16} {seconds:8.1f} {len(items) / seconds:8.1f}")
        for batch_size in PLAIN_BATCH_SIZES:
            plain.batch_size_per_gpu = batch_size
            start = time.process_time()
            theirs = plain._loglikelihood_tokens(requests, disable_tqdm=True)  # noqa: SLF001  (as above)
            plain_seconds = time.process_time() - start
            same = decisions(items, ours) == decisions(items, theirs)
            way = f"plain, batch {batch_size}"
            rate, ratio = len(items) / plain_seconds, seconds / plain_seconds
            print(f"{'':16} {way:16} {plain_seconds:8.1f} {rate:8.1f} {ratio:11.2f} {same!s:>15}", flush=True)


def decisions(items: list, values: list[tuple[float, bool]]) -> list[tuple[int, int]]:
    """Positions chosen by log-likelihood and by log-likelihood per character."""
    found, start = [], 0
    for item in items:
        logs = [value for value, _ in values[start : start + len(item.options)]]
        start += len(logs)
        per_character = [log / len(option) for log, option in zip(logs, item.options, strict=True)]
        found.append((logs.index(max(logs)), per_character.index(max(per_character))))
    return found


if __name__ == "__main__":
    main()
