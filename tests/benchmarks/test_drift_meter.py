"""benchmarks/drift_meter.py: the three meters agree in the mean, by enumeration, and the script runs end to end."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import make_tiny_model

ROOT = Path(__file__).parents[2]
LOG_RATIO, CORRECTED, EXACT = range(3)


@pytest.fixture(scope="module")
def script():
    """The benchmark as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import drift_meter

        yield drift_meter


@pytest.fixture(scope="module")
def other_model_dir(tmp_path_factory):
    """Another tiny model, in the part of the candidate."""
    return make_tiny_model(tmp_path_factory.mktemp("other") / "model", seed=1)


@pytest.fixture(scope="module")
def every_next_token(script, tiny_model_dir, other_model_dir):
    """Probability under the base, and scores, of every text of one token."""
    import torch

    base, candidate, _ = script.load(tiny_model_dir, other_model_dir)
    n = base.config.vocab_size
    with torch.no_grad():
        p_V, q_V = (m(torch.tensor([[1]])).logits[0, -1].double().softmax(-1).numpy() for m in (base, candidate))
    return p_V, q_V, script.score(base, candidate, [1], [[token] for token in range(n)], "all")


def two_steps(first, second, candidate_first, candidate_second):
    """Probability under the base and the three meters of every text of two tokens: [4], [4, 3]."""
    weights, meters = [], []
    for a, b in itertools.product((0, 1), repeat=2):
        steps = ((first, candidate_first, a), (second[a], candidate_second[a], b))
        if first[a] * second[a][b] == 0:
            continue
        weights.append(first[a] * second[a][b])
        ratios = [math.log(p[token] / q[token]) for p, q, token in steps]
        divergences = [sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0) for p, q, _ in steps]
        meters.append([sum(ratios), sum(math.exp(-r) - 1 + r for r in ratios), sum(divergences)])
    return np.array(weights), np.array(meters)


def test_over_all_next_tokens_the_meters_mean_the_divergence(every_next_token):
    p_V, q_V, scores = every_next_token
    divergence = float((p_V * np.log(p_V / q_V)).sum())
    assert [divergence] * 3 == pytest.approx((p_V @ scores[:, :3]).tolist(), rel=1e-4)


def test_the_exact_meter_does_not_depend_on_the_token_drawn(every_next_token):
    scores = every_next_token[2]
    assert 0 == pytest.approx(np.ptp(scores[:, EXACT]), abs=1e-5)
    assert np.ptp(scores[:, LOG_RATIO]) > 1


def test_the_corrected_meter_is_never_negative(every_next_token):
    scores = every_next_token[2]
    assert scores[:, CORRECTED].min() >= 0 > scores[:, LOG_RATIO].min()


def test_each_text_has_its_own_row_and_its_number_of_tokens(script, tiny_model_dir, other_model_dir):
    base, candidate, _ = script.load(tiny_model_dir, other_model_dir)
    texts = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
    together = script.score(base, candidate, [1], texts, "all")
    alone = np.concatenate([script.score(base, candidate, [1], [text], "one") for text in texts])
    assert [3, 1, 5] == together[:, 3].tolist()
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_over_texts_of_two_tokens_the_meters_have_one_mean():
    weights, meters = two_steps((0.3, 0.7), ((0.2, 0.8), (0.9, 0.1)), (0.6, 0.4), ((0.5, 0.5), (0.7, 0.3)))
    means = weights @ meters
    assert [means[LOG_RATIO]] * 3 == pytest.approx(means.tolist())


def test_the_exact_meter_can_be_the_widest():
    """A token that the candidate likes better leads to where it is worse: in the log-ratio the two cancel."""
    sure, doubtful = (1.0, 0.0), (math.exp(-0.5), 1 - math.exp(-0.5))
    weights, meters = two_steps((0.5, 0.5), (sure, sure), (0.6, 0.4), (doubtful, (1.0, 0.0)))
    variances = weights @ (meters - weights @ meters) ** 2
    assert variances[EXACT] > 10 * variances[LOG_RATIO]


def test_intervals_of_resamples_hold_the_value_of_a_pool_of_one_kind(script):
    """Normal sums over equal lengths: the t interval is exact, so 95 % of the resamples hold it."""
    rng = np.random.default_rng(1)
    pool = np.stack([rng.normal(3, 1, 5000), np.ones(5000), np.ones(5000), np.full(5000, 10.0)], axis=1)
    width, holds = script.resampled(pool, 0, rng.integers(5000, size=(1000, 16)))
    assert 0.93 < holds < 0.97
    assert width == pytest.approx(2 * 2.131 / math.sqrt(16) / 10, rel=0.05)


@pytest.fixture(scope="module")
def printed(tiny_model_dir, other_model_dir, tmp_path_factory):
    """Output of two runs with one results file, and that file."""
    folder = tmp_path_factory.mktemp("drift_meter")
    command = [sys.executable, "benchmarks/drift_meter.py", str(tiny_model_dir), str(other_model_dir)]
    for name, n in (("held_out", 4), ("trained", 3)):
        rows = [json.dumps({"prefix_ids": [1], "token_ids": [5 + i, 6, 7 + i]}) for i in range(n)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        command += [f"--{name.replace('_', '-')}", str(folder / f"{name}.jsonl")]
    command += ["--samples", "5", "--tokens", "6", "--batch", "3", "--sizes", "4", "--results", str(folder / "r.json")]
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False) for _ in range(2)]
    assert [0, 0] == [run.returncode for run in runs], runs[0].stderr + runs[1].stderr
    return runs[0].stdout, runs[1].stdout, json.loads((folder / "r.json").read_text())


def test_every_way_of_sampling_has_its_samples(printed):
    expected = {"held-out": 4, "trained on": 3, "T = 1": 5, "T = 0.7": 5, "top-p 0.9": 5}
    assert expected == {arm: len(rows) for arm, rows in printed[2].items()}


def test_ways_of_sampling_draw_different_texts(printed):
    assert printed[2]["T = 1"] != printed[2]["T = 0.7"] != printed[2]["top-p 0.9"]


def test_a_results_file_saves_the_drawing_and_changes_no_table(printed):
    first, again, _ = printed
    assert "drew" in first
    assert "drew" not in again
    assert first[first.index("\n| text") :] == again[again.index("\n| text") :]


def test_both_tables_are_whole(printed):
    rows = [line for line in printed[1].splitlines() if line.startswith("|")]
    assert 2 + 6 + 2 + 1 == len(rows)
    assert "nan" not in printed[1]
