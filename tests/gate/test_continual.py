"""Continual metrics: textbook formulas, what other libraries compute, missing cells, and intervals that cover.

The oracles restate in our own code what the sources of Mammoth (utils/metrics.py, utils/training.py), Avalanche
(evaluation/metrics/forgetting_bwt.py, forward_transfer.py) and SAPT (score.py) compute, and TRACE's paper.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from metagdpo.errors import EvidenceError
from metagdpo.gate import continual_terms as equations
from metagdpo.gate.continual import DEFINITIONS, measure, measure_releases, table
from metagdpo.records.release_scores import ReleaseScores, SuiteScores

DOC = Path(__file__).parents[2] / "docs" / "continual-metrics.md"
NAN = np.nan
# The example of docs/continual-metrics.md. Columns: sums (trained by release 1), dates (2), units (3), science (never).
EXAMPLE = np.array(
    [
        [0.20, 0.60, 0.30, 0.60],
        [0.80, 0.58, 0.35, 0.58],
        [0.84, 0.55, 0.25, 0.55],
        [0.90, 0.41, 0.75, 0.57],
    ]
)
EXAMPLE_TRAINED = [[], [0], [1], [2]]
ALONE = [0.85, 0.70, 0.80]  # what training for the skill alone reaches
SQUARES = range(2, 6)


# ---------------------------------------------------------------------------------------------------------- oracles
# Rows are releases 1..T, columns the tasks in the order of their training: matrix[t][i] after task t + 1.


def gem(rows, base):
    T = len(rows)
    return {
        "average accuracy": sum(rows[T - 1]) / T,
        "BWT": sum(rows[T - 1][i] - rows[i][i] for i in range(T - 1)) / (T - 1),
        "FWT": sum(rows[i - 1][i] - base[i] for i in range(1, T)) / (T - 1),
    }


def chaudhry(rows, alone):
    k = len(rows)
    return {
        "average accuracy": sum(rows[-1]) / k,
        "forgetting": sum(max(row[j] for row in rows[:-1]) - rows[-1][j] for j in range(k - 1)) / (k - 1),
        "intransigence": sum(alone[j] - rows[j][j] for j in range(k)) / k,
    }


def mammoth(rows, base):
    """A row holds the tasks seen so far and the next one; cells beyond are filled with zeros."""
    T = len(rows)
    held = [[cell if i <= t + 1 else 0.0 for i, cell in enumerate(row)] for t, row in enumerate(rows)]
    return {
        "average accuracy": sum(held[-1]) / T,
        "BWT": sum(held[-1][i] - held[i][i] for i in range(T - 1)) / (T - 1),
        "FWT": sum(held[i - 1][i] - base[i] for i in range(1, T)) / (T - 1),
        "forgetting": sum(max(row[i] for row in held) - held[-1][i] for i in range(T - 1)) / (T - 1),
    }


class Avalanche:
    """Its counters: a task's value at its own latest training, at the last evaluation, and before its training."""

    def __init__(self, base):
        self.base, self.initial, self.last, self.previous = base, {}, {}, {}

    def after(self, experience, row):
        self.last = {}
        for task, value in enumerate(row):
            (self.initial if task == experience else self.last)[task] = value
            if experience == task - 1:
                self.previous[task] = value

    def metrics(self):
        both = sorted(self.initial.keys() & self.last.keys())
        lost = [self.initial[task] - self.last[task] for task in both]
        gained = [value - self.base[task] for task, value in self.previous.items()]
        return {
            "BWT": -sum(lost) / len(lost),
            "FWT": sum(gained) / len(gained),
            "forgetting": sum(lost) / len(lost),
        }


def avalanche(rows, base):
    counters = Avalanche(base)
    for experience, row in enumerate(rows):
        counters.after(experience, row)
    return counters.metrics()


def sapt(rows):
    """Scores in points; a row holds the tasks seen so far, the others are zeros. Its constant is 50.94 points."""
    T = len(rows)
    held = [[cell if i <= t else 0.0 for i, cell in enumerate(row)] for t, row in enumerate(rows)]
    return {
        "average accuracy": sum(held[-1]) / T,
        "BWT": sum(held[-1][i] - held[i][i] for i in range(T)) / T,
        "FWT": sum(held[i][i] for i in range(T)) / T - 0.5094,
        "forgetting": sum(max(row[i] for row in held[:-1]) - held[-1][i] for i in range(T - 1)) / (T - 1),
    }


