"""The picture of R[t][i]: what stands in its cells, how strong they are, and that it adopts the page's colours."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch

from metagdpo.report import figures
from metagdpo.report.matrix_figure import matrix

SUITES = ["sums", "dates", "late"]
VALUES = [[0.20, 0.60, None], [0.80, 0.55, None], [0.80, 0.60, 0.70]]


def drawn(values=VALUES, suites=SUITES, trained=((), ("sums",), ("dates",))):
    releases = ["base", *(f"v{t}" for t in range(1, len(values)))]
    return matrix(values, releases, suites, trained)


def texts(figure):
    """{(row, column): texts from top to bottom}."""
    found = {}
    for text in sorted(figure.axes[0].texts, key=lambda text: text.get_position()[1]):
        x, y = text.get_position()
        found.setdefault((round(y), round(x)), []).append(text.get_text())
    return found


def boxes(figure):
    """{(row, column): patches in the order of their drawing}."""
    found = {}
    for patch in figure.axes[0].patches:
        assert isinstance(patch, FancyBboxPatch)
        found.setdefault((round(patch.get_y() + 0.42), round(patch.get_x() + 0.44)), []).append(patch)
    return found


def test_a_cell_shows_its_score_and_its_change_against_the_base():
    assert texts(drawn()) == {
        (0, 0): ["20.0"],
        (0, 1): ["60.0"],
        (1, 0): ["80.0", "+60.0"],
        (1, 1): ["55.0", "-5.0"],
        (2, 0): ["80.0", "+60.0"],
        (2, 1): ["60.0", "0.0"],
        (2, 2): ["70.0"],
    }


def test_missing_cells_are_hatched_and_nothing_else_is():
    hatched = {place for place, patches in boxes(drawn()).items() if patches[0].get_hatch()}
    assert hatched == {(0, 2), (1, 2)}


def test_trained_cells_are_outlined_in_ink():
    outlined = {
        place
        for place, patches in boxes(drawn()).items()
        if to_hex(patches[-1].get_edgecolor()) == figures.PALETTE["ink"] and patches[-1].get_linewidth() > 1
    }
    assert outlined == {(1, 0), (2, 1)}


@pytest.mark.parametrize(("change", "colour"), [(0.1, "good"), (-0.1, "bad"), (0.0, "line"), (-0.0001, "line")])
def test_the_colour_is_the_direction_of_what_is_shown(change, colour):
    patch = boxes(drawn([[0.5], [0.5 + change]], ["s"], [(), ()]))[1, 0][0]
    assert to_hex(patch.get_facecolor()) == figures.PALETTE[colour]


def test_strength_is_the_root_of_the_change_and_full_from_20_points_on():
    losses = [0.05, 0.20, 0.40]
    found = [boxes(drawn([[0.9], [0.9 - loss]], ["s"], [(), ()]))[1, 0][0].get_alpha() for loss in losses]
    assert [alpha / found[1] for alpha in found] == pytest.approx([math.sqrt(0.05 / 0.20), 1, 1])


def test_one_cell_has_the_same_strength_whatever_stands_beside_it():
    alone = boxes(drawn([[0.9], [0.87]], ["s"], [(), ()]))[1, 0][0].get_alpha()
    beside = boxes(drawn([[0.9, 0.1], [0.87, 0.9]], ["s", "t"], [(), ("t",)]))[1, 0][0].get_alpha()
    assert alone == beside


def test_it_is_written_as_well_formed_svg_with_equal_bytes_for_equal_numbers(tmp_path):
    one, two = (figures.save(drawn(), tmp_path / name, "matrix") for name in ("one", "two"))
    ET.fromstring(one)  # noqa: S314  (our own output)
    assert one == two
    assert (tmp_path / "one" / "matrix.png").read_bytes() == (tmp_path / "two" / "matrix.png").read_bytes()


def test_inlined_all_its_colours_are_the_pages(tmp_path):
    svg = figures.inline(figures.save(drawn(), tmp_path, "matrix"), "matrix", "scores by release")
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []
    assert {name for name in figures.PALETTE if f"var(--{name})" in svg} == {
        "ink",
        "muted",
        "line",
        "paper",
        "good",
        "bad",
    }


def test_the_base_alone_and_strange_names_can_be_drawn(tmp_path):
    svg = figures.save(drawn([[0.5]], ["</svg>$x_{$ & a_very_long_name_of_a_suite"], [()]), tmp_path, "m")
    ET.fromstring(svg)  # noqa: S314  (our own output)
