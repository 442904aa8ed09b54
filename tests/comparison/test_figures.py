"""The pictures show every method, every run and the base, and their names never cover each other."""

import io
import itertools

import pytest
from comparison_world import METHODS, SEEDS, finding, result, scores
from hypothesis import given
from hypothesis import strategies as st

from metagdpo.comparison.figures import (
    VERDICTS,
    drift_and_change,
    drift_caption,
    spread_out,
    trade_off,
    trade_off_caption,
)
from metagdpo.comparison.statistics import compare
from metagdpo.report.figures import PALETTE, save


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.fixture(scope="module")
def picture(whole):
    return trade_off(whole)


def test_every_method_has_its_name(picture, whole):
    assert {"base", *(row.label for row in whole.methods)} == set(texts(picture))


def test_every_seed_has_a_dot(picture, whole):
    dots = [line for line in picture.axes[0].lines if line.get_marker() == "."]
    at = {(round(float(d.get_xdata()[0]), 9), round(float(d.get_ydata()[0]), 9)) for d in dots}
    assert {(round(100 * run.target, 9), round(100 * run.retained, 9)) for run in whole.runs} == at


def test_a_mark_says_the_verdict_by_shape_and_colour(picture, whole):
    """SFT is blocked with every seed, GDPO + CFS promoted with every seed, SFT + CFS differs by seed."""
    from matplotlib.colors import to_hex

    marks = [c for c in picture.axes[0].collections if len(c.get_offsets())]
    colours = dict(
        zip((row.method for row in whole.methods), (to_hex(c.get_facecolor()[0]) for c in marks), strict=True)
    )
    assert (PALETTE["bad"], PALETTE["good"], PALETTE["third"]) == (
        colours["sft"],
        colours["gdpo-cfs"],
        colours["sft-cfs"],
    )
    assert len(VERDICTS) == len({marker for _, marker, _ in VERDICTS.values()})


def test_the_area_of_a_mark_grows_with_the_drift(picture, whole):
    marks = [c for c in picture.axes[0].collections if len(c.get_offsets())]
    areas = [float(c.get_sizes()[0]) for c in marks]
    drifts = [row.drift.value for row in whole.methods]
    assert sorted(range(8), key=areas.__getitem__) == sorted(range(8), key=drifts.__getitem__)


def test_every_interval_is_inside_the_frame(picture, whole):
    (left, right), (bottom, top) = picture.axes[0].get_xlim(), picture.axes[0].get_ylim()
    for row in whole.methods:
        assert left < 100 * row.target.low < 100 * row.target.high < right
        assert bottom < 100 * row.retained.low < 100 * row.retained.high < top


def test_a_method_without_a_result_is_not_drawn(lacking):
    assert "GDPO + CFS" not in texts(trade_off(lacking))


def test_names_do_not_overlap(picture):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(picture).draw()
    boxes = [text.get_window_extent() for text in picture.axes[0].texts if text.get_text() != "base"]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_without_a_target_suite_there_is_no_first_picture_and_a_second():
    run = result("m", 1, [finding("a")])
    found = compare([run], {("m", 1): {"a": scores([1, 0], [0, 0])}})
    assert trade_off(found) is None
    assert drift_and_change(found) is not None


def test_a_single_run_without_any_change_can_be_drawn(tmp_path):
    run = result("m", 1, [finding("a"), finding("t", "target")], kl=0.0)
    same = scores([1, 0], [1, 0])
    found = compare([run], {("m", 1): {"a": same, "t": same}})
    assert all(save(draw(found), tmp_path, "x").startswith("<?xml") for draw in (trade_off, drift_and_change))


@pytest.mark.parametrize("draw", [trade_off, drift_and_change])
def test_equal_numbers_give_equal_bytes(draw, whole, tmp_path):
    first, second = (save(draw(whole), tmp_path / str(n), "picture") for n in (1, 2))
    assert first == second
    assert (tmp_path / "1/picture.png").read_bytes() == (tmp_path / "2/picture.png").read_bytes()


def test_a_dollar_in_a_label_is_a_dollar(whole):
    row = whole.methods[0].model_copy(update={"label": "a $x_1$ {"})
    figure = trade_off(whole.model_copy(update={"methods": (row, *whole.methods[1:])}))
    figure.savefig(io.BytesIO(), format="svg")
    assert "a $x_1$ {" in texts(figure)


def test_a_label_has_no_control_characters_and_is_cut_to_its_column(whole):
    row = whole.methods[0].model_copy(update={"label": "\x00\u202e" + 50 * "x"})
    figure = trade_off(whole.model_copy(update={"methods": (row, *whole.methods[1:])}))
    assert "\ufffd\ufffd" + 23 * "x" + "…" in texts(figure)


def test_drift_has_a_dot_for_every_run(whole):
    dots = [line for line in drift_and_change(whole).axes[0].lines if line.get_marker() == "."]
    assert len(METHODS) * len(SEEDS) == len(dots)


def test_the_caption_of_the_drift_tells_the_correlations(whole):
    text = drift_caption(whole)
    assert "over 24 runs of 8 methods: Pearson −0.98 [" in text
    assert whole.links[0].note in text


def test_the_caption_of_the_first_picture_tells_what_is_shaded(whole):
    assert "accepted ones, 4 points." in trade_off_caption(whole)
    assert "Shaded" not in trade_off_caption(whole.model_copy(update={"accepted_loss": None}))


falling = st.lists(st.floats(-0.2, 1.2), max_size=14).map(lambda places: sorted(places, reverse=True))


@given(falling, st.floats(0.01, 0.3))
def test_names_fall_at_least_a_gap_apart_and_stay_inside(wanted, gap):
    places = spread_out(wanted, gap)
    used = min(gap, 1 / (len(wanted) - 1)) if len(wanted) > 1 else gap
    assert len(places) == len(wanted)
    assert all(a - b >= used - 1e-9 for a, b in itertools.pairwise(places))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)


@given(st.lists(st.integers(0, 10), unique=True, max_size=11))
def test_names_that_have_room_stay_where_they_belong(tenths):
    wanted = sorted((tenth / 10 for tenth in tenths), reverse=True)
    assert wanted == pytest.approx(spread_out(wanted, 0.09))


def test_three_names_that_want_one_place_are_centred_on_it():
    assert [0.6, 0.5, 0.4] == pytest.approx(spread_out([0.5, 0.5, 0.5], 0.1))


def test_two_names_that_want_one_place_share_the_way():
    assert [0.55, 0.45] == pytest.approx(spread_out([0.5, 0.5], 0.1))
