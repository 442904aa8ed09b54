"""Validation items are disjoint from what the gate sees, and alpha is chosen by the rule as it is written."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metagdpo.answers import ask, verify
from metagdpo.errors import ConfigError, DataError
from metagdpo.evaluation.items import build_items, spare_items
from metagdpo.evaluation.suite import Suite, load_suites
from metagdpo.evaluation.validation import (
    InterpolateParams,
    choose_alpha,
    choosing_suites,
    measured_point,
    validation_items,
)
from metagdpo.params import validate
from metagdpo.records.group import ResponseGroup
from metagdpo.records.interpolation import InterpolationPoint

ROOT = Path(__file__).parents[2]
SUITES = load_suites(ROOT / "registry" / "suites")
TIERS = {"t": "target", "u": "target", "a": "required", "b": "required", "s": "safety", "w": "watched"}


def suite(items, **changes):
    known = {
        "name": "s", "skill": "skill", "tier": "required", "metric": "exact", "max_new_tokens": 8, "items": items,
        "n_items": 10, "chance": 0.0, "licence": "CC0", "source": "made up",
    }  # fmt: skip
    return validate({**known, **changes}, Suite, where="s.yaml")


def sums(n_items=10, size=20, **changes):
    """Sums of two numbers; `digits` 1 leaves so few that a family of some hundred entries holds them all."""
    digits = changes.pop("digits", 2)
    config = {"min_terms": 2, "max_terms": 2, "min_digits": digits, "max_digits": digits}
    items = {"kind": "procedural", "family": "chain_sum", "config": config, "seed": 3, "size": size, **changes}
    return suite(items, n_items=n_items)


def lines(tmp_path, rows, n_items=10, **changes):
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return suite({"kind": "files", "path": str(path)}, n_items=n_items, **changes)


def numbered(n, clusters=None):
    return [{"prompt": f"p{i}", "answer": "4", "cluster": clusters and f"c{i % clusters}"} for i in range(n)]


def group(question_id="other", prompt="other"):
    return ResponseGroup(question_id=question_id, prompt=prompt, responses=(), degenerate=True)


def chosen(of, tmp_path, n_items=5, groups=()):
    return validation_items(of, build_items(of, tmp_path), tmp_path, n_items, groups)


# Items


@pytest.mark.parametrize("of", SUITES, ids=lambda each: each.name)
def test_no_validation_item_of_this_projects_suites_is_one_of_their_items(of):
    if of.items.kind == "asset" and not (ROOT / "assets" / of.items.asset).is_dir():
        pytest.skip("the asset is not there")
    own = build_items(of, ROOT / "assets")
    found = validation_items(of, own, ROOT / "assets", 60)
    assert len(found) == 60
    assert len({item.doc for item in found}) == 60
    assert not {item.doc for item in found} & {item.doc for item in own}
    assert not {item.prompt for item in found} & {item.prompt for item in own}
    assert not {item.id for item in found} & {item.id for item in own}


@given(seed=st.integers(0, 2**40), size=st.integers(1, 60), n_items=st.integers(1, 60), wanted=st.integers(1, 30))
def test_new_entries_of_a_family_are_no_items_and_not_even_spare_entries(seed, size, n_items, wanted):
    of = sums(n_items, size, seed=seed)
    every = {item.doc for item in build_items(of.model_copy(update={"n_items": size}), Path())}
    found = validation_items(of, build_items(of, Path()), Path(), wanted)
    assert len(found) == len({item.doc for item in found}) == min(wanted, 10 * size)
    assert not {item.doc for item in found} & every


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    n_items=st.integers(6, 40),
    wanted=st.integers(1, 40),
)
def test_of_a_file_the_documents_that_were_not_drawn_are_taken_cluster_by_cluster(
    tmp_path_factory, sizes, seed, n_items, wanted
):
    rows = [
        {"prompt": f"p{c} {i}", "answer": "4", "cluster": f"c{c}" if size > 1 else None}
        for c, size in enumerate(sizes)
        for i in range(size)
    ]
    of = lines(tmp_path_factory.mktemp("files"), rows, n_items, seed=seed)
    own = build_items(of, Path())
    assume(len(own) < len(rows))
    found = validation_items(of, own, Path(), wanted)
    left = [item for cluster in spare_items(of, Path()) for item in cluster]
    assert sorted(item.prompt for item in (*own, *left)) == sorted(row["prompt"] for row in rows)
    assert not {item.cluster for item in own} & {item.cluster for item in found} - {None}
    assert found == left[: len(found)]
    # As many as wanted, longer by the rest of a cluster only, or all.
    ends = [end for end in itertools.accumulate(len(cluster) for cluster in spare_items(of, Path())) if end >= wanted]
    assert len(found) == (ends[0] if ends else len(left))


def test_the_solved_examples_are_the_suites_own():
    of = sums(shots=3, prompt="{question} =")
    own, found = build_items(of, Path()), chosen(of, Path())
    examples = own[0].prompt.rpartition("\n\n")[0]
    assert examples.count("\n\n") == 2
    assert {item.prompt.rpartition("\n\n")[0] for item in (*own, *found)} == {examples}
    assert all(item.question.prompt not in examples for item in found)


def test_the_right_answers_are_right():
    for item in chosen(sums(answer="boxed"), Path()):
        assert verify(item.question, f"\\boxed{{{item.question.reference_answer}}}") == 1.0


def test_the_same_suite_gives_the_same_items_and_fewer_are_the_first_of_more():
    assert chosen(sums(), Path(), 8) == chosen(sums(), Path(), 8)
    assert chosen(sums(), Path(), 8)[:3] == chosen(sums(), Path(), 3)


def test_what_stands_in_the_suites_file_is_left_out_even_if_the_suite_would_draw_otherwise(tmp_path):
    of = lines(tmp_path, numbered(20), 10)
    others = [cluster[0] for cluster in spare_items(of, tmp_path)]
    found = validation_items(of, others[:4], tmp_path, 99)
    assert found == others[4:]


def test_a_cluster_that_the_gate_sees_a_part_of_is_left_out_as_a_whole(tmp_path):
    of = lines(tmp_path, numbered(20, clusters=5), 12)
    cluster = next(iter(spare_items(of, tmp_path)))
    found = validation_items(of, cluster[:1], tmp_path, 99)
    assert cluster[0].cluster not in {item.cluster for item in found}


@pytest.mark.parametrize("known_by", ["id", "asked", "spaced"])
def test_a_question_that_was_trained_on_chooses_nothing(known_by):
    of = sums(answer="boxed")
    first, *others = chosen(of, Path())
    asked = ask(first.question)
    row = {
        "id": group(question_id=first.id),
        "asked": group(prompt=asked),
        "spaced": group(prompt=asked.replace(" ", "  ") + "\n"),
    }[known_by]
    found = chosen(of, Path(), 5, [row])
    assert first.doc not in {item.doc for item in found}
    assert found[:4] == others


def test_a_choice_that_was_trained_on_is_left_out_with_its_cluster(tmp_path):
    rows = [{"prompt": f"p{i}", "options": ["x", "y"], "gold": 0, "cluster": f"c{i // 2}"} for i in range(12)]
    of = lines(tmp_path, rows, 4, metric="acc", max_new_tokens=0)
    gone = next(iter(spare_items(of, tmp_path)))
    found = chosen(of, tmp_path, 99, [group(prompt=gone[1].prompt)])
    assert len(found) == 12 - 4 - 2
    assert not {item.cluster for item in found} & {gone[0].cluster}


def test_fewer_than_wanted_are_what_is_left(tmp_path):
    assert len(chosen(lines(tmp_path, numbered(13), 10), tmp_path, 50)) == 3


@pytest.mark.parametrize("why", ["all drawn", "all trained on"])
def test_a_suite_with_nothing_left_is_refused_with_the_ways_out(tmp_path, why):
    of = lines(tmp_path, numbered(12), 12 if why == "all drawn" else 10)
    groups = [group(prompt=f"p{i}") for i in range(12)] if why == "all trained on" else []
    with pytest.raises(ConfigError, match=r"suite s has no items left to choose alpha on.*Lower n_items.*alphas"):
        chosen(of, tmp_path, 5, groups)


def test_a_family_that_has_no_other_entries_ends_and_says_so():
    of = sums(3000, 3000, digits=1)
    with pytest.raises(ConfigError, match="suite s has no items left"):
        chosen(of, Path())


def test_a_missing_file_is_told_as_for_items(tmp_path):
    of = suite({"kind": "files", "path": str(tmp_path / "gone.jsonl")})
    with pytest.raises(DataError, match=r"gone\.jsonl does not exist"):
        validation_items(of, (), tmp_path, 5)


# Parameters


def params(**changes):
    return validate({"alphas": [0.5, 1.0], "n_items": 5, "retention": 0.5, **changes}, InterpolateParams, where="p")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"alphas": []}, "alphas"),
        ({"alphas": [0.0, 1.0]}, "above 0"),
        ({"alphas": [-0.5]}, "above 0"),
        ({"alphas": [0.5, 1.01]}, "at most at 1"),
        ({"alphas": [1.0, 0.5]}, "ascending"),
        ({"alphas": [0.5, 0.5]}, "each once"),
        ({"alphas": 1.0}, "alphas"),
        ({"alphas": ["half"]}, "alphas"),
        ({"alphas": [float("nan")]}, "alphas"),
        ({"n_items": 0}, "n_items"),
        ({"retention": -0.1}, "retention"),
        ({"retention": 1.1}, "retention"),
        ({"rule": "best"}, "rule"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        params(**changes)


def test_one_alpha_leaves_nothing_to_choose():
    assert [params(alphas=alphas).chooses for alphas in ([1.0], [1], [0.3], [0.3, 1.0])] == [False] * 3 + [True]


def of_tier(name, tier):
    return sums().model_copy(update={"name": name, "tier": tier})


def test_watched_suites_have_no_say():
    every = [of_tier(name, tier) for name, tier in TIERS.items()]
    assert [each.name for each in choosing_suites(every, 0.5)] == ["t", "u", "a", "b", "s"]


@pytest.mark.parametrize(
    ("tiers", "retention", "missing"),
    [
        (("target",), 0.5, "required or safety"),
        (("required", "watched"), 0.5, "target"),
        (("safety",), 0.0, "target"),
        (("target",), 1.0, "required or safety"),
        ((), 0.5, "target"),
    ],
)
def test_a_side_with_weight_needs_a_suite(tiers, retention, missing):
    with pytest.raises(ConfigError, match=f"no suite has the tier {missing}"):
        choosing_suites([of_tier(f"n{i}", tier) for i, tier in enumerate(tiers)], retention)


@pytest.mark.parametrize(("tier", "retention"), [("target", 0.0), ("required", 1.0), ("safety", 1.0)])
def test_a_side_without_weight_needs_none(tier, retention):
    assert len(choosing_suites([of_tier("n", tier)], retention)) == 1


# The rule


def point(alpha, accuracy, base, retention=0.5):
    return measured_point(alpha, "sha256:w", accuracy, base=base, tiers=TIERS, retention=retention)


def curve(rows, base, retention=0.5):
    return [point(0.0, base, base, retention), *(point(alpha, row, base, retention) for alpha, row in rows.items())]


def test_the_gain_weighs_mean_changes_of_target_and_retained_suites():
    base = {"t": 0.1, "u": 0.3, "a": 0.8, "s": 0.5}
    found = point(0.4, {"t": 0.5, "u": 0.4, "a": 0.6, "s": 0.6}, base, retention=0.25)
    assert found.target == pytest.approx((0.5 + 0.4) / 2)
    assert found.retained == pytest.approx((0.6 + 0.6) / 2)
    assert found.gain == pytest.approx(0.75 * (0.4 + 0.1) / 2 + 0.25 * (-0.2 + 0.1) / 2)


def test_the_base_gains_nothing():
    assert point(0.0, {"t": 0.3, "a": 0.7}, {"t": 0.3, "a": 0.7}).gain == 0.0


def test_without_suites_of_a_side_its_accuracy_is_null_and_counts_nothing():
    found = point(0.5, {"t": 0.5}, {"t": 0.25}, retention=0.0)
    assert (found.retained, found.gain) == (None, 0.25)
    found = point(0.5, {"s": 0.5}, {"s": 0.75}, retention=1.0)
    assert (found.target, found.gain) == (None, -0.25)


@pytest.mark.parametrize(("retention", "expected"), [(0.0, 1.0), (0.3, 1.0), (0.6, 0.5), (0.9, 0.25), (1.0, 0.25)])
def test_the_weight_moves_the_choice_along_the_trade_off(retention, expected):
    """Target 0.2, 0.4, 0.5 against retained 0.8, 0.75, 0.6: each alpha is best for some weight."""
    base = {"t": 0.0, "a": 0.8}
    rows = {0.25: {"t": 0.2, "a": 0.8}, 0.5: {"t": 0.4, "a": 0.75}, 1.0: {"t": 0.5, "a": 0.6}}
    assert choose_alpha(curve(rows, base, retention)) == expected


def test_of_equal_gains_the_smallest_alpha_wins():
    base = {"t": 0.0, "a": 1.0}
    rows = {0.2: {"t": 0.1, "a": 1.0}, 0.4: {"t": 0.4, "a": 0.9}, 0.8: {"t": 0.5, "a": 0.8}, 1.0: {"t": 0.5, "a": 0.8}}
    assert choose_alpha(curve(rows, base)) == 0.4


def test_equal_hits_are_a_tie_whatever_order_they_are_summed_in():
    """0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in their last digit."""
    base = dict.fromkeys("tabs", 0.0)
    one, other = ({"t": 0.0, "a": x, "b": y, "s": z} for x, y, z in ((0.1, 0.2, 0.3), (0.3, 0.2, 0.1)))
    for first, second in ((one, other), (other, one)):
        assert choose_alpha(curve({0.3: first, 0.6: second}, base)) == 0.3


def test_a_flat_curve_gives_the_smallest_alpha_and_never_the_base():
    base = {"t": 0.5, "a": 0.5}
    assert choose_alpha(curve(dict.fromkeys((0.2, 0.6, 1.0), base), base)) == 0.2


def test_where_every_alpha_is_worse_than_the_base_the_least_bad_one_is_chosen():
    base = {"t": 0.5, "a": 0.9}
    rows = {0.5: {"t": 0.5, "a": 0.6}, 1.0: {"t": 0.5, "a": 0.7}}
    assert choose_alpha(curve(rows, base)) == 1.0


def test_a_difference_of_one_item_is_no_tie():
    base = {"t": 0.0, "a": 0.8}
    rows = {0.5: {"t": 25 / 50, "a": 0.8}, 1.0: {"t": 26 / 50, "a": 0.8}}
    assert choose_alpha(curve(rows, base)) == 1.0


@given(
    hits=st.lists(st.fixed_dictionaries({name: st.integers(0, 20) for name in "tuabs"}), min_size=2, max_size=7),
    weight=st.integers(0, 4),
)
def test_the_choice_is_that_of_whole_numbers(hits, weight):
    """Brute force without fractions: hits of two target and three retained suites of 20 items, weights in quarters."""
    base, *tried = hits
    rows = {(i + 1) / len(tried): {name: n / 20 for name, n in row.items()} for i, row in enumerate(tried)}
    found = choose_alpha(curve(rows, {name: n / 20 for name, n in base.items()}, weight / 4))
    gains = [
        (4 - weight) * 3 * sum(row[n] - base[n] for n in "tu") + weight * 2 * sum(row[n] - base[n] for n in "abs")
        for row in tried
    ]
    assert found == (gains.index(max(gains)) + 1) / len(tried)


def test_without_a_point_besides_the_base_there_is_no_choice():
    nothing = InterpolationPoint(alpha=0.0, weights="w", accuracy={}, target=None, retained=None, gain=0.0)
    with pytest.raises(ValueError, match="empty"):
        choose_alpha([nothing])
