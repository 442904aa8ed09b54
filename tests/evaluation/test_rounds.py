from itertools import pairwise

import pytest

from metagdpo.evaluation.items import Item
from metagdpo.evaluation.rounds import Asked, batches, score_in_rounds
from metagdpo.evaluation.suite import Suite
from metagdpo.params import validate
from metagdpo.records.item_score import ItemScore


def suite(name):
    items = {"kind": "files", "path": "unused"}
    known = {"skill": "s", "tier": "required", "metric": "acc", "n_items": 99, "chance": 0.5, "licence": "l"}
    return validate({**known, "name": name, "items": items, "source": "made up"}, Suite, where="s")


def items(n, clusters=None):
    return [Item(id=str(i), prompt=f"q{i}", cluster=clusters[i] if clusters else None) for i in range(n)]


def asked(name, n, key="sha256:0123456789abcdef0123"):
    return Asked(suite(name), items(n), key)


class Scorer:
    """Scores an item by its number, and remembers what it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, chosen, batch):
        self.calls.append((chosen.name, [int(item.id) for item in batch]))
        return [
            ItemScore(
                suite=chosen.name, item_id=item.id, doc="d", prompt="p", target="t", score=int(item.id) / 100, answer=""
            )
            for item in batch
        ]

    @property
    def n_items(self):
        return sum(len(batch) for _, batch in self.calls)


def after(**limits):
    """Stop a suite when it has so many scores."""
    return lambda scores: frozenset(name for name, limit in limits.items() if len(scores[name]) >= limit)


def ids(found):
    return {name: [int(score.item_id) for score in scores] for name, scores in found.items()}


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        (None, [2, 2, 1]),
        ("aabbc", [2, 2, 1]),
        ("aaabc", [3, 2]),
        ("abbbb", [5]),
        ([None, "a", "a", None, None], [3, 2]),
    ],
)
def test_a_batch_ends_where_a_cluster_ends(clusters, expected):
    """Definition: the shortest run of at least two items that parts no cluster; the last may be shorter."""
    chosen = items(5, clusters)
    found = list(batches(chosen, 2))
    assert expected == [len(batch) for batch in found]
    assert chosen == [item for batch in found for item in batch]
    for one, other in pairwise(found):
        assert one[-1].cluster is None or one[-1].cluster != other[0].cluster


def test_without_a_rule_suites_follow_each_other_and_every_item_is_scored(tmp_path):
    scorer = Scorer()
    found = score_in_rounds([asked("a", 3), asked("b", 5)], scorer, items_per_look=2, work=tmp_path)
    assert ids(found) == {"a": [0, 1, 2], "b": [0, 1, 2, 3, 4]}
    assert [("a", [0, 1]), ("a", [2]), ("b", [0, 1]), ("b", [2, 3]), ("b", [4])] == scorer.calls


def test_with_a_rule_suites_take_turns_and_stop_where_it_says(tmp_path):
    scorer, seen = Scorer(), []

    def stop(scores):
        seen.append({name: len(found) for name, found in scores.items()})
        return after(a=2)(scores)

    found = score_in_rounds([asked("a", 6), asked("b", 5)], scorer, items_per_look=2, work=tmp_path, stop=stop)
    assert ids(found) == {"a": [0, 1], "b": [0, 1, 2, 3, 4]}
    assert [("a", [0, 1]), ("b", [0, 1]), ("b", [2, 3]), ("b", [4])] == scorer.calls
    assert [{"a": 2, "b": 2}, {"a": 2, "b": 4}, {"a": 2, "b": 5}] == seen


def test_a_suite_that_was_stopped_stays_so(tmp_path):
    def stop(scores):
        return frozenset({"a"} if len(scores["b"]) == 1 else ())

    found = score_in_rounds([asked("a", 3), asked("b", 3)], Scorer(), items_per_look=1, work=tmp_path, stop=stop)
    assert ids(found) == {"a": [0], "b": [0, 1, 2]}


def test_a_kill_in_the_middle_of_a_suite_loses_at_most_one_batch(tmp_path):
    class Killed(Scorer):
        def __call__(self, chosen, batch):
            if batch[0].id == "4":
                raise KeyboardInterrupt
            return super().__call__(chosen, batch)

    with pytest.raises(KeyboardInterrupt):
        score_in_rounds([asked("a", 7)], Killed(), items_per_look=2, work=tmp_path)
    scorer = Scorer()
    found = score_in_rounds([asked("a", 7)], scorer, items_per_look=2, work=tmp_path)
    assert [("a", [4, 5]), ("a", [6])] == scorer.calls
    assert ids(found) == {"a": list(range(7))}


def test_a_full_evaluation_after_a_stopped_one_pays_only_for_the_rest(tmp_path):
    score_in_rounds([asked("a", 7)], Scorer(), items_per_look=2, work=tmp_path, stop=after(a=4))
    scorer, again = Scorer(), Scorer()
    full = score_in_rounds([asked("a", 7)], scorer, items_per_look=2, work=tmp_path)
    assert scorer.n_items == 3
    stopped = score_in_rounds([asked("a", 7)], again, items_per_look=2, work=tmp_path, stop=after(a=2))
    assert again.n_items == 0
    assert stopped == {"a": full["a"][:2]}


def test_another_key_shares_nothing(tmp_path):
    score_in_rounds([asked("a", 3)], Scorer(), items_per_look=2, work=tmp_path)
    # The same first digits name the same file: the whole key decides.
    for key in ("sha256:other", "sha256:0123456789abcdefXXXX"):
        scorer = Scorer()
        score_in_rounds([asked("a", 3, key)], scorer, items_per_look=2, work=tmp_path)
        assert scorer.n_items == 3


@pytest.mark.parametrize("damage", [lambda text: text[:-20], lambda text: text.replace('"start":2', '"start":"?"')])
def test_a_damaged_batch_is_scored_again_and_no_other(tmp_path, damage):
    whole = score_in_rounds([asked("a", 4)], Scorer(), items_per_look=2, work=tmp_path)
    (journal,) = tmp_path.iterdir()
    journal.write_text(damage(journal.read_text()))
    scorer = Scorer()
    assert whole == score_in_rounds([asked("a", 4)], scorer, items_per_look=2, work=tmp_path)
    assert [("a", [2, 3])] == scorer.calls


def test_what_was_done_is_said_once_a_suite(tmp_path, capsys):
    score_in_rounds([asked("a", 7)], Scorer(), items_per_look=2, work=tmp_path, stop=after(a=4))
    assert capsys.readouterr().out == "a: the first 4 of 7 items in 0 s\n"
    score_in_rounds([asked("a", 7)], Scorer(), items_per_look=2, work=tmp_path)
    assert capsys.readouterr().out == "a: 7 items in 0 s, 4 of them kept from before\n"
