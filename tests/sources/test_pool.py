import json
from typing import get_args

import pytest
from pydantic import ValidationError

from metagdpo import answers
from metagdpo.errors import DataError
from metagdpo.params import problems
from metagdpo.records.question import Question, question_id
from metagdpo.schema import read_jsonl, write_jsonl
from metagdpo.sources import Source
from metagdpo.sources.files import FilesSource
from metagdpo.sources.pool import IngestParams, build_pool, problem_with, resolve
from metagdpo.sources.procedural import ProceduralSource

SUMS = {"kind": "procedural", "name": "sums", "family": "chain_sum", "n_questions": 4, "seed": 3, "domain": "maths"}


def question(prompt="2 + 2?", answer="4", verifier="numeric", solution=None):
    return Question(
        id=question_id(prompt, answer, verifier),
        prompt=prompt,
        domain="d",
        reference_answer=answer,
        solution=solution,
        verifier=verifier,
        source="test",
        licence="none",
    )


def from_file(tmp_path, rows, **changes):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {
        "kind": "files",
        "name": "file",
        "path": str(path),
        "verifier": "numeric",
        "domain": "d",
        "licence": "none",
    }
    return FilesSource(**{**fields, **changes})


def example(kind, tmp_path):
    if kind is FilesSource:
        return from_file(tmp_path, [{"question": f"{n} + 1?", "answer": n + 1} for n in range(3)])
    assert kind is ProceduralSource, "give the new kind of source an example here"
    return ProceduralSource(**SUMS)


@pytest.mark.parametrize("kind", get_args(get_args(Source)[0]))
def test_every_kind_of_source_gives_verifiable_questions_that_survive_the_file(kind, tmp_path):
    source = example(kind, tmp_path)
    pool, report = build_pool(IngestParams(sources=(source,)))
    write_jsonl(tmp_path / "pool.jsonl", pool)
    back = list(read_jsonl(tmp_path / "pool.jsonl", Question))
    assert back == pool
    assert [answers.score_answer(q, q.reference_answer) for q in back] == [1.0] * len(pool)
    assert report["sources"][source.name] == {"read": len(pool), "kept": len(pool), "duplicates": 0}


def test_parameters_choose_the_kind_by_name():
    found, lines = problems({"sources": [SUMS]}, IngestParams, prefix="ingest")
    assert (found, lines) == (IngestParams(sources=(ProceduralSource(**SUMS),)), [])


def test_an_unknown_kind_is_told_what_there_is():
    _, lines = problems({"sources": [{**SUMS, "kind": "telepathy"}]}, IngestParams, prefix="ingest")
    assert "'procedural', 'files'" in lines[0]


def test_two_sources_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="two sources are named sums"):
        IngestParams(sources=(ProceduralSource(**SUMS), ProceduralSource(**SUMS)))


def test_equal_questions_of_two_sources_are_kept_once():
    again = ProceduralSource(**{**SUMS, "name": "again", "seed": 4})
    pool, report = build_pool(IngestParams(sources=(ProceduralSource(**SUMS), again)))
    assert report["sources"]["again"] == {"read": 4, "kept": 1, "duplicates": 3}
    assert len({q.id for q in pool}) == len(pool) == 5


def test_a_prompt_with_contradicting_answers_is_left_out_whole(tmp_path):
    rows = [{"question": "a", "answer": 1}, {"question": "b", "answer": 2}, {"question": "a", "answer": 3}]
    pool, report = build_pool(IngestParams(sources=(from_file(tmp_path, rows),)))
    assert [q.prompt for q in pool] == ["b"]
    assert [row["answers"] for row in report["conflicts"]] == [["1", "3"]]
    assert report["sources"]["file"] == {"read": 3, "kept": 1, "duplicates": 0}


def test_answers_that_the_verifier_takes_for_equal_do_not_contradict():
    first, other = question(answer="0.5"), question(answer="1/2")
    assert resolve([first, other]) == ([first], [])


def test_a_reference_answer_that_its_verifier_rejects_is_left_out_and_listed(tmp_path):
    rows = [{"question": "a", "answer": "many"}, {"question": "b", "answer": 2}]
    pool, report = build_pool(IngestParams(sources=(from_file(tmp_path, rows),)))
    assert [q.prompt for q in pool] == ["b"]
    assert [row["source"].rpartition(":")[2] for row in report["rejected"]] == ["1"]
    assert report["rejected"][0]["problem"] == "the verifier numeric rejects the reference answer 'many'"


def test_a_solution_that_comes_to_another_answer_is_found():
    assert "rejects the worked solution, which ends in ['5']" in problem_with(question(solution=r"So \boxed{5}"))


def test_an_empty_pool_is_an_error_that_says_where_everything_went(tmp_path):
    source = from_file(tmp_path, [{"question": "a", "answer": "many"}])
    with pytest.raises(
        DataError, match=r"pool is empty(.|\n)*file: 1 read(.|\n)*1 rejected(.|\n)*rejects the reference"
    ):
        build_pool(IngestParams(sources=(source,)))


def test_a_file_without_lines_is_an_empty_pool(tmp_path):
    with pytest.raises(DataError, match="file: 0 read"):
        build_pool(IngestParams(sources=(from_file(tmp_path, []),)))


def test_a_verifier_family_that_does_not_exist_is_named(tmp_path):
    source = from_file(tmp_path, [{"question": "a", "answer": 1}], verifier="reasoning_gym:nothing")
    with pytest.raises(DataError, match="`reasoning_gym:nothing` does not exist"):
        build_pool(IngestParams(sources=(source,)))


def test_the_report_is_plain_json(tmp_path):
    rows = [{"question": "a", "answer": 1}, {"question": "a", "answer": 2}, {"question": "b", "answer": "x"}]
    source = from_file(tmp_path, [*rows, {"question": "c", "answer": 3}])
    _, report = build_pool(IngestParams(sources=(source,)))
    assert json.loads(json.dumps(report)) == report


def test_a_text_that_breaks_a_family_s_parser_is_just_wrong():
    prime = question("factors of 12?", "2 × 2 × 3", "reasoning_gym:prime_factorization")
    assert answers.score_answer(prime, "twelve") == 0.0
