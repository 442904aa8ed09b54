"""Tables of scores and of pairs."""

import pytest

from metagdpo.errors import DataError, EvidenceError
from metagdpo.exchange.score_set import Reading, Scored
from metagdpo.exchange.tables import read_pairs, read_scores

READING = Reading()
HEAD = "suite,item,base,candidate\n"


def test_pairs_are_two_score_sets(table):
    base, candidate = read_pairs(table("p.csv", f"{HEAD}s,a,1,0\ns,b,0.5,1.0\n"), READING)
    assert {"s": {"a": Scored(1.0), "b": Scored(0.5)}} == base.suites
    assert {"s": {"a": Scored(0.0), "b": Scored(1.0)}} == candidate.suites


def test_csv_and_json_lines_say_the_same(table):
    csv = table("p.csv", "suite,item,base,candidate,cluster,base_answer,candidate_answer\ns,a,1,0,c,yes,no\n")
    line = '{"suite":"s","item":"a","base":1,"candidate":0,"cluster":"c","base_answer":"yes","candidate_answer":"no"}\n'
    one, other = read_pairs(csv, READING), read_pairs(table("p.jsonl", line), READING)
    assert [found.suites for found in one] == [found.suites for found in other]
    assert Scored(0.0, (), "c", "no") == one[1].suites["s"]["a"]


def test_scores_of_one_model_carry_what_the_item_is(table):
    found = read_scores(table("s.csv", "suite,item,score,prompt,answer\ns,a,1,2 + 2 =,4\n"), READING).suites["s"]["a"]
    assert (1.0, ["prompt"], "4") == (found.score, [name for name, _ in found.content], found.answer)


def test_the_pipelines_own_scores_are_such_a_table(table):
    line = (
        '{"suite":"s","item_id":"a","doc":"sha256:d","prompt":"sha256:p","target":"sha256:t","score":1.0,"answer":"4"}'
    )
    assert {"a"} == set(read_scores(table("scores.jsonl", line), READING).suites["s"])


def test_a_byte_order_mark_and_windows_lines_are_read(table):
    path = table("p.csv", b"\xef\xbb\xbf" + f"{HEAD}s,a,1,0\n".replace("\n", "\r\n").encode())
    assert {"a"} == set(read_pairs(path, READING)[0].suites["s"])


def test_quoted_values_hold_commas_quotes_and_line_breaks(table):
    path = table("s.csv", 'suite,item,score,answer\ns,"a, ""b""\nc",1,"x\ny"\n')
    assert {'a, "b"\nc': Scored(1.0, (), None, "x\ny")} == read_scores(path, READING).suites["s"]


@pytest.mark.parametrize(
    "score",
    ["nan", "NaN", "inf", "-inf", "1e400", "87", "-0.1", "1.01", "", " ", "yes", "0_1", "١", "0x1", "1,0"[:1] + "O"],
)
def test_a_score_outside_0_to_1_is_refused(table, score):
    with pytest.raises(EvidenceError, match="suite s, item a: column candidate is"):
        read_pairs(table("p.csv", f"{HEAD}s,a,1,{score}\n"), READING)


@pytest.mark.parametrize("score", ["0", "1", "1.", ".5", "1e-3", "+1", " 1 "])
def test_plain_numbers_are_scores(table, score):
    assert float(score) == read_pairs(table("p.csv", f"{HEAD}s,a,1,{score}\n"), READING)[1].suites["s"]["a"].score


@pytest.mark.parametrize("score", ["NaN", "Infinity", "null", "1" + "0" * 400, '"x"', "[1]"])
def test_a_json_score_outside_0_to_1_is_refused(table, score):
    with pytest.raises(EvidenceError, match="item a"):
        read_scores(table("s.jsonl", f'{{"suite":"s","item":"a","score":{score}}}\n'), READING)


def test_a_duplicated_item_is_refused(table):
    with pytest.raises(EvidenceError, match="suite s, item a: has more than one score"):
        read_pairs(table("p.csv", f"{HEAD}s,a,1,1\ns,b,1,1\ns,a,1,1\n"), READING)


def test_one_item_name_in_two_suites_is_two_items(table):
    assert {"s", "t"} == set(read_pairs(table("p.csv", f"{HEAD}s,a,1,1\nt,a,1,1\n"), READING)[0].suites)


@pytest.mark.parametrize("text", ["", HEAD, "\n\n"])
def test_an_empty_table_is_refused(table, text):
    with pytest.raises(EvidenceError, match="holds no scores"):
        read_pairs(table("p.csv", text), READING)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("suite,item,base\ns,a,1\n", "line 2 has no column candidate"),
        ("suite;item;base;candidate\ns;a;1;1\n", "has no column base, candidate, item, suite"),
        (f"{HEAD[:-1]},clusters\ns,a,1,1,c\n", "has unknown columns clusters"),
        (f"{HEAD[:-1]},base\ns,a,1,1,1\n", "two columns of one name"),
        (f"{HEAD}s,a,1\n", "line 2 has 3 values for 4 columns"),
        (f"{HEAD}s,a,1,1,1\n", "line 2 has 5 values for 4 columns"),
        (f'{HEAD}s,"a,1,1\n', "is not UTF-8 CSV"),
        (f"{HEAD},a,1,1\n", "has no suite"),
        (f"{HEAD}s, ,1,1\n", "has no item"),
        (b"\xff\xfes\x00", "is not UTF-8 CSV"),
    ],
)
def test_a_table_of_another_form_is_refused(table, text, problem):
    with pytest.raises(DataError, match=problem):
        read_pairs(table("p.csv", text), READING)


@pytest.mark.parametrize("item", ["true", "null", "1.5", "[1]", '""'])
def test_a_json_item_is_a_text_or_a_whole_number(table, item):
    with pytest.raises(DataError, match="has no item"):
        read_scores(table("s.jsonl", f'{{"suite":"s","item":{item},"score":1}}\n'), READING)


def test_a_number_and_its_text_are_one_item(table):
    lines = '{"suite":"s","item":1,"score":1}\n{"suite":"s","item":"1","score":0}\n'
    with pytest.raises(EvidenceError, match="item 1: has more than one score"):
        read_scores(table("s.jsonl", lines), READING)


def test_without_a_candidate_the_base_has_to_be_a_table(tmp_path):
    with pytest.raises(DataError, match="is no table of pairs"):
        read_pairs(tmp_path, READING)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv cannot be read"):
        read_pairs(tmp_path / "gone.csv", READING)


def test_skipped_suites_are_left_out(table):
    path = table("p.csv", f"{HEAD}s,a,1,1\nt,a,1,1\n")
    assert {"t"} == set(read_pairs(path, Reading(skip=("s",)))[0].suites)
