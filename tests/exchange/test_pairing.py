"""Two score sets are compared only when they were measured alike."""

from pathlib import Path

import pytest

from metagdpo.errors import EvidenceError
from metagdpo.exchange.inspect_log import read_inspect
from metagdpo.exchange.lm_eval_samples import read_lm_eval
from metagdpo.exchange.pairing import pair
from metagdpo.exchange.score_set import Reading, Scored, ScoreSet

FIXTURES = Path(__file__).parent / "fixtures"
NUMBER = Reading(filters={"sums": "number"})


def scores(items=None, identity=None, model=None, suite="s"):
    return ScoreSet("table", {suite: items or {"a": Scored(1.0)}}, identity=identity or {}, model=model or {})


def pair_up(reference, candidate, accept=()):
    return pair(reference, candidate, against="base", accept=accept)


def runs(lm_eval_run, **changes):
    """The base's run as it is, the other model's with changes."""
    return [read_lm_eval(folder, NUMBER) for folder in (lm_eval_run("base"), lm_eval_run("tuned", **changes))]


def test_items_are_paired_by_name_whatever_their_order():
    base = scores({"a": Scored(1.0), "b": Scored(0.0), "c": Scored(0.5, cluster="x")})
    candidate = scores({"c": Scored(0.25, cluster="x"), "a": Scored(0.0), "b": Scored(1.0)})
    found = pair_up(base, candidate).pairs["s"]
    assert [("a", 1, 0, None), ("b", 0, 1, None), ("c", 0.5, 0.25, "x")] == [
        (p.item_id, p.before, p.candidate, p.cluster) for p in found
    ]


def test_real_runs_of_two_models_pair(lm_eval_run):
    found = pair_up(*runs(lm_eval_run))
    assert {"colours": 4, "sums": 4} == {suite: len(pairs) for suite, pairs in found.pairs.items()}
    assert ({"base"}, {"tuned"}) == tuple(
        {getattr(d, side) for d in found.models} for side in ("reference", "candidate")
    )


@pytest.mark.parametrize("kind", ["eval", "json"])
def test_real_logs_of_two_models_pair(kind):
    base, tuned = (read_inspect(FIXTURES / f"inspect/{model}-{kind}", Reading()) for model in ("base", "tuned"))
    changed = [p.item_id for p in pair_up(base, tuned).pairs["sums"] if p.before != p.candidate]
    assert ["sum-2"] == changed


@pytest.mark.parametrize("items", [{"a": Scored(1.0)}, {"a": Scored(1.0), "b": Scored(1.0), "c": Scored(1.0)}])
def test_missing_items_are_refused_on_either_side(items):
    base = scores({"a": Scored(1.0), "b": Scored(1.0)})
    with pytest.raises(EvidenceError, match=r"suite s: items differ: (b \(only base\)|c \(only candidate\))"):
        pair_up(base, scores(items))


def test_unequal_suites_are_refused():
    with pytest.raises(EvidenceError, match=r"suites differ: s \(only base\), t \(only candidate\)"):
        pair_up(scores(), scores(suite="t"))


def test_different_harnesses_are_refused():
    with pytest.raises(EvidenceError, match="read from table, the candidate from inspect"):
        pair_up(scores(), ScoreSet("inspect", {"s": {"a": Scored(1.0)}}))


@pytest.mark.parametrize("field", ["doc_hash", "prompt_hash", "target_hash"])
def test_a_changed_item_is_refused_by_field_and_cannot_be_accepted(lm_eval_run, field):
    changed = runs(lm_eval_run, colours=lambda lines: lines[3].update({field: "f" * 64}))
    with pytest.raises(
        EvidenceError, match=f"suite colours, item 3: {field} differs: base [0-9a-f]{{64}}, candidate ffff"
    ):
        pair_up(*changed, accept=("*",))


def test_an_item_whose_prompt_only_one_side_states_is_refused():
    with pytest.raises(EvidenceError, match=r"item a: prompt differs: base p, candidate \(not stated\)"):
        pair_up(scores({"a": Scored(1.0, (("prompt", "p"),))}), scores())


def test_a_changed_cluster_is_refused():
    with pytest.raises(EvidenceError, match="item a: cluster differs: x and y"):
        pair_up(scores({"a": Scored(1.0, cluster="x")}), scores({"a": Scored(1.0, cluster="y")}))


def edit(*path, value):
    def change(document):
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


SETTINGS = [
    ("config", "batch_size", 8),
    ("config", "device", "cuda:0"),
    ("config", "model_dtype", "torch.bfloat16"),
    ("config", "limit", 8.0),
    ("config", "fewshot_seed", 1),
    ("config", "gen_kwargs", {"temperature": 1.0}),
    ("config", "model_args", "dtype", "bfloat16"),
    ("config", "model_args", "max_length", 128),
    ("configs", "colours", "num_fewshot", 5),
    ("configs", "sums", "generation_kwargs", "max_gen_toks", 8),
    ("configs", "sums", "doc_to_text", "{{question}}?"),
    ("versions", "sums", 3.0),
    ("lm_eval_version", "0.4.12"),
    ("transformers_version", "4.0.0"),
    ("pretty_env_info", "PyTorch version: 2.0.0"),
    ("chat_template_sha", "abc"),
    ("system_instruction", "Be brief."),
    ("fewshot_as_multiturn", True),
    ("max_length", 128),
    ("tokenizer_eos_token", ["</s>", "3"]),
    ("model_source", "vllm"),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: ".".join(setting[:-1]))
def test_every_setting_that_differs_is_refused_by_its_name(lm_eval_run, setting):
    changed = runs(lm_eval_run, results=edit(*setting[:-1], value=setting[-1]))
    name = r"\.".join(setting[:-1])
    with pytest.raises(EvidenceError, match=f"(?s)were not measured alike.*{name}.*--accept"):
        pair_up(*changed)


@pytest.mark.parametrize("setting", [("date", 1.0), ("git_hash", "abc"), ("total_evaluation_time_seconds", "1")])
def test_what_decides_no_score_may_differ(lm_eval_run, setting):
    assert () == pair_up(*runs(lm_eval_run, results=edit(*setting[:-1], value=setting[-1]))).accepted


@pytest.mark.parametrize("argument", ["pretrained", "peft", "delta", "revision", "base_url"])
def test_an_argument_that_names_the_model_may_differ(lm_eval_run, argument):
    found = pair_up(*runs(lm_eval_run, results=edit("config", "model_args", argument, value="other")))
    assert f"config.model_args.{argument}" in {difference.field for difference in found.models}


def test_every_refused_setting_is_listed_at_once():
    with pytest.raises(EvidenceError, match=r"(?s)a: base 1, candidate 2\n  b: base \(not stated\), candidate 3"):
        pair_up(scores(identity={"a": "1", "c": "0"}), scores(identity={"a": "2", "b": "3", "c": "0"}))


def test_an_accepted_setting_is_recorded_with_both_values():
    base, candidate = scores(identity={"a.x": "1", "a.y": "0"}), scores(identity={"a.x": "2", "a.y": "0"})
    (found,) = pair_up(base, candidate, accept=("a.*",)).accepted
    assert ("a.x", "base", "1", "2") == (found.field, found.against, found.reference, found.candidate)


def test_accepting_one_setting_accepts_no_other():
    base, candidate = scores(identity={"a": "1", "b": "1"}), scores(identity={"a": "2", "b": "2"})
    with pytest.raises(EvidenceError, match="b: base 1, candidate 2"):
        pair_up(base, candidate, accept=("a",))
