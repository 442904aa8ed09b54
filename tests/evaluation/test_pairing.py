import itertools

import pytest

from metagdpo.errors import EvidenceError
from metagdpo.evaluation.pairing import pair
from metagdpo.records.candidate import Candidate
from metagdpo.records.item_score import EvaluationManifest, ItemScore, SuiteRun
from metagdpo.records.model_identity import ModelIdentity

BASE = ModelIdentity(reference="asset:base", weights="w", config="c", tokenizer="t", chat_template="m")
TUNED = BASE.model_copy(update={"reference": "candidate", "adapter": "a"})
CANDIDATE = Candidate(
    identity=TUNED, base=BASE, method="lora", objective="gdpo", run_key="k", data={}, params={}, steps=1, n_groups=1,
    n_skipped_groups=0, files={},
)  # fmt: skip


def manifest(model, **changes):
    runs = tuple(SuiteRun(suite=name, task="task", documents="documents", n_items=2) for name in ("birds", "fish"))
    known = {"model": model, "suites": runs, "harness": "lm-eval 0", "dtype": "float32", "batch_size": 8}
    return EvaluationManifest(**{**known, **changes})


def scores(*values):
    return [
        ItemScore(
            suite=suite, item_id=item, doc="d" + item, prompt="p" + item, target="t" + item, score=value, answer=""
        )
        for (suite, item), value in zip(itertools.product(("birds", "fish"), "12"), values, strict=True)
    ]


def paired(base=None, candidate=None, base_manifest=None, candidate_manifest=None):
    return pair(
        base or scores(1.0, 0.0, 1.0, 1.0),
        base_manifest or manifest(BASE),
        candidate or scores(1.0, 1.0, 0.0, 1.0),
        candidate_manifest or manifest(TUNED),
        candidate=CANDIDATE,
    )


def test_scores_of_the_same_item_are_paired_whatever_their_order():
    expected = {"birds": [(1.0, 1.0), (0.0, 1.0)], "fish": [(1.0, 0.0), (1.0, 1.0)]}
    assert expected == paired()
    assert expected == paired(candidate=scores(1.0, 1.0, 0.0, 1.0)[::-1])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("harness", "lm-eval 1", "harness differs: base lm-eval 0, candidate lm-eval 1"),
        ("dtype", "bfloat16", "dtype differs"),
        ("batch_size", 9, "batch_size differs: base 8, candidate 9"),
        ("suites", (), r"suites differs: base \['birds', 'fish'\]"),
    ],
)
def test_another_way_of_measuring_is_refused_by_name(field, value, message):
    with pytest.raises(EvidenceError, match=message):
        paired(candidate_manifest=manifest(TUNED, **{field: value}))


@pytest.mark.parametrize("field", ["task", "documents", "n_items"])
def test_another_run_of_a_suite_is_refused_by_name(field):
    runs = list(manifest(TUNED).suites)
    runs[1] = runs[1].model_copy(update={field: 3 if field == "n_items" else "other"})
    with pytest.raises(EvidenceError, match=f"suite fish: {field} differs"):
        paired(candidate_manifest=manifest(TUNED, suites=tuple(runs)))


@pytest.mark.parametrize("field", ["doc", "prompt", "target"])
def test_another_item_of_the_same_name_is_refused(field):
    changed = scores(1.0, 1.0, 0.0, 1.0)
    changed[2] = changed[2].model_copy(update={field: "other"})
    with pytest.raises(EvidenceError, match=f"suite fish, item 1: {field} differs"):
        paired(candidate=changed)


def test_a_missing_item_is_never_compared_unpaired():
    with pytest.raises(EvidenceError, match="suite fish: the candidate has scores of 1 items, its manifest says 2"):
        paired(candidate=scores(1.0, 1.0, 0.0, 1.0)[:-1])


def test_a_renamed_item_has_no_twin():
    changed = scores(1.0, 1.0, 0.0, 1.0)
    changed[0] = changed[0].model_copy(update={"item_id": "9"})
    with pytest.raises(EvidenceError, match="suite birds, item 1: has a score of the base and none of the candidate"):
        paired(candidate=changed)


def test_a_repeated_item_is_refused():
    with pytest.raises(EvidenceError, match="suite birds, item 1: the base has more than one score"):
        paired(base=[*scores(1.0, 0.0, 1.0, 1.0), scores(1.0, 0.0, 1.0, 1.0)[0]])


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1])
def test_a_score_that_is_no_score_is_refused(value):
    broken = scores(1.0, 1.0, 0.0, 1.0)
    broken[3] = broken[3].model_copy(update={"score": value})
    with pytest.raises(EvidenceError, match=r"score of the candidate is .*, not in 0\.\.1"):
        paired(candidate=broken)


@pytest.mark.parametrize("field", ["weights", "tokenizer", "chat_template", "config", "adapter"])
def test_scores_of_another_base_are_refused(field):
    other = manifest(BASE.model_copy(update={field: "other"}))
    with pytest.raises(EvidenceError, match=f"base model, {field}: the candidate's record says"):
        paired(base_manifest=other)


def test_scores_of_another_candidate_are_refused():
    with pytest.raises(
        EvidenceError, match="candidate model, adapter: the candidate's record says a, the scores are of b"
    ):
        paired(candidate_manifest=manifest(TUNED.model_copy(update={"adapter": "b"})))


def test_where_a_model_lies_does_not_matter():
    moved = manifest(BASE.model_copy(update={"reference": "elsewhere", "licence": "MIT"}))
    assert paired() == paired(base_manifest=moved)
