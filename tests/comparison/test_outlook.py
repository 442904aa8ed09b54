"""What `metagdpo compare` says before it runs, and what it writes into comparison.yaml."""

from pathlib import Path

import pytest

from metagdpo.comparison import outlook
from metagdpo.comparison.outlook import RunState, chosen, method_lines, plan, states, to_do, write_choice
from metagdpo.comparison.pace import StageTime
from metagdpo.errors import ConfigError, DataError
from metagdpo.runs import ComparisonParams, read_comparison, runs_of

COMPARISON = """# What is compared.
compare: [b, a]  # in this order
seeds: [1, 2]

# Shared.
shared:
  train: {anchors: [], max_tokens: null, learning_rate: 1e-3}
methods:
  a:
    label: "A"
    # Reasons.
    changes:
      train: {objective: {kind: gdpo, weight: none}, token_mask: {perplexity: 2.5}}
  b: {label: B}
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "comparison.yaml").write_text(COMPARISON)
    (tmp_path / "params.yaml").write_text("base: {experiment: toy}\ntrain: {}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_fresh_project_has_everything_to_do():
    found = states(read_comparison())
    assert ["b-1", "b-2", "a-1", "a-2"] == [state.run.name for state in found]
    assert all("not finished" in state.why for state in found)


def test_the_plan_counts_runs_and_says_that_the_time_is_unknown():
    declared = read_comparison()
    runs = runs_of(declared)
    found = [RunState(runs[0], None), *(RunState(run, "x") for run in runs[1:])]
    first, second = plan(declared, found, [])
    assert "2 methods x 2 seeds = 4 runs: 1 done, 3 to do" == first
    assert "unknown" in second
    assert ["  b-2: x", "  a-1: x", "  a-2: x"] == to_do(found)


def test_the_plan_tells_minutes_by_the_runs_that_were_timed():
    declared = read_comparison()
    found = [RunState(run, "x") for run in runs_of(declared)]
    timed = [StageTime(method="a", seed=1, stage="train", seconds=90.0)]
    assert "about 6 minutes" in plan(declared, found, timed)[1], "four runs of a minute and a half"


def test_a_finished_comparison_tells_no_time():
    declared = read_comparison()
    assert 1 == len(plan(declared, [RunState(run, None) for run in runs_of(declared)], []))


def test_the_list_marks_what_is_compared_and_shows_every_change():
    comparison = chosen(read_comparison(), ["b"], None)
    text = "\n".join(method_lines(comparison))
    assert '  a  A: train.objective = {"kind":"gdpo","weight":"none"}, train.token_mask.perplexity = 2.5' in text
    assert "* b  B: nothing changed" in text
    assert "train.max_tokens = null" in text


def test_choosing_keeps_what_is_not_named():
    comparison = chosen(read_comparison(), ["a"], None)
    assert (("a",), (1, 2)) == (comparison.compare, comparison.seeds)
    comparison = chosen(read_comparison(), None, [7])
    assert (("b", "a"), (7,)) == (comparison.compare, comparison.seeds)


@pytest.mark.parametrize(
    ("methods", "seeds", "message"),
    [
        (["c"], None, "--methods names c"),
        (["aa"], None, "did you mean a"),
        (["a", "a"], None, "everything once"),
        (None, [1, 1], "everything once"),
    ],
)
def test_a_wrong_choice_is_refused(methods, seeds, message):
    with pytest.raises(ConfigError, match=message):
        chosen(read_comparison(), methods, seeds)


def test_writing_a_choice_changes_two_lines_and_keeps_every_comment(project):
    assert write_choice(chosen(read_comparison(), ["a"], [3, 1]))
    old, new = COMPARISON.splitlines(), (project / "comparison.yaml").read_text().splitlines()
    # Comments stay in their column.
    changed = [" ".join(line.split()) for line in new if line not in old]
    assert ["compare: [a] # in this order", "seeds: [3, 1]"] == changed
    assert len(old) == len(new)
    assert (("a",), (3, 1)) == (read_comparison().compare, read_comparison().seeds)


def test_writing_what_is_there_leaves_the_file_alone(project):
    assert not write_choice(read_comparison())
    assert COMPARISON == (project / "comparison.yaml").read_text()


def test_a_choice_is_written_into_a_list_of_another_form(project):
    text = COMPARISON.replace("compare: [b, a]  # in this order", "compare:\n  - b\n  - a")
    (project / "comparison.yaml").write_text(text)
    write_choice(chosen(read_comparison(), ["a"], None))
    assert ("a",) == read_comparison().compare
    assert "# Reasons." in (project / "comparison.yaml").read_text()


def test_a_damaged_file_makes_one_run_to_do_and_not_the_command_fail(monkeypatch):
    def candidate(run):
        if run.name == "b-1":
            raise DataError("damaged")

    monkeypatch.setattr(outlook, "current_candidate", candidate)
    assert ["damaged", None, None, None] == [state.why for state in states(read_comparison())]


def test_the_committed_comparison_survives_a_round_trip(project):
    committed = (Path(__file__).parents[2] / "comparison.yaml").read_text()
    (project / "comparison.yaml").write_text(committed)
    before = read_comparison()
    write_choice(chosen(before, [before.compare[0]], [99]))
    changed = [
        a
        for a, b in zip(committed.splitlines(), (project / "comparison.yaml").read_text().splitlines(), strict=True)
        if a != b
    ]
    assert {"compare", "seeds"} == {line.partition(":")[0] for line in changed}
    assert isinstance(read_comparison(), ComparisonParams)
