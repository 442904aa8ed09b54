"""Tables tell every method and every missing run, and no name in them runs, links or steers a terminal."""

import csv
import io
import re

import pytest
from comparison_world import LABELS, METHODS, SEEDS, SUITES, finding, result, scores, world

from metagdpo.comparison import rows
from metagdpo.comparison.statistics import compare
from metagdpo.comparison.table import markdown_page, summary, write_tables
from metagdpo.comparison.words import alphas, measured, points, verdicts
from metagdpo.records.comparison import Estimate

EVIL = '=cmd|"x"!A1 | [x](javascript:alert(1)) <script>\x1b[2J\u202e'


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def evil():
    """One method with one suite and one failure, all with an evil name."""
    run = result("m", 1, [finding(EVIL)], label=EVIL)
    given = {("m", 1): {EVIL: scores([1, 0], [0, 0])}}
    return compare([run], given, labels={"m": EVIL}, seeds=[1, 2], failed={("m", 2): EVIL})


@pytest.fixture(scope="module")
def written(whole, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return folder, write_tables(folder, whole)


def test_every_path_returned_exists_and_nothing_else_is_written(written):
    folder, paths = written
    assert sorted(folder.iterdir()) == sorted(paths)
    assert ["differences.csv", "runs.csv", "suites.csv", "table.csv", "table.md"] == sorted(p.name for p in paths)


def test_equal_comparisons_give_equal_bytes(written, whole, tmp_path):
    _, paths = written
    again = write_tables(tmp_path, whole)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]


def test_the_main_table_has_one_row_a_method_in_declared_order(written):
    assert list(METHODS) == [row["method"] for row in read_csv(written[0] / "table.csv")]


def test_numbers_of_the_spreadsheet_are_those_of_the_comparison(written, whole):
    row, mine = read_csv(written[0] / "table.csv")[0], whole.methods[0]
    found = [float(row[name]) for name in ("target", "target_low", "retained_high", "drift", "tokens_most")]
    expected = [mine.target.value, mine.target.low, mine.retained.high, mine.drift.value, mine.tokens.most]
    assert found == pytest.approx(expected, abs=1e-6)
    assert ("stereoset", "3") == (row["worst_suite"], row["block"])


def test_suites_runs_and_differences_are_all_there(written):
    folder = written[0]
    counts = [len(read_csv(folder / f"{name}.csv")) for name in ("suites", "runs", "differences")]
    n = len(METHODS)
    assert [n * len(SUITES), n * len(SEEDS), 3 * n * (n - 1) // 2] == counts


def test_missing_runs_are_named_in_markdown_and_in_the_terminal(lacking):
    text, lines = markdown_page(lacking), summary(lacking)
    for label, seed in (("DPO", 2), ("DPO", 3), ("GDPO + CFS", 1), ("GDPO + CFS", 3)):
        assert f"- {label}, seed {seed}: " in text
        assert any(line.startswith(f"  {label}, seed {seed}: ") for line in lines)


def test_a_method_that_lacks_seeds_says_so_beside_its_name(lacking):
    names = [row[0] for row in rows.main(lacking)]
    assert "DPO (1 of 3 seeds)" in names
    assert "GDPO + CFS (no result)" in names


def test_a_method_without_a_result_has_dashes_for_numbers(lacking):
    row = rows.main(lacking)[-1]
    assert {"–", ""} == set(row[1:])


def test_a_missing_number_is_an_empty_cell(lacking, tmp_path):
    write_tables(tmp_path, lacking)
    row = read_csv(tmp_path / "table.csv")[-1]
    assert ("gdpo-cfs", "0", "1 2 3", "", "") == (
        row["method"],
        row["seeds"],
        row["missing_seeds"],
        row["target"],
        row["drift"],
    )


def test_alpha_has_a_column_only_when_a_method_interpolates(whole):
    runs, pairs = world({name: METHODS[name] for name in ("sft", "gdpo")}, n_items=20)
    assert "alpha" in rows.columns(whole)
    assert "alpha" not in rows.columns(compare(runs, pairs))


def test_alphas_are_told_only_of_methods_that_interpolate(whole):
    place = rows.columns(whole).index("alpha")
    assert {"SFT, Wise-FT": "0.6, 0.8, 0.4"} == {row[0]: row[place] for row in rows.main(whole) if row[place]}


def test_no_cell_starts_a_formula(evil, tmp_path):
    for path in write_tables(tmp_path, evil)[1:]:
        cells = [cell for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"))) for cell in row]
        assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "@"))]


