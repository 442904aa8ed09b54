import itertools
import json
import math
import random

import pytest

from metagdpo.answers import score_answer
from metagdpo.errors import ConfigError, DataError
from metagdpo.evaluation.items import Item, build_items, collect
from metagdpo.evaluation.suite import Suite
from metagdpo.params import validate
from metagdpo.schema import read_jsonl, write_jsonl

LETTERED = {"kind": "lettered", "options": "options", "answer": "answer"}
ROWS = [
    {"q": f"Question {number}?", "options": "A. yes, it is\nB. no", "answer": "B. no", "kind": "easy"}
    for number in range(6)
]


def suite(items, **changes):
    known = {
        "name": "s", "skill": "skill", "tier": "required", "metric": "acc", "items": items, "n_items": 100,
        "chance": 0.5, "licence": "CC0", "source": "made up",
    }  # fmt: skip
    return validate({**known, **changes}, Suite, where="s.yaml")


def asset(tmp_path, rows, **changes):
    (tmp_path / "a").mkdir(exist_ok=True)
    (tmp_path / "a" / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = {"kind": "asset", "asset": "a", "file": "f.jsonl", "prompt": "Q: {q}", "options": LETTERED}
    return suite({**items, **changes.pop("items", {})}, **changes)


def procedural(metric="exact", family="chain_sum", **items):
    known = {"kind": "procedural", "family": family, "seed": 3, "size": 20}
    written = {"max_new_tokens": 8} if metric == "exact" else {}
    return suite({**known, **items}, metric=metric, **written)


def lines(tmp_path, rows, metric="acc", **items):
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = {"max_new_tokens": 8} if metric == "exact" else {}
    return suite({"kind": "files", "path": str(path), **items}, metric=metric, **written)


def test_lettered_options_lose_their_letters(tmp_path):
    (item,) = build_items(asset(tmp_path, ROWS[:1]), tmp_path)
    assert (item.prompt, item.options, item.gold) == ("Q: Question 0?", ("no", "yes, it is"), 0)


def test_options_in_fields_are_sorted_so_that_ties_favour_no_one(tmp_path):
    rows = [{"q": "1", "good": "b", "bad": "a"}, {"q": "2", "good": "b", "bad": "c"}]
    chosen = asset(tmp_path, rows, items={"options": {"kind": "fields", "right": "good", "wrong": ["bad"]}})
    found = {item.prompt: (item.options, item.gold) for item in build_items(chosen, tmp_path)}
    assert found == {"Q: 1": (("a", "b"), 1), "Q: 2": (("b", "c"), 0)}


def test_only_rows_that_match_are_taken(tmp_path):
    rows = [*ROWS, {**ROWS[0], "q": "hard", "kind": "hard"}]
    assert [i.prompt for i in build_items(asset(tmp_path, rows, items={"where": {"kind": "hard"}}), tmp_path)] == [
        "Q: hard"
    ]


def test_repeated_documents_are_kept_once_and_counted(tmp_path):
    found = collect(asset(tmp_path, [*ROWS, ROWS[2], ROWS[2]]), tmp_path)
    assert (len(found.items), found.n_documents, found.n_duplicates) == (6, 8, 2)


def test_the_subset_depends_on_the_seed_and_on_nothing_else(tmp_path):
    first = build_items(asset(tmp_path, ROWS, n_items=4), tmp_path)
    assert first == build_items(asset(tmp_path, ROWS, n_items=4), tmp_path)
    assert first != build_items(asset(tmp_path, ROWS, n_items=4, seed=1), tmp_path)
    assert len({item.id for item in first}) == 4


def test_items_are_shuffled_also_when_all_of_them_are_taken(tmp_path):
    rows = [{**ROWS[0], "q": f"Question {number}?"} for number in range(100)]
    prompts = [item.prompt for item in build_items(asset(tmp_path, rows), tmp_path)]
    in_order = [f"Q: {row['q']}" for row in rows]
    assert sorted(in_order) == sorted(prompts)
    # Rank correlation with the file's order; its standard error for a random order is 1 / sqrt(99).
    places = [prompts.index(prompt) for prompt in in_order]
    rho = 1 - 6 * sum((i - place) ** 2 for i, place in enumerate(places)) / (100 * (100**2 - 1))
    assert abs(rho) < 4 / math.sqrt(99)


def test_fewer_items_of_a_suite_are_the_first_ones_of_more(tmp_path):
    fewer, more = (build_items(asset(tmp_path, ROWS, n_items=n), tmp_path) for n in (3, 6))
    assert fewer == more[:3]


def clustered(tmp_path, sizes, **changes):
    """Clusters named by their number, their rows mixed in the file; a size of 0 is an item without neighbours."""
    names = [f"c{number}" for number, size in enumerate(sizes) for _ in range(size)]
    random.Random(0).shuffle(names)
    rows = [{**ROWS[0], "q": f"{name} {number}", "passage": name} for number, name in enumerate(names)]
    return asset(tmp_path, rows, items={"cluster": "passage"}, **changes)


def runs_of(items):
    return [(cluster, len(list(group))) for cluster, group in itertools.groupby(items, key=lambda item: item.cluster)]


def test_a_cluster_stays_together_and_whole_and_clusters_are_in_random_order(tmp_path):
    sizes = [1, 4, 2, 7, 3, 5, 6, 2]
    found = runs_of(build_items(clustered(tmp_path, sizes), tmp_path))
    assert sorted(found) == [(f"c{number}", size) for number, size in enumerate(sizes)]
    assert found != sorted(found)
    other = runs_of(build_items(clustered(tmp_path, sizes, seed=1), tmp_path))
    assert found != other


def test_a_subset_ends_before_the_first_cluster_that_does_not_fit(tmp_path):
    sizes = [1, 4, 2, 7, 3, 5, 6, 2]
    every = runs_of(build_items(clustered(tmp_path, sizes), tmp_path))
    for n_items in range(7, 30):
        found = runs_of(build_items(clustered(tmp_path, sizes, n_items=n_items), tmp_path))
        ends = itertools.accumulate(size for _, size in every)
        assert every[: sum(end <= n_items for end in ends)] == found


def test_a_cluster_that_could_never_be_drawn_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"suite s: cluster c3 has 7 items, more than its n_items \(6\)"):
        build_items(clustered(tmp_path, [1, 4, 2, 7], n_items=6), tmp_path)


