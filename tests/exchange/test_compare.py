"""The gate on scores of other harnesses: what is decided, what is recorded, what is refused."""

from pathlib import Path

import pytest

from metagdpo.errors import ConfigError, DataError, EvidenceError
from metagdpo.exchange.compare import DEFAULTS, Outside, compare, read, read_both
from metagdpo.exchange.score_set import Reading, Scored, ScoreSet
from metagdpo.gate.policy import Policy, Relative, Sequential
from metagdpo.schema import read_record, write_record

FIXTURES = Path(__file__).parent / "fixtures"


def scores(right, n, suite="s", clusters=None, **rest):
    """A suite of which the first `right` of n items are answered correctly."""
    items = {f"{i:04}": Scored(float(i < right), cluster=None if clusters is None else clusters(i)) for i in range(n)}
    return ScoreSet("table", {suite: items}, **rest)


def policy(**changes):
    return DEFAULTS.model_copy(update=changes)


@pytest.mark.parametrize(
    ("right", "decision"),
    [(400, "PROMOTE"), (200, "BLOCK"), (384, "INCONCLUSIVE")],
)
def test_the_verdict_is_the_gates(right, decision):
    """Of 500 items the base has 400: nothing lost, 40 points lost, and a loss near the margin of 4 points."""
    assert decision == compare(scores(400, 500), scores(right, 500), None, DEFAULTS).decision


def test_the_champion_is_a_second_reference():
    """As good as the base, and far behind the champion."""
    answer = compare(scores(300, 500), scores(300, 500), scores(450, 500), DEFAULTS)
    assert "BLOCK" == answer.decision
    assert {("base", "non_inferior"), ("champion", "worse")} == {(f.against, f.outcome) for f in answer.findings}


def test_tiers_come_from_the_policy():
    """A loss on a watched suite is reported and decides nothing."""
    base, candidate = scores(400, 500), scores(400, 500)
    base.suites["t"], candidate.suites["t"] = scores(400, 500).suites["s"], scores(0, 500).suites["s"]
    watched = compare(base, candidate, None, policy(tiers={"t": "watched"}))
    assert ("PROMOTE", "BLOCK") == (watched.decision, compare(base, candidate, None, DEFAULTS).decision)


def test_a_target_has_to_improve():
    asked = policy(tiers={"s": "target"})
    decisions = [compare(scores(200, 400), scores(right, 400), None, asked).decision for right in (300, 200)]
    assert "PROMOTE" == decisions[0] != decisions[1]


def test_margins_come_from_the_policy():
    """10 points of loss on 500 items: within a margin of 20 points, beyond one of 4."""
    decisions = {
        margin: compare(scores(400, 500), scores(350, 500), None, policy(default_margin=margin)).decision
        for margin in (0.2, 0.04)
    }
    assert {0.2: "PROMOTE", 0.04: "BLOCK"} == decisions


def test_clusters_reach_the_gate():
    """All items of one cluster are one piece of evidence."""
    one = compare(scores(400, 500, clusters=lambda _: "x"), scores(400, 500, clusters=lambda _: "x"), None, DEFAULTS)
    assert ("INCONCLUSIVE", 1) == (one.decision, one.findings[0].n_clusters)


@pytest.mark.parametrize("key", ["tiers", "margins", "gains"])
def test_a_policy_for_a_suite_that_was_not_measured_is_refused(key):
    value = {"tiers": "watched", "margins": 0.1, "gains": 0.1}[key]
    with pytest.raises(ConfigError, match=rf"gate\.yaml names suites that were not measured: {key}\.x"):
        compare(scores(1, 2), scores(1, 2), None, policy(**{key: {"x": value}}), policy_from="gate.yaml")


def test_a_policy_that_watches_everything_is_refused():
    with pytest.raises(ConfigError, match="watches every suite"):
        compare(scores(1, 2), scores(1, 2), None, policy(tiers={"s": "watched"}))


