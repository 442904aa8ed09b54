"""What a plan says: its numbers are those of the power calculation, its warnings those of the suite's limits."""

import pytest

from metagdpo.gate.plan import Assumptions, PlannedSuite, effective_margin, plan, table
from metagdpo.gate.policy import Relative
from metagdpo.gate.power import (
    items_needed,
    power_if_unchanged,
    smallest_blocked_loss,
    smallest_margin,
    smallest_shown_gain,
)

ASSUMED = Assumptions(alpha=0.05, power=0.8, flip_rate=0.05, min_items=50)


def suite(**changes) -> PlannedSuite:
    fields = {"suite": "s", "tier": "required", "n_items": 200, "base": 0.7, "chance": 0.25, "margin": 0.08}
    return PlannedSuite(**(fields | changes))


def planned(**changes):
    return plan([suite(**changes)], ASSUMED)[0]


def test_the_numbers_of_a_required_suite_are_those_of_the_power_calculation():
    row = planned()
    assert row.power_if_unchanged == power_if_unchanged(200, 0.05, 0.08, 0.05)
    assert row.smallest_margin == smallest_margin(200, 0.05, 0.05, 0.8)
    assert row.blocked_loss == smallest_blocked_loss(200, 0.05, 0.08, 0.05, 0.8)
    assert row.items_needed == items_needed(0.05, 0.0, 0.08, 0.05, 0.8)
    assert row.shown_gain is None
    assert row.warnings == ()


def test_a_target_is_planned_for_the_gain_that_it_can_show():
    row = planned(tier="target", gain=0.02)
    assert row.margin == -0.02
    assert row.shown_gain == smallest_shown_gain(200, 0.05, 0.02, 0.05, 0.8)
    assert [row.power_if_unchanged, row.smallest_margin, row.items_needed] == [None, None, None]


def test_a_safety_suite_is_blocked_by_a_loss_of_any_size():
    assert planned(tier="safety").blocked_loss == smallest_blocked_loss(200, 0.05, 0.0, 0.05, 0.8)


def test_a_relative_margin_is_worth_its_share_of_what_lies_above_chance():
    assert effective_margin(suite(base=0.65, chance=0.25, margin=Relative(relative=0.1))) == pytest.approx(0.04)
    assert effective_margin(suite(base=0.2, chance=0.25, margin=Relative(relative=0.1))) == 0.0
    assert any("judged by betting" in warning for warning in planned(margin=Relative(relative=0.2)).warnings)


def test_a_margin_that_the_items_cannot_show_names_the_items_needed():
    row = planned(margin=0.02)
    (warning,) = row.warnings
    assert row.power_if_unchanged < 0.8
    assert f"for 80 % {row.items_needed:,} items are needed" in warning
    assert f"or a margin of {100 * row.smallest_margin:.4g}" in warning


def test_a_base_at_chance_has_nothing_to_forget():
    warnings = planned(base=0.26).warnings
    assert warnings[0] == (
        "The base scores 26 % and guessing 25 %: nothing that could be forgotten is shown to be there; "
        "losing all of it would cost about 1 point."
    )


def test_a_margin_beyond_what_lies_above_chance_can_never_fail():
    (warning,) = planned(base=0.32).warnings
    assert warning == (
        "The base has 7 points above chance and the margin is 8 points: a model that lost all of it would still be "
        "within the margin, so the test can never fail."
    )


def test_a_total_loss_that_would_stay_undecided_is_said():
    row = planned(base=0.35)
    assert row.blocked_loss > 0.1
    assert "losing all of it would often stay undecided" in row.warnings[0]


def test_no_loss_larger_than_the_bases_score_is_said_to_be_blocked():
    assert planned(base=0.1, chance=0.0).blocked_loss is None


def test_flips_that_the_bases_score_does_not_allow_are_not_assumed():
    """An unchanged model of accuracy 0.01 answers 0.01 right before and after: at most 0.02 of the items flip."""
    row = planned(base=0.01, chance=0.0)
    assert row.flip_rate == 0.02
    assert row.warnings[0].startswith("A flip rate of 5 % cannot keep the base's 1 %; planned with 2 %")
    assert planned(base=1.0).flip_rate == 0.0


def test_a_target_without_room_is_said_to_be_impossible():
    (warning,) = [text for text in planned(tier="target", base=0.97, gain=0.05).warnings if "impossible" in text]
    assert warning == "The base scores 97 %: a gain of more than 5 points is impossible, so no candidate can pass."


def test_a_target_with_too_little_room_for_its_items_is_said():
    (warning,) = planned(tier="target", base=0.97, gain=0.0).warnings[-1:]
    assert "leaves room for 3 points only" in warning


def test_a_suite_with_too_few_items_stays_undecided():
    row = planned(n_items=49)
    assert row.power_if_unchanged == 0.0
    assert [row.smallest_margin, row.blocked_loss] == [None, None]
    assert row.items_needed >= 50
    assert row.warnings == ("49 items are fewer than the 50 of the policy: it stays undecided.",)


def test_one_item_and_perfect_or_zero_scores_are_planned_too():
    assumed = Assumptions(alpha=0.05, power=0.8, flip_rate=0.05)
    for base in (0.0, 1.0):
        for tier in ("required", "target", "safety", "watched"):
            (row,) = plan([suite(n_items=1, base=base, chance=0.0, tier=tier)], assumed)
            assert row.flip_rate == 0.0
            assert row.warnings


def test_the_table_has_aligned_columns_then_the_warnings():
    rows = plan([suite(), suite(suite="longer-name", margin=0.02)], ASSUMED)
    lines = table(rows)
    assert lines[0].split()[:3] == ["suite", "tier", "items"]
    assert len({line.index("required") for line in lines[1:3]}) == 1
    assert lines[3:] == ["", f"longer-name: {rows[1].warnings[0]}"]


def test_the_markdown_table_has_one_cell_a_column():
    lines = table(plan([suite()], ASSUMED), "markdown")
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert lines[1].startswith("| ---")


@pytest.mark.parametrize(("clusters", "hopeless"), [(73, True), (74, False)])
def test_too_few_clusters_can_show_nothing(clusters, hopeless):
    """0.96^73 > 0.05 > 0.96^74: so often n clusters look untouched when each is lost with the margin's probability."""
    suite = PlannedSuite(
        suite="passages", tier="required", n_items=1000, base=0.8, chance=0.0, margin=0.04, n_clusters=clusters
    )
    words = " ".join(plan([suite], Assumptions(alpha=0.05, power=0.8, flip_rate=0.05))[0].warnings)
    assert f"{clusters} clusters" in words
    assert ("With fewer than 74 clusters" in words) == hopeless
