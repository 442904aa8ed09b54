import itertools

import pytest

from metagdpo.errors import EvidenceError
from metagdpo.evaluation.pairing import NOISE, pair
from metagdpo.records.item_score import EvaluationManifest, Generation, ItemScore, SuiteRun, documents_digest
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.paired import PairedScore

BASE = ModelIdentity(reference="asset:base", weights="w", config="c", tokenizer="t", chat_template="m")
TUNED = BASE.model_copy(update={"reference": "candidate", "adapter": "a"})
SUITES = ("birds", "fish")
GREEDY = Generation(max_new_tokens=8, stop=("\n",), temperature=0.0)


def manifest(model=TUNED, by_suite=None, **changes):
    documents = documents_digest((item, "d" + item, "t" + item, None) for item in "123")
    known = {"task": "task", "generation": GREEDY, "documents": documents, "n_items": 3, "n_scored": 3}
    runs = tuple(SuiteRun(**{**known, "suite": name, **(by_suite or {}).get(name, {})}) for name in SUITES)
    measured = {"harness": "lm-eval 0", "dtype": "float32", "batch_size": 8, "items_per_look": 32}
    return EvaluationManifest(**{**measured, "model": model, "suites": runs, **changes})


def scores(*values):
    """Three items of each suite; a value of None leaves the item out."""
    return [
        ItemScore(
            suite=suite, item_id=item, doc="d" + item, prompt="p" + item, target="t" + item, score=value, answer=""
        )
        for (suite, item), value in zip(itertools.product(SUITES, "123"), values, strict=True)
        if value is not None
    ]


BEFORE = scores(1.0, 0.0, 0.25, 1.0, 1.0, 0.0)
AFTER = scores(1.0, 1.0, 0.5, 0.0, 1.0, 0.0)


def paired(before=BEFORE, after=AFTER, base_manifest=None, candidate_manifest=None, **settings):
    models = {"reference": BASE, "candidate": TUNED, **settings}
    return pair(before, base_manifest or manifest(BASE), after, candidate_manifest or manifest(), **models)


def changed(position, **fields):
    return [score.model_copy(update=fields if i == position else {}) for i, score in enumerate(AFTER)]


def test_scores_of_the_same_item_are_paired_in_the_order_of_the_items():
    found = paired()
    assert found == {
        "birds": [
            PairedScore(item_id="1", before=1.0, candidate=1.0),
            PairedScore(item_id="2", before=0.0, candidate=1.0),
            PairedScore(item_id="3", before=0.25, candidate=0.5),
        ],
        "fish": [
            PairedScore(item_id="1", before=1.0, candidate=0.0),
            PairedScore(item_id="2", before=1.0, candidate=1.0),
            PairedScore(item_id="3", before=0.0, candidate=0.0),
        ],
    }
    # Suites may lie in the files as they like.
    assert found == paired(after=[*AFTER[3:], *AFTER[:3]])


def test_the_cluster_comes_along():
    documents = documents_digest(("123"[i], f"d{i + 1}", f"t{i + 1}", "passage") for i in range(3))
    suites = {name: {"documents": documents} for name in SUITES}
    before, after = ([s.model_copy(update={"cluster": "passage"}) for s in side] for side in (BEFORE, AFTER))
    found = paired(before, after, manifest(BASE, suites), manifest(TUNED, suites))
    assert {"passage"} == {each.cluster for pairs in found.values() for each in pairs}


def only(field):
    """The refusal names this field and none of the others, as `... field differs` or `... field: ...`."""
    return rf"compared: (suite \w+(, item \d)?: |model\.|candidate model, |reference model, )?{field}( differs|:)"


@pytest.mark.parametrize(
    ("field", "value"),
    [("harness", "lm-eval 1"), ("dtype", "bfloat16"), ("batch_size", 9), ("items_per_look", 16), ("suites", ())],
)
def test_another_way_of_measuring_is_refused_by_its_name(field, value):
    with pytest.raises(EvidenceError, match=only(field)):
        paired(candidate_manifest=manifest(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "other"),
        ("documents", "other"),
        ("n_items", 4),
        ("generation", None),
        ("generation", GREEDY.model_copy(update={"max_new_tokens": 9})),
        ("generation", GREEDY.model_copy(update={"stop": ()})),
        ("generation", GREEDY.model_copy(update={"temperature": 0.5})),
    ],
)
def test_another_run_of_a_suite_is_refused_by_its_name(field, value):
    with pytest.raises(EvidenceError, match=only(field)):
        paired(candidate_manifest=manifest(by_suite={"fish": {field: value}}))


@pytest.mark.parametrize("field", ["doc", "prompt", "target", "cluster"])
def test_another_item_of_the_same_name_is_refused_by_its_field(field):
    with pytest.raises(EvidenceError, match=only(field)):
        paired(after=changed(3, **{field: "other"}))


@pytest.mark.parametrize("field", ["weights", "adapter", "config", "tokenizer", "chat_template"])
@pytest.mark.parametrize("role", ["reference", "candidate"])
def test_scores_of_another_model_are_refused_by_its_field(field, role):
    side, model = {"reference": ("base_manifest", BASE), "candidate": ("candidate_manifest", TUNED)}[role]
    other = manifest(model.model_copy(update={field: "other"}))
    with pytest.raises(EvidenceError, match=only(field)) as caught:
        paired(**{side: other})
    assert f"{role} model, {field}: " in str(caught.value)