def test_lines_carry_their_cluster_and_may_stand_alone(tmp_path):
    rows = [{"prompt": f"p{n}", "answer": "4", "cluster": c} for n, c in enumerate(["x", None, "y", "x", None])]
    found = build_items(lines(tmp_path, rows, "exact"), tmp_path)
    assert {item.prompt: item.cluster for item in found} == {row["prompt"]: row["cluster"] for row in rows}
    assert sorted(size for cluster, size in runs_of(found) if cluster) == [1, 2]


def test_an_id_that_stands_for_two_items_is_refused(tmp_path):
    rows = [{"id": "x", "prompt": f"p{n}", "answer": "4"} for n in range(2)]
    with pytest.raises(DataError, match="suite s: 1 ids stand for several items each, such as 'x'"):
        build_items(lines(tmp_path, rows, "exact"), tmp_path)


def test_items_survive_their_file(tmp_path):
    items = build_items(procedural(), tmp_path)
    write_jsonl(tmp_path / "s.jsonl", items)
    assert items == tuple(read_jsonl(tmp_path / "s.jsonl", Item))


def test_a_suite_without_items_is_refused_by_its_file(tmp_path):
    with pytest.raises(ConfigError, match=r"suite s has no items: asset:a yields none .* registry/suites/s\.yaml"):
        build_items(asset(tmp_path, ROWS, items={"where": {"kind": "none"}}), tmp_path)


