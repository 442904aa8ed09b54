"""docs/gate-anywhere.md says what happens."""

import importlib.util
import re
from pathlib import Path

import pytest

from metagdpo.exchange.compare import DEFAULTS
from metagdpo.gate.policy import Policy

_SPEC = importlib.util.spec_from_file_location("gate_page", Path(__file__).with_name("gate_page.py"))
gate_page = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(gate_page)
TEXT = gate_page.PAGE.read_text(encoding="utf-8")


def test_every_command_prints_what_the_page_shows():
    assert gate_page.page() == TEXT, "run `python tests/exchange/gate_page.py`"


def test_the_page_shows_a_verdict_of_each_kind_and_a_refusal():
    assert {"0", "1", "2", "7"} <= set(re.findall(r"^exit (\d+)$", TEXT, re.MULTILINE))


@pytest.mark.parametrize("name", ["alpha", "power", "default_margin", "min_items"])
def test_the_defaults_are_those_of_the_code(name):
    assert f"| `{name}` | {getattr(DEFAULTS, name):g} |" in TEXT


def test_every_field_named_is_one_of_the_policy():
    table = TEXT.split("## Policy")[1].split("## Pull requests")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) <= set(Policy.model_fields)
