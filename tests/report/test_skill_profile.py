import re
import xml.etree.ElementTree as ET

import pytest

from metagdpo.records.unit_finding import UnitFinding
from metagdpo.report import figures
from metagdpo.report.skill_profile import (
    MOST_ROWS,
    OUTCOMES,
    profile_caption,
    profile_order,
    profile_rows,
    skill_profile,
)


def unit(name, outcome="undecided", *, lost=0, gained=0, n=100, adjusted=0.5):
    return UnitFinding(
        unit=name,
        suites=("piqa", "stereoset"),
        n_items=n,
        n_independent=n,
        before=0.5,
        candidate=0.5 + (gained - lost) / n,
        lost=lost,
        gained=gained,
        p_lost=0.5,
        p_gained=0.5,
        p_kept=None,
        least_p=0.0,
        adjusted=adjusted,
        within_margin=outcome == "kept",
        outcome=outcome,
    )


PROFILE = [
    unit("dates_and_times", "lost", lost=30),
    unit("addition", "gained", gained=40),
    unit("piqa", "kept", lost=2, gained=2, n=1400),
    unit("quiet"),
    unit("busy", lost=5, gained=5),
    unit("tiny", n=1, adjusted=None),
]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_named_units_come_first_and_the_others_by_their_changed_items():
    assert [f.unit for f in profile_order(PROFILE)] == ["dates_and_times", "addition", "busy", "piqa", "quiet", "tiny"]


def test_the_picture_is_written_as_png_and_as_well_formed_svg_of_equal_bytes(tmp_path):
    for folder in ("one", "two"):
        ET.fromstring(figures.save(skill_profile(PROFILE), tmp_path / folder, "skills"))  # noqa: S314  (our own output)
    for kind in ("png", "svg"):
        one, two = (tmp_path / folder / f"skills.{kind}" for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_row_says_unit_items_suites_change_and_outcome():
    assert texts(skill_profile(PROFILE[:1]))[:6] == [
        "dates and times",
        "100 items of piqa, stereoset",
        "\u221230.0",
        "30",
        "0",
        "lost",
    ]


def test_dots_stand_at_the_scores_before_and_after():
    _line, base, candidate = skill_profile(PROFILE[:1]).axes[0].lines
    assert (base.get_xdata()[0], candidate.get_xdata()[0]) == pytest.approx((50.0, 20.0))


def test_every_colour_of_the_inlined_picture_follows_the_page(tmp_path):
    svg = figures.inline(figures.save(skill_profile(PROFILE), tmp_path, "skills"), "skills", "profile")
    assert re.findall(r"#[0-9a-fA-F]{6}\b", svg) == []


def test_what_is_not_drawn_is_counted_by_outcome():
    many = [*PROFILE, *(unit(f"u{k:02d}") for k in range(MOST_ROWS))]
    drawn = len(skill_profile(many).axes[0].lines) // 3  # a row is a line and two dots
    assert drawn == MOST_ROWS
    assert profile_caption(many, 0.1).endswith(f"Not drawn: {len(many) - MOST_ROWS} undecided.")


def test_the_caption_counts_units_that_are_too_small_and_states_the_error_rate():
    assert "at most 10 % are expected to be false" in profile_caption(PROFILE, 0.1)
    assert "One unit has too few items" in profile_caption(PROFILE, 0.1)
    assert "too few" not in profile_caption(PROFILE[:2], 0.1)


def test_without_units_there_is_no_picture_and_no_row():
    assert skill_profile([]) is None
    assert profile_rows([]) == []


def test_a_row_of_the_table_has_plain_values():
    assert profile_rows(PROFILE)[0] == {
        "unit": "dates and times",
        "suites": "piqa, stereoset",
        "n_items": "100",
        "before": "50.0",
        "candidate": "20.0",
        "difference": "\u221230.0",
        "lost": 30,
        "gained": 0,
        "p": "0.5",
        "outcome": "lost",
        "colour": "bad",
    }


def test_a_unit_that_was_not_tested_has_no_p_value_and_an_unchanged_one_no_sign():
    row = profile_rows(PROFILE)[-1]
    assert (row["p"], row["difference"]) == ("", "0.0")


def test_every_outcome_has_a_colour_of_the_palette():
    assert {colour for colour, _ in OUTCOMES.values()} <= set(figures.PALETTE)


def test_names_of_units_cannot_break_the_picture(tmp_path):
    svg = figures.save(skill_profile([unit("</svg><script>$x_{$ & co")]), tmp_path, "evil")
    ET.fromstring(svg)  # noqa: S314  (our own output)
    assert "<script" not in svg