@pytest.mark.parametrize("field", ["tokenizer", "chat_template"])
def test_models_that_read_differently_are_refused(field):
    """Also when both are the models that the records name."""
    other = TUNED.model_copy(update={field: "other"})
    with pytest.raises(EvidenceError, match=only(field)):
        paired(candidate_manifest=manifest(other), candidate=other)


def test_a_champion_is_a_reference_like_the_base():
    champion = TUNED.model_copy(update={"adapter": "champion"})
    assert paired() == paired(base_manifest=manifest(champion), reference=champion)
    with pytest.raises(
        EvidenceError, match="reference model, adapter: the record says champion, the scores are of None"
    ):
        paired(reference=champion)


def test_where_a_model_lies_does_not_matter():
    assert paired() == paired(base_manifest=manifest(BASE.model_copy(update={"reference": "there", "licence": "MIT"})))


# Stopped early.


def stopped(n):
    return manifest(by_suite={"fish": {"n_scored": n}})


@pytest.mark.parametrize("n", [1, 2])
def test_a_candidate_that_was_stopped_early_is_compared_on_its_first_items(n):
    found = paired(after=AFTER[: 3 + n], candidate_manifest=stopped(n))
    assert found == {"birds": paired()["birds"], "fish": paired()["fish"][:n]}


@pytest.mark.parametrize(
    ("after", "n_scored", "message"),
    [
        (scores(1.0, 1.0, 1.0, 1.0, None, 1.0), 2, "suite fish, position 2: item_id differs: reference 2, candidate 3"),
        (scores(1.0, 1.0, 1.0, None, 1.0, 1.0), 2, "suite fish, position 1: item_id differs: reference 1, candidate 2"),
        ([*AFTER[:3], *AFTER[3:][::-1]], 3, "suite fish, position 1: item_id differs: reference 1, candidate 3"),
        (changed(4, item_id="9"), 3, "suite fish, position 2: item_id differs: reference 2, candidate 9"),
        (AFTER[:-1], 3, "suite fish: the candidate has scores of 2 items, its manifest says 3"),
        (AFTER, 2, "suite fish: the candidate has scores of 3 items, its manifest says 2"),
        (AFTER[:3], 0, "suite fish: n_scored of the candidate is 0"),
        (AFTER, 4, "suite fish: n_scored of the candidate is 4"),
        (AFTER[:3], 3, "suite fish: the candidate has scores of 0 items, its manifest says 3"),
    ],
    ids=["gap", "not the first", "reversed", "renamed", "missing", "too many", "none", "beyond", "nothing"],
)
def test_anything_but_the_first_items_in_their_order_is_refused(after, n_scored, message):
    with pytest.raises(EvidenceError, match=message):
        paired(after=after, candidate_manifest=stopped(n_scored))


def test_the_reference_is_complete():
    with pytest.raises(EvidenceError, match="suite fish: n_scored of the reference is 2, and it needs all 3"):
        paired(BEFORE[:5], base_manifest=manifest(BASE, {"fish": {"n_scored": 2}}))


def test_the_order_is_that_of_the_documents_and_not_what_both_files_agree_on():
    """Two files that were sorted alike are not in the order in which items were drawn."""
    with pytest.raises(EvidenceError, match="suite fish: documents of the manifest are not those of the scores"):
        paired([*BEFORE[:3], *BEFORE[3:][::-1]], [*AFTER[:3], *AFTER[3:][::-1]])


# What is no score.


@pytest.mark.parametrize(
    ("before", "after", "name"), [(BEFORE, [*AFTER, AFTER[0]], "candidate"), ([*BEFORE, BEFORE[0]], AFTER, "reference")]
)
def test_a_repeated_item_is_refused(before, after, name):
    with pytest.raises(EvidenceError, match=f"suite birds, item 1: the {name} has more than one score"):
        paired(before, after)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_a_score_that_is_no_score_is_refused(value):
    with pytest.raises(EvidenceError, match=r"suite fish, item 1: score of the candidate is .*, not in 0\.\.1"):
        paired(after=changed(3, score=value))


def test_scores_of_a_suite_that_no_manifest_knows_are_refused():
    with pytest.raises(EvidenceError, match="suite cats: has scores of the candidate, but is not in its manifest"):
        paired(after=[*AFTER, AFTER[0].model_copy(update={"suite": "cats"})])


def test_a_suite_that_stands_twice_is_refused():
    twice = {"suites": manifest().suites * 2}
    with pytest.raises(EvidenceError, match="suites: birds, fish stands more than once"):
        paired(base_manifest=manifest(BASE, **twice), candidate_manifest=manifest(**twice))


# The A/A run.


@pytest.mark.parametrize(("field", "value"), [("dtype", "bfloat16"), ("batch_size", 16), ("items_per_look", 8)])
def test_one_model_may_be_compared_with_itself_measured_otherwise(field, value):
    other = manifest(BASE, **{field: value})
    found = paired(candidate_manifest=other, candidate=BASE, differing=frozenset({field}))
    assert found == paired()
    with pytest.raises(EvidenceError, match=only(field)):
        paired(candidate_manifest=other, candidate=BASE, differing=NOISE - {field})


def test_what_may_differ_is_for_one_model_only():
    with pytest.raises(EvidenceError, match="candidate model, adapter: an A/A run is of one model"):
        paired(differing=NOISE)


@pytest.mark.parametrize("field", ["harness", "documents", "prompt", "generation"])
def test_nothing_else_may_ever_differ(field):
    with pytest.raises(ValueError, match="may never differ"):
        paired(candidate_manifest=manifest(BASE), candidate=BASE, differing=frozenset({field}))