def test_a_relative_margin_needs_the_accuracy_of_guessing():
    """Without it the accepted loss would be a share of the whole accuracy, which is too much."""
    asked = policy(default_margin=Relative(relative=0.1))
    with pytest.raises(ConfigError, match=r"--chance s=0\.25"):
        compare(scores(300, 400), scores(300, 400), None, asked)
    said = compare(scores(300, 400), scores(300, 400), None, asked, chances={"*": 0.25})
    known = compare(scores(300, 400, chances={"s": 0.25}), scores(300, 400), None, asked)
    assert 0.1 * (0.75 - 0.25) == pytest.approx(said.findings[0].margin) == pytest.approx(known.findings[0].margin)


def test_all_items_are_there_so_nothing_stops_early():
    """The policy of the pipeline may stop evaluations early; here it costs no power."""
    early = policy(sequential=Sequential())
    answers = [compare(scores(400, 500), scores(398, 500), None, asked) for asked in (early, DEFAULTS)]
    assert answers[0].findings == answers[1].findings


def test_flips_carry_both_answers():
    base = ScoreSet("table", {"s": {"a": Scored(1.0, answer="4"), "b": Scored(0.0), "c": Scored(1.0)}})
    candidate = ScoreSet("table", {"s": {"a": Scored(0.0, answer="5"), "b": Scored(1.0), "c": Scored(1.0)}})
    flips = compare(base, candidate, None, DEFAULTS).flips
    assert [("a", "lost", "4", "5"), ("b", "gained", "", "")] == [
        (f.item_id, f.kind, f.base_answer, f.candidate_answer) for f in flips
    ]


def test_accepted_and_agreed_settings_are_recorded():
    base = scores(1, 2, identity={"dtype": "a", "seed": "0"}, model={"name": "x"})
    candidate = scores(1, 2, identity={"dtype": "b", "seed": "0"}, model={"name": "y"})
    answer = compare(base, candidate, None, DEFAULTS, accept=["dtype"])
    assert {"seed": "0"} == answer.identity
    assert [("dtype", "a", "b")] == [(d.field, d.reference, d.candidate) for d in answer.accepted]
    assert [("name", "x", "y")] == [(d.field, d.reference, d.candidate) for d in answer.models]


def test_the_answer_survives_its_file(tmp_path):
    answer = compare(scores(400, 500), scores(390, 500), None, DEFAULTS)
    write_record(tmp_path / "a.json", answer)
    assert answer == read_record(tmp_path / "a.json", Outside)


@pytest.mark.parametrize("kind", ["lm_eval/base", "inspect/base-eval", "inspect/base-json"])
def test_what_wrote_the_scores_is_seen_from_the_files(kind):
    found = read(FIXTURES / kind, Reading(filters={"*": "number"}, skip=("colours",)) if "lm" in kind else Reading())
    assert ("lm-eval" if "lm" in kind else "inspect") == found.kind


def test_a_table_is_a_source(table):
    found = read_both(
        table("a.csv", "suite,item,score\ns,a,1\n"), table("b.csv", "suite,item,score\ns,a,0\n"), Reading()
    )
    assert [1.0, 0.0] == [one.suites["s"]["a"].score for one in found]


def test_what_is_no_source_says_what_would_be(tmp_path):
    with pytest.raises(DataError, match=r"holds neither.*lm-eval's --output_path"):
        read(tmp_path, Reading())
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "gone", Reading())


def test_a_model_against_itself_on_real_files_is_never_blocked():
    """Four items prove nothing, so the verdict is INCONCLUSIVE, not PROMOTE."""
    reading = Reading(filters={"sums": "number"})
    base = read(FIXTURES / "lm_eval/base", reading)
    answer = compare(base, base, None, DEFAULTS)
    assert ("INCONCLUSIVE", ()) == (answer.decision, answer.flips)


def test_nothing_is_compared_without_pairing():
    with pytest.raises(EvidenceError, match="items differ"):
        compare(scores(1, 2), scores(1, 3), None, DEFAULTS)


def test_the_defaults_are_a_valid_policy():
    assert DEFAULTS == Policy.model_validate(DEFAULTS.model_dump())
