"""The pictures exist, repeat byte for byte, and adopt the page's colours when inlined."""

import re
import xml.etree.ElementTree as ET

import pytest

from metagdpo.report import figures

METRICS = [
    {"step": s, "objective": 0.7 - s / 100, "log_ratio_best": s / 10, "log_ratio_worst": -s / 10} for s in range(5)
]


@pytest.fixture
def drawn(verdict, interpolation):
    return {
        "retention": figures.retention(verdict.findings),
        "accuracy": figures.accuracy(verdict.findings),
        "training": figures.training(METRICS),
        "drift": figures.drift(verdict.drift, [0.01, 0.02, 0.05, -0.01], 0.04),
        "drift_without_samples": figures.drift(verdict.drift, [], None),
        "interpolation": figures.interpolation(interpolation),
    }


def test_every_picture_is_written_as_png_and_as_well_formed_svg(drawn, tmp_path):
    for name, figure in drawn.items():
        ET.fromstring(figures.save(figure, tmp_path, name))  # noqa: S314  (our own output)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_equal_numbers_give_equal_bytes(verdict, tmp_path):
    for folder in ("one", "two"):
        figures.save(figures.retention(verdict.findings), tmp_path / folder, "retention")
    for kind in ("png", "svg"):
        one, two = (tmp_path / folder / f"retention.{kind}" for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_training_without_known_metrics_has_no_picture():
    assert figures.training([]) is None
    assert figures.training([{"step": 1, "seconds": 3.0}]) is None


def test_only_panels_with_numbers_are_drawn():
    titles = [axes.get_title(loc="left") for axes in figures.training(METRICS).axes if axes.get_visible()]
    assert titles == ["Objective", "Log-ratio to the base"]


def test_a_loss_is_never_off_the_scale(verdict):
    left, _right = figures.retention(verdict.findings).axes[0].get_xlim()
    assert left < 100 * min(finding.low for finding in verdict.findings)


def test_an_inlined_picture_has_its_own_ids_and_the_pages_colours(verdict, tmp_path):
    svg = figures.inline(
        figures.save(figures.retention(verdict.findings), tmp_path, "retention"), "retention", 'a "b" <c>'
    )
    assert all(name.startswith("retention-") for name in re.findall(r'\bid="([^"]*)"', svg))
    assert "var(--bad)" in svg
    assert figures.PALETTE["bad"] not in svg
    assert 'aria-label="a &#34;b&#34; &lt;c&gt;"' in svg


def test_names_of_skills_cannot_break_the_picture(verdict, tmp_path):
    evil = verdict.findings[0].model_copy(update={"skill": "</svg><script>$x_{$ & co"})
    svg = figures.save(figures.retention([evil]), tmp_path, "evil")
    ET.fromstring(svg)  # noqa: S314  (our own output)
    assert "<script" not in svg


def test_one_single_suite_can_be_drawn(verdict, tmp_path):
    figures.save(figures.retention(verdict.findings[:1]), tmp_path, "one")
    figures.save(figures.accuracy(verdict.findings[:1]), tmp_path, "one")


def test_the_curve_over_alpha_shows_both_sides_in_percent_and_marks_the_choice(interpolation):
    axes = figures.interpolation(interpolation).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    assert lines["target suites"] == [[0.0, 10.0], [0.3, 30.0], [0.6, 45.0], [1.0, 50.0]]
    assert [x for x, _ in lines["required and safety suites"]] == [0.0, 0.3, 0.6, 1.0]
    assert {x for x, _ in lines["chosen: 0.6"]} == {0.6}
    marked = [line.get_xydata().tolist() for line in axes.get_lines() if line.get_markersize() == 11]
    assert marked == [[[0.6, 45.0]], [[0.6, 75.0]]]


def test_a_side_without_suites_has_no_line(interpolation):
    points = tuple(point.model_copy(update={"target": None}) for point in interpolation.points)
    axes = figures.interpolation(interpolation.model_copy(update={"points": points})).axes[0]
    assert "target suites" not in {line.get_label() for line in axes.get_lines()}
