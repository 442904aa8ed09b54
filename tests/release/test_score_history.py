"""The scores of base and releases, kept for the matrix over all of them."""

import pytest

from metagdpo.records.item_score import EvaluationManifest, ItemScore, SuiteRun
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.release.score_history import keep, read_history, scores_of

MODEL = ModelIdentity(reference="asset:tiny", weights="w", config="c", tokenizer="t", chat_template="x")


def row(version, *, scored=3, documents="d", batch_size=32, cluster=None):
    scores = [
        ItemScore(suite="a", item_id=str(i), doc="", prompt="", target="", score=i / 2, answer="", cluster=cluster)
        for i in range(scored)
    ]
    run = SuiteRun(suite="a", task="t", documents=documents, n_items=3, n_scored=scored)
    manifest = EvaluationManifest(
        model=MODEL, suites=(run,), harness="h", dtype="float32", batch_size=batch_size, items_per_look=32
    )
    verdict = None if version == 0 else f"sha256:{version}"
    return scores_of(scores, manifest, model_name="unit", version=version, verdict=verdict, trained=("a",))


def test_rows_come_back_in_the_order_of_their_versions(tmp_path):
    rows = [row(number) for number in (10, 0, 2)]
    for each in rows:
        keep(tmp_path, each)
    rows, notes = read_history(tmp_path, "unit")
    assert ([found.version for found in rows], notes) == ([0, 2, 10], ())
    assert rows[0].suites[0].scores == (0.0, 0.5, 1.0)
    assert read_history(tmp_path, "other") == ((), ())


def test_the_first_base_stays(tmp_path):
    keep(tmp_path, row(0))
    keep(tmp_path, row(0, cluster="passage"))
    assert read_history(tmp_path, "unit")[0][0].suites[0].clusters is None


def test_a_suite_that_was_stopped_early_is_a_missing_cell():
    assert row(1, scored=2).suites == ()


def test_clusters_are_kept_where_there_are_any():
    assert row(1, cluster="passage").suites[0].clusters == ("passage",) * 3


@pytest.mark.parametrize("changed", [{"batch_size": 8}, {"documents": "e"}])
def test_what_does_not_compare_with_the_newest_row_is_a_missing_cell_and_said(tmp_path, changed):
    keep(tmp_path, row(0))
    keep(tmp_path, row(1))
    keep(tmp_path, row(2, **changed))
    rows, notes = read_history(tmp_path, "unit")
    assert [len(found.suites) for found in rows] == [0, 0, 1]
    assert [note.split(":")[0] for note in notes] == [f"version {number} is left out on a" for number in (0, 1)]


def test_a_base_that_was_asked_other_items_is_written_anew(tmp_path):
    keep(tmp_path, row(0))
    keep(tmp_path, row(0, documents="e"))
    assert read_history(tmp_path, "unit")[0][0].suites[0].documents == "e"
