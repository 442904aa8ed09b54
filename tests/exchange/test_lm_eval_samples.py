"""lm-eval's output: what is read from real files, and what is refused."""

import json
import math
import re
from pathlib import Path

import pytest

from metagdpo.errors import ConfigError, DataError, EvidenceError
from metagdpo.exchange.lm_eval_samples import is_lm_eval, read_lm_eval
from metagdpo.exchange.score_set import Reading

NUMBER = Reading(filters={"sums": "number"})
FIXTURES = Path(__file__).parent / "fixtures"
BASE = FIXTURES / "lm_eval/base"


def results_of(folder):
    return json.loads(next(folder.rglob("results_*.json")).read_text())


@pytest.mark.parametrize("model", ["base", "tuned"])
@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_the_mean_over_items_is_the_accuracy_that_lm_eval_reports(model, metric):
    """The whole of the reader against the number that lm-eval computed from the same items."""
    folder = FIXTURES / "lm_eval" / model
    found = read_lm_eval(folder, Reading(filters={"sums": "number"}, metrics={"colours": metric}))
    scores = [scored.score for scored in found.suites["colours"].values()]
    assert results_of(folder)["results"]["colours"][f"{metric},none"] == pytest.approx(sum(scores) / len(scores))


def test_items_are_paired_by_lm_evals_own_hashes():
    found = read_lm_eval(BASE, NUMBER)
    fields = {name for scored in found.suites["colours"].values() for name, _ in scored.content}
    assert ({"0", "1", "2", "3"}, {"doc_hash", "prompt_hash", "target_hash"}) == (set(found.suites["colours"]), fields)


def test_the_order_of_lines_does_not_matter(lm_eval_run):
    turned = lm_eval_run("base", colours=lambda lines: lines[::-1])
    assert read_lm_eval(BASE, NUMBER).suites == read_lm_eval(turned, NUMBER).suites


def test_the_answer_is_the_option_of_the_highest_log_likelihood():
    lines = next(BASE.rglob("samples_colours_*.jsonl")).read_text().splitlines()
    for scored, line in zip(read_lm_eval(BASE, NUMBER).suites["colours"].values(), map(json.loads, lines), strict=True):
        worth = [float(reply[0]) for reply in line["filtered_resps"]]
        assert line["doc"]["options"][worth.index(max(worth))] == scored.answer


def test_chance_is_the_mean_over_the_number_of_options():
    assert {"colours": 0.5} == read_lm_eval(BASE, NUMBER).chances


def test_what_decides_a_score_is_identity():
    identity = read_lm_eval(BASE, NUMBER).identity
    expected = {
        "config.batch_size": "4",
        "config.device": "cpu",
        "config.fewshot_seed": "1234",
        "config.limit": "4.0",
        "config.model_args.dtype": "float32",
        "config.model_dtype": "torch.float32",
        "configs.colours.num_fewshot": "0",
        "configs.sums.generation_kwargs.max_gen_toks": "4",
        "filter of sums": "number",
        "lm_eval_version": "0.4.13",
        "metric of colours": "acc",
        "pretty_env_info.torch": "2.13.0+cpu",
        "versions.sums": "2.0",
    }
    assert expected == {name: identity.get(name) for name in expected}


def test_only_the_models_names_are_free():
    names = {name.rpartition(".")[2] for name in read_lm_eval(BASE, NUMBER).model}
    known = {"pretrained", "model_name", "model_name_sanitized", "model_num_parameters", "model_revision", "model_sha"}
    assert known == names


def test_the_chat_template_is_identity(lm_eval_run):
    folder = lm_eval_run("base", results=lambda d: d.update(chat_template="{{ x }}", chat_template_sha="abc"))
    assert "abc" == read_lm_eval(folder, NUMBER).identity["chat_template_sha"]


def test_arguments_in_one_text_are_read_like_an_object(lm_eval_run):
    """lm-eval before 0.4.10 wrote them so."""
    folder = lm_eval_run("base", results=lambda d: d["config"].update(model_args="pretrained=base,dtype=float32"))
    text, written = read_lm_eval(folder, NUMBER), read_lm_eval(BASE, NUMBER)
    assert (written.identity, written.model) == (text.identity, text.model)


def test_several_filters_have_to_be_chosen_from():
    with pytest.raises(ConfigError, match=r"task sums has several filters \(number, strict\)"):
        read_lm_eval(BASE, Reading())


def test_a_filter_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="has no filter 'loose'"):
        read_lm_eval(BASE, Reading(filters={"*": "loose"}))


def test_a_metric_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"has no metric 'f1'.*acc, acc_norm"):
        read_lm_eval(BASE, Reading(filters={"sums": "number"}, metrics={"colours": "f1"}))


