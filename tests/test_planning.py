"""The plan of a project's own suites, and the noise floor under its margins."""

import pytest

from metagdpo.errors import ConfigError, EvidenceError
from metagdpo.evaluation.suite import Measured, load_suites
from metagdpo.gate.plan import PlannedSuite
from metagdpo.gate.policy import Policy, Relative
from metagdpo.planning import check_margins, make_plan, measure_noise, planned_suites
from metagdpo.records.item_score import EvaluationManifest, ItemScore, SuiteRun, documents_digest
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.noise import Noise, NoiseFloors
from metagdpo.schema import write_jsonl, write_record

POLICY = Policy(alpha=0.05, power=0.8, default_margin=0.04, min_items=1)
MODEL = ModelIdentity(reference="asset:tiny", weights="w", config="c", tokenizer="t", chat_template="x")


def item(name, value, cluster=None):
    return ItemScore(
        suite="a", item_id=name, doc="d", prompt="p", target="t", score=float(value), answer="", cluster=cluster
    )


def evaluation(folder, scores, *, batch_size=32, model=MODEL, harness="lm-eval 1"):
    rows = [item(str(i), value) for i, value in enumerate(scores)]
    documents = documents_digest((row.item_id, row.doc, row.target, row.cluster) for row in rows)
    run = SuiteRun(suite="a", task="task", documents=documents, n_items=len(rows), n_scored=len(rows))
    write_jsonl(folder / "scores.jsonl", rows)
    manifest = EvaluationManifest(
        model=model, suites=(run,), harness=harness, dtype="float32", batch_size=batch_size, items_per_look=32
    )
    write_record(folder / "manifest.json", manifest)
    return folder


def planned(margin, tier="required"):
    return PlannedSuite(suite="a", tier=tier, n_items=400, base=0.8, chance=0.5, margin=margin)


def test_the_noise_of_a_base_that_flips_nothing_is_what_the_items_cannot_exclude(tmp_path):
    """Without a flip the exact test excludes a margin m when (1 - m)^n <= alpha."""
    first = evaluation(tmp_path / "base", [1.0] * 400)
    second = evaluation(tmp_path / "noise", [1.0] * 400, batch_size=8)
    found = measure_noise(first, second, POLICY)
    assert found.other == {"batch_size": "32 -> 8"}
    assert (found.suites[0].flips, found.suites[0].difference) == (0, 0.0)
    assert found.suites[0].floor == pytest.approx(1 - 0.05 ** (1 / 400), abs=2e-3)


def test_flips_between_two_measurements_raise_the_floor(tmp_path):
    first = evaluation(tmp_path / "base", [1.0] * 400)
    quiet, loud = (
        measure_noise(first, evaluation(tmp_path / str(n), [0.0] * n + [1.0] * (400 - n), batch_size=8), POLICY)
        for n in (1, 20)
    )
    assert quiet.suites[0].floor < 0.05 < loud.suites[0].floor


@pytest.mark.parametrize("change", [{"model": MODEL.model_copy(update={"weights": "other"})}, {"harness": "lm-eval 2"}])
def test_an_a_a_run_of_something_else_is_refused(tmp_path, change):
    first = evaluation(tmp_path / "base", [1.0] * 50)
    with pytest.raises(EvidenceError, match="must not be compared"):
        measure_noise(first, evaluation(tmp_path / "noise", [1.0] * 50, **change), POLICY)


def test_without_a_second_measurement_there_is_no_floor(tmp_path):
    assert measure_noise(tmp_path, tmp_path, POLICY) == NoiseFloors(other={})


def floor(value):
    noise = Noise(suite="a", n_items=400, flips=3, difference=0.0, floor=value)
    return NoiseFloors(other={"batch_size": "32 -> 8"}, suites=(noise,))


def test_a_margin_below_the_floor_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"a: the margin is 1.00 points(.|\n)*3 of 400 items(.|\n)*below 1.50 points"):
        check_margins([planned(0.01)], floor(0.015))


def test_a_relative_margin_is_held_to_what_it_is_worth():
    """A tenth of the 30 points above chance is 3."""
    check_margins([planned(Relative(relative=0.1))], floor(0.029))
    with pytest.raises(ConfigError, match=r"margin is 3\.00 points"):
        check_margins([planned(Relative(relative=0.1))], floor(0.031))


def test_what_does_not_decide_by_a_margin_is_not_held_to_one():
    check_margins([planned(0.01, "watched"), planned(0.01, "target")], floor(0.5))


def test_suites_are_planned_with_the_bases_scores_or_with_what_their_file_states(pytestconfig):
    suites = load_suites(pytestconfig.rootpath / "registry/suites")
    piqa = next(suite for suite in suites if suite.name == "piqa")
    scores = [item(str(number), number % 2) for number in range(150)]
    stated, measured = planned_suites(POLICY, [piqa], {}), planned_suites(POLICY, [piqa], {"piqa": scores})
    assert isinstance(piqa.measured, Measured)
    assert (stated[0].n_items, stated[0].base) == (piqa.n_items, piqa.measured.accuracy)
    assert (measured[0].n_items, measured[0].base, measured[0].n_clusters) == (150, 0.5, None)


def test_clusters_are_counted_and_an_item_without_one_is_its_own(pytestconfig):
    piqa = next(suite for suite in load_suites(pytestconfig.rootpath / "registry/suites") if suite.name == "piqa")
    scores = [item(str(number), 1.0, cluster=None if number < 3 else str(number % 2)) for number in range(40)]
    assert planned_suites(POLICY, [piqa], {"piqa": scores})[0].n_clusters == 3 + 2


def test_a_flip_rate_can_be_assumed_for_one_plan():
    few, many = (make_plan(POLICY, [planned(0.04)], flip_rate=rate)[0] for rate in (0.01, 0.2))
    assert few.power_if_unchanged > 0.9 > many.power_if_unchanged
