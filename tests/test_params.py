"""params.yaml: typed sections, or every problem at once."""

import importlib
import re

import pytest
from pydantic import Field

from metagdpo.configuration import SECTIONS
from metagdpo.errors import ConfigError
from metagdpo.params import BaseParams, load_yaml, section
from metagdpo.schema import Frozen


class Section(Frozen):
    """A section of these tests."""

    rate: float = Field(gt=0)
    names: tuple[str, ...]


def written(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_scientific_notation_is_a_number_and_a_list_a_tuple(tmp_path):
    """PyYAML would read 2e-6 as a text; DVC and we do not."""
    found = section("s", Section, written(tmp_path, "s: {rate: 2e-6, names: [a, b]}"))
    assert Section(rate=2e-6, names=("a", "b")) == found


def test_every_problem_is_listed_with_its_path_and_value(tmp_path):
    with pytest.raises(ConfigError) as caught:
        section("s", Section, written(tmp_path, "s: {rate: '3', names: [a, 1], fro: 1}"))
    text = str(caught.value)
    for words in ("s.rate", 'got "3"', "s.names.1", "s.fro", "metagdpo check"):
        assert words in text


def test_a_missing_section_is_named(tmp_path):
    with pytest.raises(ConfigError, match="has no section `train`"):
        section("train", Section, written(tmp_path, "s: {}"))


def test_broken_yaml_names_line_and_column(tmp_path):
    with pytest.raises(ConfigError, match=r"line 2, column"):
        load_yaml(written(tmp_path, "a: 1\nb: [1, 2\n"))


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(ConfigError, match="project's root"):
        load_yaml(tmp_path / "params.yaml")


def test_only_two_dtypes_are_known(tmp_path):
    with pytest.raises(ConfigError, match="float32"):
        section("base", BaseParams, written(tmp_path, "base: {model: m, dtype: float64, seed: 1, experiment: e}"))


def fields(kind):
    """Names of all fields of a parameter section, those of sections inside it included."""
    for name, field in kind.model_fields.items():
        yield name
        for inner in re.findall(r"metagdpo[\w.]+", repr(field.annotation)):
            module, _, attribute = inner.rpartition(".")
            found = getattr(importlib.import_module(module), attribute)
            if isinstance(found, type) and issubclass(found, Frozen):
                yield from fields(found)


@pytest.mark.parametrize("section", SECTIONS)
def test_no_parameter_has_a_name_that_the_run_cache_of_dvc_ignores(section):
    """DVC leaves keys `size` and `nfiles` out of the digest under which it finds earlier runs, wherever they stand.

    Such a parameter could be changed, and the outputs of its old value would come back (dvc 3.67, stage/cache.py).
    """
    assert set(fields(SECTIONS[section])).isdisjoint({"size", "nfiles", "isexec"})


def test_the_walk_over_the_fields_reaches_unions_and_tuples():
    assert {"n_questions", "sources"} <= set(fields(SECTIONS["ingest"]))
