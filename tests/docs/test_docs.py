"""The documents say what the code does."""

import re

import pytest
from parameters import PAGE, ROOT, page

TEXTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "registry").glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)


def test_parameter_page_is_written_from_the_types():
    """docs/parameters.md equals what the types say today."""
    assert page() == PAGE.read_text(encoding="utf-8"), "run `python tests/docs/parameters.py`"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    """Every relative link of a document names a file that exists."""
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [] == [target for target in targets if not (path.parent / target).exists()]
