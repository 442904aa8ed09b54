"""Inspect logs: what is read from real files, and what is refused."""

import json
import math
import zipfile
from pathlib import Path

import pytest

from metagdpo.errors import ConfigError, DataError, EvidenceError
from metagdpo.exchange.inspect_log import VALUES, is_inspect, read_inspect
from metagdpo.exchange.score_set import Reading

FIXTURES = Path(__file__).parent / "fixtures/inspect"
READING = Reading()


def sample(number, **changes):
    def change(document):
        document["samples"][number].update(changes)

    return change


def value(number, new):
    def change(document):
        document["samples"][number]["scores"]["match"]["value"] = new

    return change


def of_eval(**changes):
    return lambda document: document["eval"].update(changes)


@pytest.mark.parametrize("model", ["base", "tuned"])
def test_both_formats_of_one_evaluation_say_the_same(model):
    """Two runs of a scripted model, one logged as .eval, one as .json: items, identity and names are equal."""
    binary, text = (read_inspect(FIXTURES / f"{model}-{kind}", READING) for kind in ("eval", "json"))
    assert (binary.suites, binary.identity, binary.model) == (text.suites, text.identity, text.model)


@pytest.mark.parametrize("model", ["base", "tuned"])
def test_the_mean_over_items_is_the_accuracy_that_inspect_reports(model):
    path = next((FIXTURES / f"{model}-json").glob("*_sums_*"))
    scores = [scored.score for scored in read_inspect(path, READING).suites["sums"].values()]
    reported = json.loads(path.read_text())["results"]["scores"][0]["metrics"]["accuracy"]["value"]
    assert reported == pytest.approx(sum(scores) / len(scores))


def test_items_are_samples_with_the_digests_of_what_was_asked():
    items = read_inspect(FIXTURES / "base-json", READING).suites["sums"]
    assert ["sum-0", "sum-1", "sum-2"] == list(items)
    assert ["input", "prompt", "target"] == [name for name, _ in items["sum-0"].content]


def test_a_changed_system_message_changes_the_prompt(inspect_log):
    def reword(document):
        document["samples"][0]["messages"][0]["content"] = "Answer in words."

    plain = dict(read_inspect(inspect_log("base"), READING).suites["sums"]["sum-0"].content)
    changed = dict(read_inspect(inspect_log("base", reword), READING).suites["sums"]["sum-0"].content)
    assert ["prompt"] == [name for name in plain if plain[name] != changed[name]]


@pytest.mark.parametrize(("letter", "score"), VALUES.items())
def test_letters_are_scores(inspect_log, letter, score):
    assert score == read_inspect(inspect_log("base", value(0, letter)), READING).suites["sums"]["sum-0"].score


@pytest.mark.parametrize("wrong", ["X", math.nan, None, 3, [1]])
def test_a_value_that_is_no_score_is_refused(inspect_log, wrong):
    """Inspect writes NaN for samples that it could not score."""
    with pytest.raises(EvidenceError, match="suite sums, item sum-0: the value of match is"):
        read_inspect(inspect_log("base", value(0, wrong)), READING)


def test_over_epochs_the_mean_is_a_graded_score(tmp_path):
    path = next((FIXTURES / "base-epochs").iterdir())
    assert {1.0} == {scored.score for scored in read_inspect(path, READING).suites["sums"].values()}
    scores = {("sum-0", 1): "C", ("sum-0", 2): "I"}
    rewritten = rewrite(path, tmp_path / "a.eval", lambda d: scores.get((d["id"], d["epoch"])))
    assert 0.5 == read_inspect(rewritten, READING).suites["sums"]["sum-0"].score


def rewrite(source, target, letter):
    """A real log with other values, deflated."""
    from metagdpo.exchange.eval_archive import members, read_member

    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for member in members(source):
            if member.filename.startswith("samples/") or member.filename == "header.json":
                document = read_member(source, member)
                if "scores" in document and letter(document):
                    document["scores"]["match"]["value"] = letter(document)
                out.writestr(member.filename, json.dumps(document))
    return target


@pytest.mark.parametrize("reducer", ["max", "mode", "pass_at_2"])
def test_another_reducer_than_the_mean_is_refused(inspect_log, reducer):
    log = inspect_log("base", lambda d: d["eval"]["config"].update(epochs=2, epochs_reducer=[reducer]))
    with pytest.raises(EvidenceError, match=r"eval\.config\.epochs_reducer is"):
        read_inspect(log, READING)


def test_a_missing_epoch_is_refused(inspect_log):
    log = inspect_log("base", lambda d: d["eval"]["config"].update(epochs=2))
    with pytest.raises(EvidenceError, match=r"item sum-0: .* has 1 of 2 epochs"):
        read_inspect(log, READING)


def test_a_duplicated_sample_is_refused(inspect_log):
    log = inspect_log("base", lambda d: d["samples"].append(d["samples"][0]))
    with pytest.raises(EvidenceError, match="item sum-0: has more than one score"):
        read_inspect(log, READING)