def test_several_unknown_metrics_have_to_be_chosen_from(lm_eval_run):
    def rename(lines):
        for line in lines:
            line["metrics"] = ["loose", "strict"]

    with pytest.raises(ConfigError, match="task colours has several metrics"):
        read_lm_eval(lm_eval_run("base", colours=rename), NUMBER)


def test_a_metric_of_which_less_is_better_is_refused(lm_eval_run):
    folder = lm_eval_run("base", results=lambda d: d["higher_is_better"]["colours"].update(acc=False))
    with pytest.raises(ConfigError, match="of acc lower is better"):
        read_lm_eval(folder, NUMBER)


@pytest.mark.parametrize("value", [math.nan, None, 100, [1, 0], "1"])
def test_a_score_that_is_none_is_refused(lm_eval_run, value):
    folder = lm_eval_run("base", colours=lambda lines: lines[2].update(acc=value))
    with pytest.raises(EvidenceError, match="suite colours, item 2: metric acc is"):
        read_lm_eval(folder, NUMBER)


def test_a_duplicated_item_is_refused(lm_eval_run):
    folder = lm_eval_run("base", colours=lambda lines: [*lines, lines[1]])
    with pytest.raises(EvidenceError, match="suite colours, item 1: has more than one score"):
        read_lm_eval(folder, NUMBER)


def test_a_missing_item_is_refused(lm_eval_run):
    folder = lm_eval_run("base", colours=lambda lines: lines[:-1])
    with pytest.raises(EvidenceError, match="the run scored 4 items, its samples file holds 3"):
        read_lm_eval(folder, NUMBER)


def test_an_empty_samples_file_is_refused(lm_eval_run):
    with pytest.raises(EvidenceError, match="without items nothing can be compared"):
        read_lm_eval(lm_eval_run("base", colours=lambda _: []), NUMBER)


@pytest.mark.parametrize("field", ["doc_hash", "prompt_hash", "target_hash", "doc_id"])
def test_a_line_without_its_identity_is_refused(lm_eval_run, field):
    folder = lm_eval_run("base", colours=lambda lines: lines[0].update({field: None}))
    with pytest.raises(DataError, match=f"line 1 has no {field}"):
        read_lm_eval(folder, NUMBER)


def test_a_run_without_samples_says_how_to_get_them(lm_eval_run):
    folder = lm_eval_run("base")
    next(folder.rglob("samples_sums_*")).unlink()
    with pytest.raises(DataError, match="Run lm_eval with --log_samples"):
        read_lm_eval(folder, NUMBER)
    assert {"colours"} == set(read_lm_eval(folder, Reading(skip=("sums",))).suites)


def test_a_task_name_never_leads_out_of_the_folder(lm_eval_run, tmp_path):
    (tmp_path / "samples_x.jsonl").write_text("{}")
    folder = lm_eval_run("base", results=lambda d: d["configs"].update({"../../x": {}}))
    with pytest.raises(DataError, match="beside it is no"):
        read_lm_eval(folder, NUMBER)


def test_two_runs_in_one_folder_are_refused_and_listed(lm_eval_run, tmp_path):
    """The newest may be the wrong one, so none is taken."""
    lm_eval_run("base")
    lm_eval_run("tuned")
    with pytest.raises(DataError, match="holds 2 runs"):
        read_lm_eval(tmp_path, NUMBER)


def test_one_of_several_runs_can_be_named():
    path = next(BASE.rglob("results_*.json"))
    assert read_lm_eval(BASE, NUMBER) == read_lm_eval(path, NUMBER)


def test_clusters_come_from_a_field_of_the_document():
    found = read_lm_eval(BASE, Reading(filters={"sums": "number"}, clusters={"colours": "gold"}))
    assert {"0", "1"} == {scored.cluster for scored in found.suites["colours"].values()}
    assert {None} == {scored.cluster for scored in found.suites["sums"].values()}


def test_a_cluster_field_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"has no field 'passage'. It has: gold, options, question"):
        read_lm_eval(BASE, Reading(filters={"sums": "number"}, clusters={"colours": "passage"}))


def test_only_a_folder_or_file_of_lm_eval_is_one(tmp_path):
    (tmp_path / "a_2026-01-01T00-00-00.json").write_text("{}")
    found = [is_lm_eval(path) for path in (BASE, next(BASE.rglob("results*")), tmp_path, *tmp_path.iterdir())]
    assert [True, True, False, False] == found


def test_every_file_that_was_read_has_its_digest():
    found = read_lm_eval(BASE, NUMBER).files
    assert sorted(path.name for path in BASE.rglob("*.json*")) == sorted(found)
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in found.values())