def trace(rows, general):
    """`general`: first and last row of the probes outside the stream."""
    t = len(rows)
    first, last = general
    return {
        "average accuracy": sum(rows[-1]) / t,
        "BWT": sum(rows[-1][i] - rows[i][i] for i in range(t)) / t,
        "general-ability delta": sum(b - a for a, b in zip(first, last, strict=True)) / len(first),
    }


def ours(matrix, trained, alone=None):
    t = len(trained) - 1
    found = {
        "average accuracy": equations.average_accuracy(matrix, trained, t),
        "BWT": equations.backward_transfer(matrix, trained, t),
        "FWT": equations.forward_transfer(matrix, trained, t),
        "forgetting": equations.forgetting(matrix, trained, t),
        "general-ability delta": equations.general_delta(matrix, trained, t),
    }
    if alone is not None:
        found["intransigence"] = equations.intransigence(matrix, np.array(alone), trained, t)
    return {name: float(terms.mean()) for name, terms in found.items()}


def square(T, seed):
    """Random scores of a base and T releases on T tasks; release t was trained for task t."""
    matrix = np.random.default_rng([T, seed]).random((T + 1, T))
    return matrix, [[], *([i] for i in range(T))]


def example_rows():
    return EXAMPLE[1:, :3].tolist()


# ------------------------------------------------------------------------------------- textbook and other libraries


@pytest.mark.parametrize("T", SQUARES)
def test_in_the_square_case_they_are_gems_formulas(T):
    matrix, trained = square(T, 1)
    found, expected = ours(matrix, trained), gem(matrix[1:], matrix[0])
    assert expected == pytest.approx({name: found[name] for name in expected})


@pytest.mark.parametrize("T", SQUARES)
def test_without_a_measured_base_forgetting_and_intransigence_are_chaudhrys(T):
    matrix, trained = square(T, 2)
    matrix[0] = NAN
    alone = np.random.default_rng(T).random(T)
    found, expected = ours(matrix, trained, alone), chaudhry(matrix[1:], alone)
    assert expected == pytest.approx({name: found[name] for name in expected})


@pytest.mark.parametrize("T", SQUARES)
def test_a_measured_base_adds_to_chaudhrys_forgetting_what_it_was_better_than_all_earlier_releases(T):
    matrix, trained = square(T, 3)
    better = np.maximum(matrix[0, : T - 1] - matrix[1:T, : T - 1].max(axis=0), 0)
    expected = chaudhry(matrix[1:], [0] * T)["forgetting"] + better.mean()
    assert expected == pytest.approx(ours(matrix, trained)["forgetting"])


@pytest.mark.parametrize("T", SQUARES)
def test_mammoths_transfers_are_ours(T):
    matrix, trained = square(T, 4)
    found, theirs = ours(matrix, trained), mammoth(matrix[1:], matrix[0])
    assert {name: theirs[name] for name in ("average accuracy", "BWT", "FWT")} == pytest.approx(
        {name: found[name] for name in ("average accuracy", "BWT", "FWT")}
    )


def test_mammoths_forgetting_forgives_nothing_and_rewards_nothing():
    grown = [[0.5, 0.0], [0.9, 0.8]]
    assert mammoth(grown, [0, 0])["forgetting"] == 0
    assert ours(np.array([[NAN, NAN], *grown]), [[], [0], [1]])["forgetting"] == pytest.approx(0.5 - 0.9)


@pytest.mark.parametrize("T", SQUARES)
def test_mammoths_forgetting_is_chaudhrys_floored_at_zero_when_the_best_row_is_among_those_it_holds(T):
    matrix, trained = square(T, 5)
    matrix[0] = NAN
    matrix[1:] = np.tril(matrix[1:])  # what is not yet trained is worst: zeros change no maximum
    lost = equations.forgetting(matrix, trained, T).values
    assert mammoth(matrix[1:], [0] * T)["forgetting"] == pytest.approx(np.maximum(lost, 0).mean())


@pytest.mark.parametrize("T", SQUARES)
def test_avalanches_transfers_are_ours_and_its_forgetting_is_minus_bwt(T):
    matrix, trained = square(T, 6)
    found, theirs = ours(matrix, trained), avalanche(matrix[1:], matrix[0])
    assert theirs == pytest.approx({"BWT": found["BWT"], "FWT": found["FWT"], "forgetting": -found["BWT"]})


