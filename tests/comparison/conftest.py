"""The whole comparison once, and one that lacks runs."""

import pytest
from comparison_world import LABELS, SEEDS, world

from metagdpo.comparison.statistics import compare


@pytest.fixture(scope="session")
def whole():
    runs, pairs = world()
    return compare(runs, pairs, labels=LABELS, seeds=SEEDS)


@pytest.fixture(scope="session")
def lacking():
    """DPO has one seed, GDPO + CFS none."""
    runs, pairs = world(n_items=40)
    kept = [run for run in runs if run.method != "gdpo-cfs" and not (run.method == "dpo" and run.seed > 1)]
    failed = {("dpo", 2): "out of memory", ("gdpo-cfs", 1): "<b>killed</b>"}
    return compare(kept, pairs, labels=LABELS, seeds=SEEDS, failed=failed)
