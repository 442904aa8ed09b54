"""One toy project for all pipeline tests; each test works on its own copy."""

import pytest
import toy


@pytest.fixture(scope="session")
def fresh_project(tmp_path_factory):
    """Written, recorded and committed; nothing has run."""
    return toy.make_project(tmp_path_factory.mktemp("toy") / "project")
