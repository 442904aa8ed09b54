"""`metagdpo compare` without a pipeline: what it prints, refuses and starts."""

import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from comparison_world import LABELS, SEEDS, world

from metagdpo import cli_compare
from metagdpo.command_group import Group
from metagdpo.comparison import outlook
from metagdpo.comparison.statistics import compare as compare_runs
from metagdpo.runs import RESULTS, read_comparison
from metagdpo.schema import write_record

ROOT = Path(__file__).parents[1]


@click.group(cls=Group)
def main():
    """A group like the real one: exit codes are its doing."""


main.add_command(cli_compare.compare)


@pytest.fixture(autouse=True)
def started(tmp_path, monkeypatch):
    """The committed configuration in a folder of its own; what would be started is only noted, and fails."""
    for name in ("params.yaml", "comparison.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    calls = []

    def note(*words):
        calls.append(words)
        return 255

    monkeypatch.setattr(cli_compare, "_dvc", note)
    return calls


def command(*words):
    return CliRunner().invoke(main, ["compare", *words])


@pytest.mark.parametrize("words", [["--list"], ["--plan"], ["--methods", "sft", "--seeds", "1", "--plan"]])
def test_what_only_shows_starts_nothing_and_writes_nothing(words, started):
    before = Path("comparison.yaml").read_bytes()
    assert 0 == command(*words).exit_code
    assert [] == started
    assert before == Path("comparison.yaml").read_bytes()


def test_the_plan_tells_runs_and_what_each_lacks():
    text = command("--methods", "sft,gdpo", "--seeds", "4", "--plan").output
    assert "2 methods x 1 seeds = 2 runs: 0 done, 2 to do" in text
    assert "sft-4: not finished" in text


def test_a_comparison_runs_one_pipeline_on_and_makes_the_table_in_any_case(started):
    found = command("--methods", "sft,gdpo", "--seeds", "1")
    assert [("--keep-going", "comparison/dvc.yaml"), ("--single-item", "comparison/dvc.yaml:table")] == started
    assert 7 == found.exit_code
    assert "2 of 2 runs have no result" in found.output
    assert "Run `metagdpo compare` again" in found.output
    assert (("sft", "gdpo"), (1,)) == (read_comparison().compare, read_comparison().seeds)


def test_a_pipeline_that_fails_although_all_runs_are_there_is_told(monkeypatch):
    monkeypatch.setattr(outlook, "states", lambda _declared: [])
    found = command()
    assert 7 == found.exit_code
    assert "but DVC could not finish" in found.output


def test_a_comparison_that_is_whole_shows_its_table(monkeypatch):
    monkeypatch.setattr(outlook, "states", lambda _declared: [])
    monkeypatch.setattr(cli_compare, "_dvc", lambda *_: 0)
    runs, pairs = world(n_items=30)
    write_record(RESULTS / "comparison.json", compare_runs(runs, pairs, labels=LABELS, seeds=SEEDS))
    found = command()
    assert 0 == found.exit_code
    assert "GDPO without weights" in found.output
    assert "page: comparison/results/index.html" in found.output


def test_the_last_table_is_shown_without_running_anything(started):
    runs, pairs = world(n_items=30)
    write_record(RESULTS / "comparison.json", compare_runs(runs, pairs, labels=LABELS, seeds=SEEDS))
    found = command("--show")
    assert 0 == found.exit_code
    assert "SFT + CFS" in found.output
    assert [] == started


def test_no_table_yet_says_how_to_get_one():
    found = command("--show")
    assert 7 == found.exit_code
    assert "Run `metagdpo compare`" in found.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "stf"], "did you mean sft?"),
        (["--methods", ","], "name at least one method"),
        (["--methods", "sft,sft"], "everything once"),
        (["--seeds", "a"], "write whole numbers"),
        (["--seeds", "-1"], "write whole numbers"),
        (["--seeds", "1,,2"], "write whole numbers"),
        (["--list", "--plan"], "give one of"),
        (["--sees", "1"], "--seeds"),
    ],
)
def test_a_wrong_command_says_what_would_be_right_and_leaves_with_3(words, message, started):
    found = command(*words)
    assert (3, []) == (found.exit_code, started)
    assert message in found.output


def test_wrong_parameters_of_any_method_stop_before_anything_is_started(started):
    text = Path("comparison.yaml").read_text()
    Path("comparison.yaml").write_text(text.replace("perplexity: 2.5", "perplexity: 0"))
    found = command()
    assert (3, []) == (found.exit_code, started)
    assert "train.token_mask.perplexity" in found.output
    assert "method sft-stm" in found.output


def test_help_has_examples_for_every_option():
    text = command("--help").output
    for word in ("--methods", "--seeds", "--list", "--plan", "--show", "Examples:"):
        assert word in text