def test_a_task_trained_twice_counts_from_its_latest_training_as_in_avalanche():
    matrix = np.random.default_rng(7).random((5, 2))
    experiences = [0, 1, 0, 1]
    counters = Avalanche(matrix[0])
    for row, experience in zip(matrix[1:], experiences, strict=True):
        counters.after(experience, row)
    assert counters.metrics()["BWT"] == pytest.approx(ours(matrix, [[], *([i] for i in experiences)])["BWT"])


@pytest.mark.parametrize("T", SQUARES)
def test_traces_and_sapts_bwt_is_ours_times_t_minus_1_over_t(T):
    matrix, trained = square(T, 8)
    expected = ours(matrix, trained)["BWT"] * (T - 1) / T
    assert trace(matrix[1:], ([0], [0]))["BWT"] == pytest.approx(expected)
    assert sapt(matrix[1:])["BWT"] == pytest.approx(expected)


@pytest.mark.parametrize("T", SQUARES)
def test_sapts_fwt_with_the_references_mean_for_its_constant_is_minus_intransigence(T):
    matrix, trained = square(T, 9)
    alone = np.random.default_rng(T).random(T)
    theirs = sapt(matrix[1:])["FWT"] + 0.5094 - alone.mean()
    assert theirs == pytest.approx(-ours(matrix, trained, alone)["intransigence"])


@pytest.mark.parametrize("T", SQUARES)
def test_sapts_forgetting_is_chaudhrys_when_untrained_skills_are_worst(T):
    matrix, trained = square(T, 10)
    matrix[0] = NAN
    matrix[1:] = np.tril(matrix[1:])
    assert sapt(matrix[1:])["forgetting"] == pytest.approx(ours(matrix, trained)["forgetting"])


def test_traces_delta_over_probes_outside_the_stream_is_ours():
    stream, trained = square(3, 11)
    probes = np.random.default_rng(11).random((4, 2))
    found = ours(np.hstack([stream, probes]), trained)["general-ability delta"]
    assert trace(stream[1:], (probes[0], probes[3]))["general-ability delta"] == pytest.approx(found)


# ------------------------------------------------------------------------------------------------------ the example


def test_the_example_by_hand():
    assert ours(EXAMPLE, EXAMPLE_TRAINED, [*ALONE, NAN]) == pytest.approx(
        {
            "average accuracy": (0.90 + 0.41 + 0.75) / 3,
            "BWT": ((0.90 - 0.80) + (0.41 - 0.55)) / 2,
            "FWT": ((0.58 - 0.60) + (0.25 - 0.30)) / 2,
            "forgetting": ((0.84 - 0.90) + (0.60 - 0.41)) / 2,
            "general-ability delta": (0.57 - 0.60) / 1,
            "intransigence": ((0.85 - 0.80) + (0.70 - 0.55) + (0.80 - 0.75)) / 3,
        }
    )
    assert equations.drops(EXAMPLE, 3) == pytest.approx(np.array([0.84 - 0.90, 0.60 - 0.41, 0.35 - 0.75, 0.60 - 0.57]))


