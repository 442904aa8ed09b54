"""The page tells everything, shows untrusted text as text, needs nothing remote, and repeats byte for byte."""

import html.parser
import re

import pytest
from comparison_world import finding, result, scores

from metagdpo.comparison.page import write_page
from metagdpo.comparison.statistics import compare
from metagdpo.report.figures import PALETTE

EVIL = '<script>alert(1)</script><img src=x onerror=alert(1)>"\x00\u202eabc'
CHANGES = {
    "sft-cfs": {"train": {"anchors": [{"kind": "context_free", "weight": 1.0}]}},
    "gdpo": {"train": {"objective": {"kind": "gdpo"}, "learning_rate": 1e-3}},
}


class Tags(html.parser.HTMLParser):
    """Start tags, and that they are closed in their order."""

    def __init__(self):
        super().__init__()
        self.found, self.attributes, self.open = set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture(scope="module")
def page(whole, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    paths = write_page(folder, whole, CHANGES, {"train": {"max_tokens": 8000}})
    return folder, paths, (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    run = result("m", 1, [finding(EVIL)], label=EVIL)
    found = compare([run], {("m", 1): {EVIL: scores([1], [0])}}, labels={"m": EVIL}, seeds=[1, 2],
                    failed={("m", 2): EVIL})  # fmt: skip
    folder = tmp_path_factory.mktemp("evil")
    write_page(folder, found, {"m": {"train": {EVIL: EVIL}}}, {EVIL: EVIL})
    return (folder / "index.html").read_text(encoding="utf-8")


def test_every_path_returned_exists_and_nothing_else_is_written(page):
    folder, paths, _ = page
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(paths)
    assert {"index.html", "trade_off.png", "trade_off.svg", "drift.png", "drift.svg"} == {path.name for path in paths}


def test_equal_comparisons_give_equal_bytes(page, whole, tmp_path):
    _, paths, _ = page
    again = write_page(tmp_path, whole, CHANGES, {"train": {"max_tokens": 8000}})
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]


def test_every_method_suite_claim_and_link_is_told(page, whole):
    text = html.unescape(page[2])
    told = [row.label for row in whole.methods] + [change.suite for change in whole.methods[0].suites]
    told += [claim.claim for claim in whole.claims] + [link.note for link in whole.links]
    assert not [word for word in told if word not in text]


def test_what_a_method_is_stands_there(page):
    text = html.unescape(page[2])
    assert "train.anchors: [{kind: context_free, weight: 1.0}]" in text
    assert "train.objective: {kind: gdpo}" in text
    assert "train.max_tokens: 8000" in text


def test_tags_are_closed_in_their_order(page):
    tags = Tags()
    tags.feed(page[2])
    assert [] == tags.open


def test_nothing_remote_and_no_script(page, evil):
    for text in (page[2], evil):
        tags = Tags()
        tags.feed(text)
        assert not tags.found & {"script", "img", "link", "iframe", "object"}
        assert not [name for name in tags.attributes if name.startswith("on") or name == "src"]
        assert not re.findall(r'(?:href|url\()="?https?:', text)


def test_untrusted_text_is_text(evil):
    assert "&lt;script&gt;alert(1)" in evil
    assert "\x00" not in evil
    assert "\u202e" not in evil


def test_missing_runs_are_named(lacking, tmp_path):
    write_page(tmp_path, lacking, {})
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "DPO, seed 2: out of memory" in text
    assert "GDPO + CFS, seed 1: &lt;b&gt;killed&lt;/b&gt;" in text
    assert "20 of 24" not in text
    assert "19 of 24" in text


def test_pictures_follow_the_readers_light_or_dark_page(page):
    svg = page[2][page[2].index("<svg") : page[2].rindex("</svg>")]
    assert not [colour for colour in PALETTE.values() if colour in svg]


def test_the_lead_names_who_gains_and_keeps_and_nobody_else(page, whole):
    kept = [row.label for row in whole.methods if row.target.low > 0 and row.retained.low > -whole.accepted_loss]
    assert f"within the accepted loss: {', '.join(kept)}. Largest gain among them: SFT + CFS" in page[2]


def test_a_gain_that_is_not_shown_is_no_gain_for_the_lead(whole, tmp_path):
    row = next(row for row in whole.methods if row.method == "sft-cfs")
    unsure = row.model_copy(update={"target": row.target.model_copy(update={"low": -0.1})})
    others = tuple(unsure if other.method == row.method else other for other in whole.methods)
    write_page(tmp_path, whole.model_copy(update={"methods": others}), {})
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "within the accepted loss: GDPO + CFS. Largest" in text


def test_the_lead_says_when_nobody_does(evil):
    assert "No method is shown to gain the target and to keep, on average, within the accepted loss." in evil


def test_without_a_target_the_missing_picture_is_said(evil):
    assert "No picture: no method has the numbers for it." in evil