def test_a_missing_sample_is_refused(inspect_log):
    with pytest.raises(EvidenceError, match="no score of item sum-2"):
        read_inspect(inspect_log("base", lambda d: d["samples"].pop()), READING)


@pytest.mark.parametrize("status", ["error", "cancelled", "started"])
def test_an_evaluation_that_did_not_finish_is_refused(inspect_log, status):
    with pytest.raises(EvidenceError, match=f"status is '{status}'"):
        read_inspect(inspect_log("base", lambda d: d.update(status=status)), READING)


def test_an_invalidated_log_is_refused(inspect_log):
    with pytest.raises(EvidenceError, match="invalidated"):
        read_inspect(inspect_log("base", lambda d: d.update(invalidated=True)), READING)


def test_an_archive_without_header_did_not_finish(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.eval", "w") as out:
        out.writestr("_journal/start.json", "{}")
    with pytest.raises(EvidenceError, match=r"no header\.json: its evaluation did not finish"):
        read_inspect(tmp_path / "a.eval", READING)


def test_a_sample_that_ended_in_an_error_is_refused(inspect_log):
    with pytest.raises(EvidenceError, match="ended in an error"):
        read_inspect(inspect_log("base", sample(1, error={"message": "x"})), READING)


def test_a_log_without_scores_says_how_to_score_it(inspect_log):
    with pytest.raises(EvidenceError, match="inspect score"):
        read_inspect(inspect_log("base", sample(1, scores=None)), READING)


def test_several_scorers_have_to_be_chosen_from():
    folder = FIXTURES / "base-two"
    with pytest.raises(ConfigError, match=r"has several scores.*includes, match"):
        read_inspect(folder, READING)
    assert {"grades"} == set(read_inspect(folder, Reading(metrics={"grades": "includes"})).suites)


def test_one_of_several_values_of_a_scorer_can_be_chosen(inspect_log):
    def several(document):
        for each in document["samples"]:
            each["scores"]["match"]["value"] = {"form": 1, "fact": 0.5}

    found = read_inspect(inspect_log("base", several), Reading(metrics={"*": "match.fact"}))
    assert {(0.5, "2"), (0.5, "5"), (0.5, "8")} == {(s.score, s.answer) for s in found.suites["sums"].values()}


def test_chance_is_known_where_options_are():
    assert {"colours": 0.5} == read_inspect(FIXTURES / "base-eval", READING).chances


def test_what_decides_a_score_is_identity_and_the_model_is_free():
    found = read_inspect(FIXTURES / "base-eval", READING)
    expected = {
        "sums: eval.task_version": "2",
        "sums: eval.model_args.dtype": "float32",
        "sums: eval.model_generate_config.temperature": "0.0",
        "sums: eval.packages.inspect_ai": "0.3.285",
        "sums: eval.config.epochs": "1",
        "sums: eval.dataset.samples": "4",
    }
    assert expected == {name: found.identity.get(name) for name in expected}
    assert {"model": "tally/base"} == found.model
    assert {"sums: plan.steps", "sums: eval.scorers"} < set(found.identity)


def test_an_argument_of_a_task_is_identity_whatever_its_name(inspect_log):
    """`timeout` decides nothing as a setting of requests, and may decide much as an argument of a task."""
    found = read_inspect(inspect_log("base", of_eval(task_args={"timeout": 5})), READING)
    assert "5" == found.identity["sums: eval.task_args.timeout"]


def test_two_logs_of_one_task_are_refused(inspect_log, tmp_path):
    path = inspect_log("base")
    (tmp_path / "again.json").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="which one is meant cannot be told"):
        read_inspect(tmp_path, READING)


def test_logs_of_two_models_in_one_folder_are_refused(inspect_log, tmp_path):
    inspect_log("base")
    inspect_log("tuned", task="colours")
    with pytest.raises(DataError, match="different models"):
        read_inspect(tmp_path, READING)


def test_a_cluster_is_a_field_of_the_metadata(inspect_log):
    log = inspect_log("base", lambda d: [s.update(metadata={"passage": "p"}) for s in d["samples"]])
    found = read_inspect(log, Reading(clusters={"sums": "passage"}))
    assert {"p"} == {scored.cluster for scored in found.suites["sums"].values()}
    with pytest.raises(ConfigError, match=r"has no field 'subject'. It has: passage"):
        read_inspect(log, Reading(clusters={"sums": "subject"}))


def test_only_logs_are_logs(tmp_path):
    (tmp_path / "logs.json").write_text("{}")
    (tmp_path / "other.json").write_text("{}")
    found = [is_inspect(path) for path in (FIXTURES / "base-eval", FIXTURES / "base-json", tmp_path)]
    assert [True, True, False] == found


def test_a_folder_where_everything_is_left_out_is_refused():
    with pytest.raises(DataError, match="holds no task"):
        read_inspect(FIXTURES / "base-eval", Reading(skip=("*",)))