def comparison():
    """The table of the documentation: what each computes of the example, in points."""
    rows, base = example_rows(), EXAMPLE[0, :3].tolist()
    found = {
        "ours": ours(EXAMPLE, EXAMPLE_TRAINED, [*ALONE, NAN]),
        "GEM": gem(rows, base),
        "Chaudhry": chaudhry(rows, ALONE),
        "Mammoth": mammoth(rows, base),
        "Avalanche": avalanche(rows, base),
        "SAPT": sapt(rows),
        "TRACE": trace(rows, (EXAMPLE[0, 3:], EXAMPLE[3, 3:])),
    }
    lines = [f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for name in ("average accuracy", "BWT", "FWT", "forgetting", "intransigence", "general-ability delta"):
        cells = [f"{100 * values[name]:.2f}" if name in values else "-" for values in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def test_the_documentation_shows_the_numbers_computed_here():
    assert "\n".join(comparison()) in DOC.read_text(encoding="utf-8")


def test_the_documentation_shows_every_definition_word_for_word():
    text = DOC.read_text(encoding="utf-8")
    assert [definition for definition in DEFINITIONS.values() if f"`{definition}`" not in text] == []


# ----------------------------------------------------------------------------------------------- irregular histories


def items(share, n=100):
    """n right-or-wrong scores with the given share right; equal shares mean the same items right."""
    return {str(j): float(j < round(share * n)) for j in range(n)}


def histories(matrix, suites):
    return [
        {suite: items(cell) for suite, cell in zip(suites, row, strict=True) if not np.isnan(cell)} for row in matrix
    ]


def named(history, t=-1):
    return {metric.name: metric for metric in history.metrics[t]}


def measured(matrix, trained, **options):
    suites = [f"s{i}" for i in range(len(matrix[0]))]
    rows = [[suites[i] for i in row] for row in trained]
    return measure(histories(matrix, suites), rows, np.random.default_rng(0), resamples=200, **options)


def test_measuring_item_scores_gives_the_matrix_and_the_values_of_the_equations():
    reference = {f"s{i}": items(share) for i, share in enumerate(ALONE)}
    history = measured(EXAMPLE, EXAMPLE_TRAINED, reference=reference)
    assert np.array(history.matrix, dtype=float) == pytest.approx(EXAMPLE)
    expected = ours(EXAMPLE, EXAMPLE_TRAINED, [*ALONE, NAN])
    found = named(history)
    assert expected == pytest.approx(
        {
            "average accuracy": found["average_accuracy"].value,
            "BWT": found["backward_transfer"].value,
            "FWT": found["forward_transfer"].value,
            "forgetting": found["forgetting"].value,
            "intransigence": found["intransigence"].value,
            "general-ability delta": found["general_delta"].value,
        }
    )
    assert found["worst_drop"].value == pytest.approx(0.60 - 0.41)
    assert (history.drops[0].suite, history.drops[0].best) == ("s1", "base")


def test_denominators_are_counted():
    history = measured(EXAMPLE, EXAMPLE_TRAINED)
    assert {name: metric.n_terms for name, metric in named(history).items()} == {
        "average_accuracy": 3,
        "backward_transfer": 2,
        "forward_transfer": 2,
        "forgetting": 2,
        "intransigence": 0,
        "general_delta": 1,
        "worst_drop": 4,
    }


def test_a_single_release_has_accuracy_and_a_general_delta_but_no_transfer():
    history = measured(EXAMPLE[:2], EXAMPLE_TRAINED[:2])
    found = named(history)
    assert found["average_accuracy"].value == pytest.approx(0.80)
    assert found["general_delta"].value == pytest.approx(((0.58 - 0.60) + (0.35 - 0.30) + (0.58 - 0.60)) / 3)
    assert [found[name].value for name in ("backward_transfer", "forward_transfer", "forgetting")] == [None] * 3


def test_releases_without_trained_skills_have_deltas_only():
    history = measured(EXAMPLE, [[], [], [], []])
    known = {name for name, metric in named(history).items() if metric.value is not None}
    assert known == {"general_delta", "worst_drop"}


def test_a_release_trained_for_several_skills_is_one_row():
    matrix = np.array([[0.1, 0.2, 0.5], [0.7, 0.8, 0.5], [0.6, 0.9, 0.9]])
    found = ours(matrix, [[], [0, 1], [2]])
    assert found["BWT"] == pytest.approx(((0.6 - 0.7) + (0.9 - 0.8)) / 2)
    assert found["FWT"] == pytest.approx((0.5 - 0.5) / 1)
    assert found["average accuracy"] == pytest.approx((0.6 + 0.9 + 0.9) / 3)


def test_the_base_alone_has_a_matrix_and_no_metrics():
    history = measured(EXAMPLE[:1], [[]])
    assert (history.metrics, history.drops) == ((), ())
    assert table(history)[-1] == "No release yet: nothing to compare the base with."


def test_a_missing_cell_is_left_out_and_named_never_zero():
    matrix = EXAMPLE.copy()
    matrix[1, 0] = NAN  # the skill of release 1 was not measured right after its training
    bwt = named(measured(matrix, EXAMPLE_TRAINED))["backward_transfer"]
    assert (bwt.value, bwt.n_terms, bwt.skills, bwt.left_out) == (pytest.approx(0.41 - 0.55), 1, ("s1",), ("s0",))


def test_a_suite_added_later_has_no_delta_to_a_base_that_never_saw_it():
    matrix = EXAMPLE.copy()
    matrix[:2, 3] = NAN
    found = named(measured(matrix, EXAMPLE_TRAINED))
    assert (found["general_delta"].value, found["general_delta"].left_out) == (None, ("s3",))
    assert found["worst_drop"].n_terms == 4


def test_a_trained_skill_that_was_never_measured_does_not_vanish():
    history = measure([{"a": items(0.5)}] * 2, [[], ["b"]], np.random.default_rng(0), resamples=50)
    assert named(history)["average_accuracy"].left_out == ("b",)
    assert history.matrix == ((0.5, None), (0.5, None))


def test_the_numbers_of_a_release_do_not_change_when_later_ones_come():
    early, late = measured(EXAMPLE[:3], EXAMPLE_TRAINED[:3]), measured(EXAMPLE, EXAMPLE_TRAINED)
    assert [m.value for m in early.metrics[1]] == [m.value for m in late.metrics[1]]


# -------------------------------------------------------------------------------------------------------- refusals


def refused(scores, trained=None, **options):
    return measure(scores, trained or [[]] * len(scores), np.random.default_rng(0), resamples=10, **options)


def test_rows_with_other_items_are_refused_by_suite_and_release():
    rows = [{"a": {"1": 1.0, "2": 0.0}}, {"a": {"1": 1.0, "3": 0.0}}]
    with pytest.raises(EvidenceError, match=r"suite a: v1 has other items than base .1 missing, 1 more, such as .2"):
        refused(rows, releases=["base", "v1"])


@pytest.mark.parametrize("score", [NAN, -0.1, 1.1])
def test_scores_outside_0_to_1_are_refused(score):
    with pytest.raises(EvidenceError, match="suite a of base: item '1' has the score"):
        refused([{"a": {"1": score}}])


def test_an_empty_suite_is_refused():
    with pytest.raises(EvidenceError, match="suite a of 1 has no items"):
        refused([{"a": {"1": 1.0}}, {"a": {}}])


def test_a_trained_base_is_refused():
    with pytest.raises(EvidenceError, match="the first row, base, must be the base before any training"):
        refused([{"a": {"1": 1.0}}], [["a"]])


def test_no_rows_are_refused():
    with pytest.raises(EvidenceError, match="0 rows of scores"):
        measure([], [], np.random.default_rng(0))


# -------------------------------------------------------------------------------------------------------- intervals


def answers(n, changes, flip, rng):
    """(n, rows) right-or-wrong scores: a base of 60 %, and rows that each flip a share of its answers by themselves."""
    base = rng.random(n) < 0.6
    rows = [base]
    for change in changes:
        flips = np.where(base, (flip - change) / 2 / 0.6, (flip + change) / 2 / 0.4)
        rows.append(base ^ (rng.random(n) < flips))
    return np.stack(rows, axis=1).astype(float)


def as_rows(by_suite):
    """[{suite: {item: score}}] of {suite: (n, rows)}."""
    n_rows = next(iter(by_suite.values())).shape[1]
    return [
        {suite: {str(j): score for j, score in enumerate(scores[:, t])} for suite, scores in by_suite.items()}
        for t in range(n_rows)
    ]


def covered(hits, n, level=0.95):
    """Whether so many hits are compatible with at least the promised coverage: a one-sided test at 0.1 %."""
    return binom.cdf(hits, n, level) > 1e-3


def test_intervals_of_means_cover():
    rng = np.random.default_rng(21)
    changes = {"a": (0.1, 0.05, 0.0), "b": (0.0, 0.1, 0.05), "c": (0.0, 0.02, -0.04)}
    truth = {
        "average_accuracy": ((0.6 + 0.0) + (0.6 + 0.05)) / 2,
        "backward_transfer": ((0.0 - 0.1) + (0.05 - 0.1)) / 2,
        "forward_transfer": 0.0,
        "general_delta": -0.04,
    }
    n = 120
    hits = dict.fromkeys(truth, 0)
    for _ in range(n):
        rows = as_rows({suite: answers(150, change, 0.2, rng) for suite, change in changes.items()})
        found = named(measure(rows, [[], ["a"], ["b"], []], rng, resamples=300))
        for name, value in truth.items():
            hits[name] += found[name].low <= value <= found[name].high
    # A percentile interval of 300 resamples of 150 items promises a little less than its level.
    assert {name: covered(count, n, 0.93) for name, count in hits.items()} == dict.fromkeys(truth, True)


@pytest.mark.parametrize(
    "changes", [(0.0,) * 5, (0.06, 0.03, 0.0, -0.03, -0.06)], ids=["nothing forgotten", "one best row"]
)
def test_intervals_of_forgetting_and_of_the_worst_drop_cover_whether_rows_tie_or_not(changes):
    rng = np.random.default_rng(22)
    suites = [f"s{i}" for i in range(4)]
    truth = max(0.0, *changes[:-1]) - changes[-1]
    n = 100
    hits = {"forgetting": 0, "worst_drop": 0}
    for _ in range(n):
        rows = as_rows({suite: answers(200, changes, 0.14, rng) for suite in suites})
        found = named(measure(rows, [[], suites, [], [], [], []], rng, resamples=200))
        for name in hits:
            hits[name] += found[name].low <= truth <= found[name].high
    assert {name: covered(count, n, 0.93) for name, count in hits.items()} == dict.fromkeys(hits, True)


def test_a_percentile_interval_of_forgetting_would_hardly_ever_cover():
    """Why forgetting has an interval of its own: nothing is forgotten, and the plain bootstrap finds forgetting."""
    rng = np.random.default_rng(26)
    n, hits = 60, 0
    for _ in range(n):
        lost = []
        for _ in range(8):
            scores = answers(200, (0.0,) * 5, 0.14, rng)
            means = rng.multinomial(200, [1 / 200] * 200, size=200) @ scores / 200
            lost.append(means[:, :-1].max(axis=1) - means[:, -1])
        low, high = np.quantile(np.mean(lost, axis=0), [0.025, 0.975])
        hits += low <= 0 <= high
    assert binom.cdf(hits, n, 0.5) < 1e-3  # less than half of the promised 95 %


def test_pairing_matters():
    """Resampling each row by itself would add variances; the same items for both rows subtract what they share."""
    rng = np.random.default_rng(23)
    scores = answers(400, (0.0, 0.0), 0.06, rng)
    history = measure(as_rows({"a": scores}), [[], ["a"], []], rng)
    bwt = named(history)["backward_transfer"]
    alone = [scores[rng.integers(0, 400, (2000, 400)), row].mean(axis=1) for row in (1, 2)]
    low, high = np.quantile(alone[1] - alone[0], [0.025, 0.975])
    assert bwt.high - bwt.low < 0.6 * (high - low)


def test_interval_ends_are_those_of_plain_resampling_of_items():
    """The draw of kinds of items against the definition: items drawn one by one with replacement."""
    rng = np.random.default_rng(24)
    scores = answers(60, (0.1, -0.1), 0.3, rng)
    bwt = named(measure(as_rows({"a": scores}), [[], ["a"], []], rng, resamples=40_000))["backward_transfer"]
    drawn = scores[rng.integers(0, 60, (40_000, 60))].mean(axis=1)
    # Ends lie on a grid of 1/60; they agree up to one step.
    assert (bwt.low, bwt.high) == pytest.approx(
        tuple(np.quantile(drawn[:, 2] - drawn[:, 1], [0.025, 0.975])), abs=1 / 59
    )


def test_clusters_are_drawn_whole():
    """Ten equal items a cluster hold as much as one: the interval is that of the clusters' number of items."""
    rng = np.random.default_rng(25)
    scores = answers(50, (0.1, -0.1), 0.4, rng)
    repeated = np.repeat(scores, 10, axis=0)
    clusters = {"a": {str(j): f"passage {j // 10}" for j in range(500)}}
    trained = [[], ["a"], []]
    one, ten, naive = (
        named(measure(as_rows({"a": rows}), trained, np.random.default_rng(1), clusters=known))["backward_transfer"]
        for rows, known in ((scores, None), (repeated, clusters), (repeated, None))
    )
    assert (one.value, one.low, one.high) == pytest.approx((ten.value, ten.low, ten.high))
    assert naive.high - naive.low < 0.5 * (ten.high - ten.low)


def test_clusters_of_unequal_size_keep_the_mean_over_items():
    scores = {"1": 1.0, "2": 1.0, "3": 1.0, "4": 0.0}
    clusters = {"a": {"1": "long", "2": "long", "3": "long"}}
    history = refused([{"a": scores}], clusters=clusters)
    assert history.matrix == ((3 / 4,),)


@pytest.mark.parametrize(
    ("scores", "clusters"),
    [({"1": 1.0}, None), ({"1": 1.0, "2": 0.0}, {"a": {"1": "x", "2": "x"}})],
    ids=["one item", "one cluster"],
)
def test_one_item_or_cluster_gives_no_interval(scores, clusters):
    history = refused([{"a": scores}] * 2, [[], ["a"]], clusters=clusters)
    found = named(history)["average_accuracy"]
    assert (found.value, found.low, found.high) == (np.mean(list(scores.values())), None, None)


def test_a_suite_where_nothing_flips_gives_no_zero_width_interval():
    history = refused([{"a": items(0.5)}] * 3, [[], ["a"], []])
    bwt = named(history)["backward_transfer"]
    assert (bwt.value, bwt.low, bwt.high) == (0.0, None, None)


def test_equal_seeds_give_equal_intervals():
    rows = as_rows({"a": answers(50, (0.1, -0.1), 0.4, np.random.default_rng(3))})
    one, two = (measure(rows, [[], ["a"], []], np.random.default_rng(4)) for _ in range(2))
    assert one == two


def test_the_order_of_items_in_a_row_does_not_matter():
    rows = as_rows({"a": answers(50, (0.1, -0.1), 0.4, np.random.default_rng(3))})
    turned = [{"a": dict(reversed(row["a"].items()))} if t else row for t, row in enumerate(rows)]
    one, two = (measure(each, [[], ["a"], []], np.random.default_rng(4)) for each in (rows, turned))
    assert one == two


# ------------------------------------------------------------------------------------------- stored rows, the table


def stored(version, cells, trained=()):
    suites = tuple(
        SuiteScores(suite=suite, task="t", documents="d", scores=scores, clusters=clusters)
        for suite, (scores, clusters) in cells.items()
    )
    return ReleaseScores(model_name="m", version=version, verdict=None, trained=trained, measured="same", suites=suites)


def test_stored_rows_are_measured_like_scores():
    clusters = ("x", "x", None, None)
    rows = [
        stored(0, {"a": ((1.0, 0.0, 0.0, 1.0), clusters)}),
        stored(3, {"a": ((1.0, 1.0, 0.0, 1.0), clusters)}, ("a",)),
    ]
    found = measure_releases(rows, np.random.default_rng(0))
    plain = [{"a": {str(j): score for j, score in enumerate(row.suites[0].scores)}} for row in rows]
    same = measure(
        plain,
        [[], ["a"]],
        np.random.default_rng(0),
        releases=["base", "v3"],
        clusters={"a": {"0": "x", "1": "x"}},
    )
    assert found == same


def test_stored_rows_without_the_base_are_refused():
    with pytest.raises(EvidenceError, match="the first row must be the base"):
        measure_releases([stored(1, {})], np.random.default_rng(0))


def test_the_table_is_markdown_with_marked_and_missing_cells():
    matrix = EXAMPLE.copy()
    matrix[1, 1] = NAN
    lines = table(measured(matrix, EXAMPLE_TRAINED))
    assert lines[:4] == [
        "| release | s0    | s1    | s2    | s3   |",
        "|---------|-------|-------|-------|------|",
        "| base    | 20.0  | 60.0  | 30.0  | 60.0 |",
        "| 1       | 80.0* | -     | 35.0  | 58.0 |",
    ]
    assert lines[-1] == "forward transfer (FWT): not measured for s1"
    metrics = [line for line in lines if "backward" in line]
    assert [metrics[0].split(" | ")[k].strip() for k in (1, 3, 4)] == ["-2.0", "higher", "2"]


def test_every_table_line_has_the_width_of_its_table():
    lines = table(measured(EXAMPLE, EXAMPLE_TRAINED))
    for _, block in itertools.groupby(lines, key=bool):
        assert len({len(line) for line in block}) == 1


def test_a_bar_in_a_name_cannot_break_the_table():
    history = measure([{"a|b": items(0.5)}], [[]], np.random.default_rng(0), resamples=10)
    assert table(history)[0] == "| release | a\\|b |"
