"""What people see: the page, and a comment in which nothing untrusted is active."""

import re

import pytest

from metagdpo.exchange import show
from metagdpo.exchange.compare import DEFAULTS, compare
from metagdpo.exchange.score_set import Scored, ScoreSet

HOSTILE = (
    "a|b`c<script>alert(1)</script>\n# head\n![x](http://evil.example/p.png) "
    "@everyone #1 www.evil.example **b** [l](//x)"
)


def scores(right, n=200, suite="s", answer=None, **rest):
    items = {f"{i:04}": Scored(float(i < right), answer=answer) for i in range(n)}
    return ScoreSet("table", {suite: items}, **rest)


def answer(right=150, **rest):
    return compare(scores(150, **rest), scores(right, **rest), None, DEFAULTS)


@pytest.mark.parametrize(("right", "badge"), [(150, "🟢"), (100, "🔴"), (146, "🟡")])
def test_the_first_line_is_the_verdict(right, badge):
    found = answer(right)
    assert f"## {badge} Forgetting gate: {found.decision}" == show.comment(found).splitlines()[0]
    assert found.decision == show.page(found).splitlines()[0]


def test_every_suite_has_a_row_with_its_numbers():
    text = show.comment(answer(100))
    assert "| s | required | base | 200 | 75.0 | 50.0 | -25.0 |" in text
    assert "| 50 / 0 | **lost** |" in text


def test_columns_of_the_page_are_aligned():
    lines = show.page(answer()).splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("suite"))
    head, row = lines[header], lines[header + 1]
    assert "200" == row[head.index("n ") :].split()[0]
    assert "0.0" == row[head.index("difference") :].split()[0]


def test_an_undecided_verdict_says_how_many_items_are_needed():
    found = answer(146)
    assert f"about {found.findings[0].items_needed:,} for the suite" in show.page(found)


def test_tables_are_said_to_state_nothing():
    assert all("state nothing about how the scores were measured" in text for text in (show.page(answer()),))


def test_agreement_is_counted():
    text = show.comment(answer(identity={"a": "1", "b": "2"}))
    assert "Base and candidate agree on 2 stated settings" in text


def test_accepted_differences_stand_above_the_numbers():
    base, candidate = scores(150, identity={"dtype": "float32"}), scores(150, identity={"dtype": "bfloat16"})
    text = show.comment(compare(base, candidate, None, DEFAULTS, accept=["dtype"]))
    assert text.index("Accepted differences") < text.index("| suite |")
    assert "dtype (base against candidate): float32 → bfloat16" in text
    assert "ACCEPTED DIFFERENCE dtype: float32 -> bfloat16" in show.page(
        compare(base, candidate, None, DEFAULTS, accept=["dtype"])
    )


def test_left_out_suites_are_named():
    found = compare(scores(150), scores(150), None, DEFAULTS, skipped=["wiki*"])
    assert ("wiki\\*" in show.comment(found), "LEFT OUT wiki*" in show.page(found)) == (True, True)


def hostile():
    names = {"suite": HOSTILE, "answer": HOSTILE}
    base, candidate = (
        scores(
            right, **names, model={HOSTILE: f"{HOSTILE}{right}"}, identity={HOSTILE: str(right)}, files={HOSTILE: "d"}
        )
        for right in (150, 100)
    )
    return compare(base, candidate, None, DEFAULTS, accept=["*"], skipped=[HOSTILE])


def test_hostile_names_and_answers_stay_text_in_a_comment():
    """No HTML, no link, no picture, no mention, no reference, and no end of a table's cell."""
    text = show.comment(hostile())
    active = r"<script|(?<!\\)\]\(|http://|@everyone|#1|www\.|(?<!\\)\*\*b|^# head|(?<!\\)`"
    assert [] == re.findall(active, text, re.MULTILINE)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {11, 4, 2} == {len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows}


def test_control_characters_reach_no_terminal():
    """An answer could move the cursor or recolour the verdict."""
    base = compare(
        scores(150, suite="\x1b[32mPROMOTE\x1b[0m\u202e"),
        scores(100, suite="\x1b[32mPROMOTE\x1b[0m\u202e"),
        None,
        DEFAULTS,
    )
    assert not set("\x1b\u202e") & set(show.page(base) + show.comment(base))


@pytest.mark.parametrize("n_suites", [1, 400])
def test_a_comment_fits_github(n_suites):
    """Long answers and many suites are cut and counted."""
    found = compare(scores(15, 20, answer="<&" * 1000), scores(5, 20, answer="<&" * 1000), None, DEFAULTS)
    names = [f"{k}{'s' * 90}" for k in range(n_suites)]
    many = found.model_copy(
        update={
            "findings": tuple(found.findings[0].model_copy(update={"suite": name}) for name in names),
            "flips": tuple(flip.model_copy(update={"suite": name}) for name in names for flip in found.flips),
            "reasons": found.reasons * n_suites,
        }
    )
    text = show.comment(many)
    assert len(text) <= show.LONGEST_COMMENT
    assert (n_suites > 1) == ("more rows are in the JSON report" in text)


def test_worst_suites_come_first_in_a_comment():
    base = ScoreSet("table", {name: scores(150).suites["s"] for name in "abc"})
    candidate = ScoreSet(
        "table", {name: scores(right).suites["s"] for name, right in zip("abc", (150, 100, 146), strict=True)}
    )
    text = show.comment(compare(base, candidate, None, DEFAULTS))
    assert ["b", "c", "a"] == re.findall(r"^\| ([abc]) \| required", text, re.MULTILINE)