def test_a_name_cannot_be_markup(evil):
    text = markdown_page(evil)
    assert "<script>" not in text
    assert not re.findall(r"(?<!\\)\]\(javascript:", text)
    assert r"\[x\](javascript:alert(1))" in text


def test_a_name_cannot_add_a_column(evil):
    table = markdown_page(evil).split("\n\n")[1].splitlines()
    assert 1 == len({line.replace("\\|", "").count("|") for line in table})


def test_a_name_cannot_steer_a_terminal(evil):
    assert not [line for line in summary(evil) if not all(c.isprintable() or c == "\ufffd" for c in line)]


def test_the_terminal_shows_one_line_for_each_method_claim_and_link(whole):
    lines = summary(whole)
    for row in whole.methods:
        assert 1 == sum(line.startswith(f"{row.label}  ") for line in lines)
    for claim in whole.claims:
        assert f"  {claim.status}: {claim.claim} ({claim.evidence})" in lines
    for link in whole.links:
        assert 1 == sum(line.endswith(link.note) and rows.LINKS[link.kind] in line for line in lines)


def test_columns_of_the_terminal_are_aligned(whole):
    lines = summary(whole)[: 1 + len(whole.methods)]
    ends = {line.index("]") for line in lines[1:]}
    assert {len("target gain") + lines[0].index("target gain") - 1} == ends


def test_pairs_are_listed_with_the_better_method_first(whole):
    listed = {(better, than, measure): amount for better, than, measure, amount, _ in rows.better(whole)}
    for row in whole.differences:
        if row.better is not None:
            other = row.second if row.better == row.first else row.first
            amount = listed[LABELS[row.better], LABELS[other], row.measure]
            assert amount.startswith(points(abs(row.difference.value)))
    assert len(listed) == sum(row.better is not None for row in whole.differences)


def test_an_interval_of_a_pair_is_turned_so_that_the_better_one_stands_first(whole):
    """From low to high, both above 0."""
    ends = [[float(end) for end in row[3].partition("[")[2].rstrip("]").split(", ")] for row in rows.better(whole)]
    assert any(row.better == row.second for row in whole.differences)
    assert all(0 < low < high for low, high in ends)


def test_each_method_tells_whom_it_beats(whole):
    told = {row[0]: row[1:] for row in rows.beaten(whole)}
    for place, measure in enumerate(("target", "retained", "overall")):
        losers = {LABELS[d.second if d.better == d.first else d.first] for d in whole.differences
                  if d.better == "gdpo-cfs" and d.measure == measure}  # fmt: skip
        assert (losers or {"–"}) == set(told["GDPO + CFS"][place].split(" · "))


def test_nothing_shown_to_be_better_is_said(evil):
    assert "Nothing: no method is shown to be better than another." in markdown_page(evil)


@pytest.mark.parametrize(("share", "text"), [(0.1234, "+12.3"), (-0.05, "−5.0"), (0.0, "0.0"), (-0.0004, "0.0")])
def test_points_have_a_sign_and_0_has_none(share, text):
    assert text == points(share)


def test_a_change_is_told_with_its_interval():
    found = Estimate(value=-0.02, low=-0.04, high=0.001, n_seeds=3, n_units=9, p_value=0.1)
    assert "−2.0 [−4.0, +0.1]" == measured(found)


def test_verdicts_are_counted_the_good_ones_first():
    assert "2 PROMOTE, 1 BLOCK" == verdicts(["BLOCK", "PROMOTE", "PROMOTE"])


def test_alphas_of_1_are_not_worth_a_word():
    assert ("", "1, 0.5") == (alphas([1.0, 1.0]), alphas([1.0, 0.5]))