def test_a_missing_asset_names_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"f\.jsonl does not exist\. Run `dvc repro assets`"):
        build_items(asset(tmp_path, ROWS), tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": "A. a\nB. b", "answer": "A. a"}, "line 2: not an item .*KeyError: 'q'"),
        ({"q": "?", "options": "A. a\nB. b", "answer": "C. c"}, "line 2: not an item .*IndexError"),
        ({"q": "?", "options": "A. a\nB. b", "answer": "neither"}, "line 2: not an item .*begins with no letter"),
        ({"q": "?", "options": None, "answer": "A. a"}, "line 2: not an item .*TypeError"),
        ([1], "line 2: expected an object, got list"),
    ],
)
def test_a_row_that_is_no_item_is_named_by_its_line(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        build_items(asset(tmp_path, [ROWS[0], row]), tmp_path)


def test_a_line_that_is_not_json_is_named(tmp_path):
    chosen = asset(tmp_path, ROWS[:1])
    (tmp_path / "a" / "f.jsonl").write_text("{}}\n")
    with pytest.raises(DataError, match="line 1: not JSON"):
        build_items(chosen, tmp_path)


def test_procedural_answers_get_the_full_score_of_their_own_verifier(tmp_path):
    items = build_items(procedural(), tmp_path)
    assert [1.0] * len(items) == [score_answer(item.question, item.question.reference_answer) for item in items]


def test_worked_examples_stand_before_every_question_and_are_no_items(tmp_path):
    found = build_items(procedural(shots=2, prompt="Q: {question}\nA:"), tmp_path)
    heads = {item.prompt.rsplit("Q: ", 1)[0] for item in found}
    assert len(heads) == 1
    (head,) = heads
    assert head.count("\nA: ") == 2
    assert all(f"Q: {item.question.prompt}\n" not in head for item in found)


def test_the_boxed_form_is_asked_by_the_answer_contract(tmp_path):
    item = build_items(procedural(answer="boxed"), tmp_path)[0]
    assert item.prompt == f"{item.question.prompt}\nPut the final answer in \\boxed{{}}."


def test_a_family_with_few_answers_can_be_a_choice(tmp_path):
    items = build_items(procedural("acc", "syllogism", options=["Yes", "No"]), tmp_path)
    assert all(item.options == ("No", "Yes") and item.gold in {0, 1} for item in items)


def test_an_answer_outside_the_options_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is none of its options"):
        build_items(procedural("acc", "syllogism", options=["perhaps", "never"]), tmp_path)


@pytest.mark.parametrize(("family", "config"), [("no_such_family", {}), ("chain_sum", {"no_such_setting": 1})])
def test_what_reasoning_gym_does_not_know_is_refused(tmp_path, family, config):
    with pytest.raises(ConfigError, match=f"reasoning-gym cannot make the family `{family}`"):
        build_items(procedural(family=family, config=config), tmp_path)


def test_lines_of_a_file_may_be_choices_or_written_answers(tmp_path):
    (item,) = build_items(lines(tmp_path, [{"id": "x", "prompt": "p", "options": ["b", "a"], "gold": 0}]), tmp_path)
    assert (item.id, item.options, item.gold) == ("x", ("a", "b"), 1)
    (item,) = build_items(lines(tmp_path, [{"prompt": "p", "answer": "4", "verifier": "numeric"}], "exact"), tmp_path)
    assert (item.question.verifier, item.question.reference_answer) == ("numeric", "4")


@pytest.mark.parametrize(
    ("row", "metric", "message"),
    [
        ({"prompt": "p", "options": ["a"], "gold": 0}, "acc", "line 1: a choice needs at least two"),
        ({"prompt": "p", "options": ["a", "b"], "gold": 2}, "acc", "line 1: a choice needs at least two"),
        ({"prompt": "p"}, "exact", "line 1: `metric: exact` needs `answer`"),
        ({"promt": "p"}, "exact", "line 1: prompt: Field required"),
    ],
)
def test_lines_that_do_not_fit_the_suite_are_named(tmp_path, row, metric, message):
    with pytest.raises(DataError, match=message):
        build_items(lines(tmp_path, [row], metric), tmp_path)
