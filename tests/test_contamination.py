"""`ingest` drops and lists planted overlaps; `gate` looks for them in what was trained on."""

import json
from pathlib import Path

import pytest

from metagdpo.errors import DataError, EvidenceError
from metagdpo.evaluation.items import build_items
from metagdpo.evaluation.suite import load_suites
from metagdpo.records.question import Question
from metagdpo.schema import digest_file, read_jsonl, write_jsonl
from pipelines import gate, ingest

SUITE = """name: colours
skill: naming colours
tier: required
metric: exact
items: {kind: files, path: items.jsonl}
n_items: 50
max_new_tokens: 8
chance: 0.0
licence: none
source: made by the tests
"""
POLICY = "alpha: 0.05\npower: 0.8\ndefault_margin: 0.04\nmin_items: 10\n"
PARAMS = """base: {model: tiny, dtype: float32, seed: 5, experiment: toy}
ingest:
  sources:
    - {kind: files, name: asked, path: asked.jsonl, domain: d, licence: none, verifier: exact,
       fields: {solution: solution}}
"""
ITEMS = [f"Which colour does the {thing} in the picture have?" for thing in ("roof", "door", "gate", "lamp", "boat")]


def write_rows(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project up to the stage `suites`."""
    monkeypatch.chdir(tmp_path)
    Path("registry/suites").mkdir(parents=True)
    Path("registry/suites/colours.yaml").write_text(SUITE)
    Path("registry/policy.yaml").write_text(POLICY)
    Path("params.yaml").write_text(PARAMS)
    write_rows("items.jsonl", [{"prompt": prompt, "answer": "red"} for prompt in ITEMS])
    (suite,) = load_suites(Path("registry/suites"))
    write_jsonl(Path("data/suites/colours.jsonl"), build_items(suite, Path("assets")))
    return tmp_path


def ask(*questions):
    rows = [{"question": prompt, "answer": "red", "solution": solution} for prompt, solution in questions]
    write_rows("asked.jsonl", rows)


def test_ingest_leaves_out_what_repeats_a_suite_and_lists_it(project, capsys):
    solved = "It was asked: which colour does the lamp in the picture have? Then \\boxed{red}"
    clean = [(f"Who painted number {n} of the houses here?", "\\boxed{red}") for n in range(5)]
    ask((ITEMS[1].upper(), "\\boxed{red}"), *clean, ("Who is it?", solved))
    ingest.main()
    kept = [question.prompt for question in read_jsonl(project / "data/questions.jsonl", Question)]
    report = json.loads((project / "data/pool.json").read_text())
    assert kept == [prompt for prompt, _ in clean]
    assert [row["item"] for row in report["overlaps"]] == [ITEMS[1], ITEMS[3]]
    assert [row["text_id"].endswith("/solution") for row in report["overlaps"]] == [False, True]
    assert report["kept"] == 5
    assert report["overlapping"] == {"colours": {"asked.jsonl": 2}}
    assert report["suite_items"] == {"compared": 5, "without_words": 0}
    printed = capsys.readouterr().out
    assert "2 of 7 questions repeat an item of a suite" in printed
    assert "colours: 2 of asked.jsonl" in printed
    assert "another seed" not in printed


def test_ingest_says_what_to_change_when_most_of_the_pool_repeats_a_suite(project, capsys):
    ask(*((prompt, "\\boxed{red}") for prompt in ITEMS), ("Who painted all of the houses here?", "\\boxed{red}"))
    ingest.main()
    assert len(list(read_jsonl(project / "data/questions.jsonl", Question))) == 1
    printed = capsys.readouterr().out
    assert "Most of the pool is what the gate measures. Give a procedural source" in printed
    assert ITEMS[0] in printed


def test_a_pool_that_is_all_suite_is_an_error_and_still_listed(project):
    ask(*((prompt, "\\boxed{red}") for prompt in ITEMS))
    with pytest.raises(DataError, match=r"(?s)the pool is empty.*colours: 5 of asked.*another seed"):
        ingest.main()
    assert len(json.loads((project / "data/pool.json").read_text())["overlaps"]) == 5
    assert not (project / "data/questions.jsonl").exists()


def test_a_missing_suite_file_names_the_command(project):
    ask(("Who?", "\\boxed{red}"))
    (project / "data/suites/colours.jsonl").unlink()
    with pytest.raises(DataError, match=r"data/suites/colours\.jsonl does not exist.*dvc repro"):
        ingest.main()


def trained(**files):
    """Write training files and say what a candidate's manifest says of them."""
    for name, rows in files.items():
        write_rows(f"data/{name}.jsonl", rows)
    return {f"data/{name}.jsonl": digest_file(Path(f"data/{name}.jsonl")) for name in files}


RESPONSE = {
    "index": 0,
    "teacher": "big",
    "text": "It is red.",
    "finish_reason": "stop",
    "correct": 1.0,
    "well_formed": True,
    "reward": 1.0,
    "advantage": 0.0,
}
GROUP = {"question_id": "q", "prompt": "Who?", "responses": [RESPONSE], "degenerate": False}
SAMPLE = {
    "index": 3,
    "prefix": "bos",
    "prefix_ids": [0],
    "token_ids": [1],
    "text": "Once.",
    "ended": True,
    "model": "m",
    "temperature": 1.0,
    "top_p": 1.0,
    "max_new_tokens": 8,
    "seed": 0,
}
QUESTION = {
    "id": "q",
    "prompt": "Who?",
    "domain": "d",
    "reference_answer": "red",
    "verifier": "exact",
    "source": "s",
    "licence": "l",
}


@pytest.mark.usefixtures("project")
def test_the_gate_reads_every_text_that_was_trained_on():
    data = trained(groups=[GROUP], context_free_train=[SAMPLE], reference=[{"no": "text"}], questions=[QUESTION])
    found = [(text.name, text.text.splitlines()[0]) for text in gate.trained_on(data)]
    assert found == [
        ("context-free sample 3", "Once."),
        ("q", "Who?"),
        ("q/response 0 of big", "It is red."),
        ("q", "Who?"),
    ]


@pytest.mark.usefixtures("project")
def test_a_file_that_the_candidate_was_not_trained_on_is_no_evidence():
    data = trained(groups=[GROUP], context_free_train=[SAMPLE])
    trained(groups=[{**GROUP, "prompt": "What?"}])
    with pytest.raises(EvidenceError, match=r"data/groups\.jsonl is not the file .* trained on(?s:.*)`dvc repro`"):
        gate.trained_on(data)


@pytest.mark.usefixtures("project")
def test_files_that_are_missing_or_unknown_are_all_named():
    data = {**trained(groups=[GROUP]), "data/gone.jsonl": "sha256:0", "data/questions.jsonl": "sha256:0"}
    with pytest.raises(EvidenceError, match=r"(?s)gone\.jsonl: the gate does not know.*questions\.jsonl is missing"):
        gate.trained_on(data)
