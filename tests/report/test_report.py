"""The report tells the verdict first, shows untrusted text as text, and repeats byte for byte."""

import html.parser
import json

import pytest

from metagdpo.records.overlap import Overlap, TrainingOverlaps
from metagdpo.records.verdict import Verdict
from metagdpo.report.flips import Flip
from metagdpo.report.report import markdown, plain, write_report

EVIL = '<script>alert(1)</script><img src=x onerror=alert(1)>" | [x](javascript:alert(1)) `c`\x00\u202eabc'


def flip(kind="lost", answer="B", item="b/1"):
    return Flip(suite="b", item_id=item, kind=kind, base_answer="A", candidate_answer=answer)


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.attributes, self.open = set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in {"meta", "col", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture
def report(verdict, candidate, tmp_path):
    def write(folder="report", **more):
        write_report(tmp_path / folder, verdict, candidate, metrics=[{"step": 1, "objective": 0.5}], **more)
        return [(tmp_path / folder / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")]

    return write


def test_the_first_lines_tell_the_verdict_and_why(report):
    text, page = report()
    assert text.splitlines()[0] == "# Release report: BLOCK"
    assert "Lost more than the margin: skill of b." in text.splitlines()[2]
    assert page.index("Lost more than the margin: skill of b.") < page.index("<table")


def test_every_path_returned_exists(verdict, candidate, tmp_path):
    paths = write_report(tmp_path, verdict, candidate)
    assert {path.name for path in paths} >= {"report.md", "report.html", "retention.png", "retention.svg", "drift.png"}
    assert all(path.stat().st_size > 0 for path in paths)


def test_the_numbers_and_the_items_needed_are_in_both(report):
    for text in report():
        assert "−12.0 to −8.0" in text
        assert "about 1,234 items needed" in text
        assert "sha256:p" in text


def test_the_page_is_self_contained_and_well_nested(report):
    tags = Tags()
    tags.feed(report()[1])
    assert tags.open == []
    assert "svg" in tags.found
    assert not tags.found & {"script", "img", "link", "iframe", "object"}
    assert not {name for name in tags.attributes if name.startswith("on") or name in {"src", "srcset"}}


def test_answers_cannot_inject_html_or_break_the_table(report):
    text, page = report(flips=[flip(answer=EVIL, item=EVIL)])
    tags = Tags()
    tags.feed(page)
    assert not tags.found & {"script", "img"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    row = next(line for line in text.splitlines() if "alert" in line)
    assert "<" not in row
    assert row.replace("\\|", "").count("|") == 5
    assert "\\[x\\](javascript" in row
    assert not {"\x00", "\u202e"} & set(text + page)


def test_flips_beyond_the_limit_are_counted(report):
    flips = [flip(item=f"b/{n}") for n in range(5)] + [flip("gained", item=f"b/{n}") for n in range(5, 7)]
    for text in report(flips=flips, most_flips=3):
        assert "2 more are not shown." in text
        assert text.count("gained</span></td>") in {0, 2}


def test_equal_input_gives_equal_bytes(report, tmp_path):
    assert report("one", flips=[flip()]) == report("two", flips=[flip()])
    for one in (tmp_path / "one" / "figures").iterdir():
        assert one.read_bytes() == (tmp_path / "two" / "figures" / one.name).read_bytes()


@pytest.mark.parametrize("decision", ["PROMOTE", "BLOCK", "INCONCLUSIVE"])
def test_every_decision_without_drift_flips_or_curves_has_a_report(verdict, candidate, tmp_path, decision):
    bare = verdict.model_copy(update={"decision": decision, "drift": None, "findings": verdict.findings[:1]})
    write_report(tmp_path, bare, candidate)
    assert "not measured" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "figures" / "training.png").exists()


def test_a_long_answer_says_how_much_is_left_out():
    assert plain("x" * 25, 20) == "x" * 20 + " … (5 more characters)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("a\nb", "a ⏎ b"),
        ("<b>", "&lt;b&gt;"),
        ("- x", "\\- x"),
        ("http://x", "http:\\//x"),
        ("3.5", "3.5"),
    ],
)
def test_markdown_shows_text_as_it_is(text, shown):
    assert markdown(text) == shown


def repeating(verdict, n=1, total=None, **fields):
    row = {"text_id": "q1", "suite": "b", "item_id": "i7", "kind": "ngram", "share": 0.625, "text": "t", "item": "u"}
    rows = tuple(Overlap(**{**row, "text_id": f"q{k}", **fields}) for k in range(n))
    overlaps = TrainingOverlaps(n_texts=1234, suites={"b": total or n} if n else {}, examples=rows)
    return verdict.model_copy(
        update={"overlaps": overlaps, "reasons": ("The training data repeats b.", *verdict.reasons)}
    )


@pytest.fixture
def texts_of(candidate, tmp_path):
    def write(verdict):
        write_report(tmp_path, verdict, candidate)
        return [(tmp_path / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")]

    return write


def test_overlaps_are_listed_with_the_share_and_counted_beyond_the_list(verdict, texts_of):
    for text in texts_of(repeating(verdict, n=2, total=9)):
        assert "Of 1,234 training texts, so many repeat an item of a suite: b 9." in text
        assert "62 % of its n-grams" in text
        assert "7 more are not shown." in text


def test_training_data_without_overlap_is_said_to_be_compared(verdict, texts_of):
    for text in texts_of(repeating(verdict, n=0)):
        assert "None of 1,234 training texts" in text


def test_a_verdict_that_did_not_look_for_overlaps_has_no_such_section(verdict, texts_of):
    assert all("Overlap of the training data" not in text for text in texts_of(verdict))


def test_all_deciding_reasons_stay_in_sight_behind_that_of_the_overlap(verdict, texts_of):
    page = texts_of(repeating(verdict))[1]
    head = page[: page.index("All findings in words")]
    assert all(
        reason in head for reason in ("repeats b.", "Lost more than the margin: skill of b.", "skill of b: lost.")
    )
    assert "skill of a: retained." not in head


def test_training_texts_cannot_inject_html_or_break_the_table(verdict, texts_of):
    text, page = texts_of(repeating(verdict, text=EVIL, item=EVIL, text_id=EVIL, item_id=EVIL))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.found & {"script", "img"}
    row = next(line for line in text.splitlines() if "alert" in line)
    assert "<" not in row
    assert row.replace("\\|", "").count("|") == 7
    assert not {"\x00", "\u202e"} & set(text + page)


def test_a_verdict_of_an_earlier_version_is_read_as_one_that_did_not_look(verdict):
    old = verdict.model_dump(mode="json")
    del old["overlaps"]
    assert Verdict.model_validate_json(json.dumps(old)).overlaps is None


def test_alphas_that_were_tried_are_shown_with_the_items_they_were_chosen_on(
    verdict, candidate, interpolation, tmp_path
):
    chosen = candidate.model_copy(update={"alpha": 0.6})
    written = write_report(tmp_path, verdict, chosen, interpolation=interpolation)
    assert tmp_path / "figures/interpolation.svg" in written
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "Choice of alpha" in text
        assert "Items: sums 50, rhymes 7 of 50 wanted. Chosen: the largest of the tests." in text
        assert "60 % of the way from the base to the trained ones (Wise-FT)" in text


def test_without_a_choice_nothing_is_said_about_alpha(report, interpolation):
    alone = interpolation.model_copy(update={"chosen": 1.0, "points": (), "suites": ()})
    assert report(interpolation=alone) == report("other")
    assert not any("alpha" in text for text in report("third"))
