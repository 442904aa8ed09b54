import pytest
import torch
from tiny import make_tiny_model

from metagdpo.errors import EvidenceError
from metagdpo.models.load import load_model
from metagdpo.records.reference import ReferenceIdentity, ReferenceLogProb
from metagdpo.training import drift_meter
from metagdpo.training.collate import TokenSequence
from metagdpo.training.drift_meter import measure
from metagdpo.training.logprobs import Scorer
from metagdpo.training.settings import SequenceParams

SETTINGS = SequenceParams(max_length=64, token_budget=24)
IDENTITY = ReferenceIdentity(
    weights="w", tokenizer="t", chat_template="c", groups="", context_free="h", dtype="float32"
)
TEXTS = [
    TokenSequence("context_free/0", (0,), (7, 8, 9, 10, 2)),
    TokenSequence("context_free/1", (0,), (30,)),
    TokenSequence("context_free/2", (0,), tuple(range(40, 59))),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    return tuple(load_model(make_tiny_model(folder / f"m{seed}", seed), "float32").double() for seed in (0, 1))


def plain(model, text):
    """log p of the next token at every scored token, the whole vocabulary: [n, V]."""
    ids = torch.tensor([[*text.prompt_ids, *text.response_ids]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0, :-1].log_softmax(-1)[len(text.prompt_ids) - 1 :]


def references(model):
    sums = {t.key: float(plain(model, t).gather(-1, torch.tensor(t.response_ids)[:, None]).sum()) for t in TEXTS}
    return {t.key: ReferenceLogProb(key=t.key, log_prob=sums[t.key], n_tokens=len(t.response_ids)) for t in TEXTS}


def found(models, tmp_path, identity=IDENTITY):
    base, candidate = models
    return measure(Scorer(base), Scorer(candidate), TEXTS, references(base), SETTINGS, identity=identity, work=tmp_path)


def test_exact_is_the_sum_of_the_next_tokens_divergences_by_definition(models, tmp_path):
    base, candidate = models
    expected = [float((plain(base, t).exp() * (plain(base, t) - plain(candidate, t))).sum()) for t in TEXTS]
    assert expected == pytest.approx([each.exact for each in found(models, tmp_path)], rel=1e-9)


def test_the_log_ratio_is_that_of_the_drawn_tokens(models, tmp_path):
    base, candidate = models
    before, after = references(base), references(candidate)
    expected = [before[t.key].log_prob - after[t.key].log_prob for t in TEXTS]
    assert expected == pytest.approx([each.log_ratio for each in found(models, tmp_path)], rel=1e-9)


def test_the_base_itself_has_not_moved(models, tmp_path):
    base, _ = models
    for each in found((base, base), tmp_path):
        assert each.exact == pytest.approx(0, abs=1e-12)
        assert each.log_ratio == pytest.approx(0, abs=1e-12)


def test_the_base_runs_once_for_all_candidates(models, tmp_path, monkeypatch):
    first = found(models, tmp_path)
    monkeypatch.setattr(drift_meter, "base_states", lambda *_, **__: pytest.fail("computed again"))
    assert first == found(models, tmp_path)


def test_states_of_another_base_are_not_taken(models, tmp_path, monkeypatch):
    found(models, tmp_path)
    monkeypatch.setattr(drift_meter, "base_states", lambda *_, **__: (_ for _ in ()).throw(KeyError("asked")))
    with pytest.raises(KeyError, match="asked"):
        found(models, tmp_path, IDENTITY.model_copy(update={"weights": "other"}))


def test_a_text_without_a_reference_is_refused(models, tmp_path):
    base, candidate = models
    with pytest.raises(EvidenceError, match="no reference log-probability for context_free/0"):
        measure(Scorer(base), Scorer(candidate), TEXTS, {}, SETTINGS, identity=IDENTITY, work=tmp_path)
