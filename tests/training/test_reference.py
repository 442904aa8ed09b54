"""Reference log-probabilities: resumable, ordered, and refused when they are not the ones."""

import pytest

from metagdpo.errors import EvidenceError
from metagdpo.models.load import load_model
from metagdpo.records.reference import ReferenceIdentity, ReferenceLogProb
from metagdpo.schema import write_jsonl, write_record
from metagdpo.training import reference
from metagdpo.training.collate import TokenSequence
from metagdpo.training.reference import load_reference, reference_log_probs, reference_of
from metagdpo.training.settings import SequenceParams

IDENTITY = ReferenceIdentity(
    weights="w", tokenizer="t", chat_template="c", groups="g", context_free="f", dtype="float32"
)
SEQUENCES = [TokenSequence(f"q{i // 2}/{i % 2}", (1, 2, 3 + i // 2), tuple(range(5, 7 + i))) for i in range(6)]
SMALL = SequenceParams(token_budget=12)


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return load_model(tiny_model_dir, "float32")


def compute(model, journal, sequences=SEQUENCES):
    return list(reference_log_probs(model, sequences, SMALL, journal=journal, identity=IDENTITY))


def stored(tmp_path, values):
    write_record(tmp_path / "reference.json", IDENTITY)
    write_jsonl(tmp_path / "reference.jsonl", values)
    return tmp_path / "reference.jsonl"


def test_values_come_in_the_order_asked_for(model, tmp_path):
    found = compute(model, tmp_path)
    assert [each.key for each in found] == [sequence.key for sequence in SEQUENCES]
    assert [each.n_tokens for each in found] == [len(sequence.response_ids) for sequence in SEQUENCES]


def test_an_interrupted_run_goes_on_and_pays_for_nothing_twice(model, tmp_path, monkeypatch):
    whole = compute(model, tmp_path / "whole")
    plain, calls = reference.Scorer.forward, []

    def fails_at_third(scorer, batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(scorer, batch)

    monkeypatch.setattr(reference.Scorer, "forward", fails_at_third)
    with pytest.raises(KeyboardInterrupt):
        compute(model, tmp_path / "torn")
    assert compute(model, tmp_path / "torn") == whole
    n_calls = len(calls)
    assert compute(model, tmp_path / "torn") == whole
    assert len(calls) == n_calls


def test_the_cache_comes_back_by_key(model, tmp_path):
    path = stored(tmp_path, compute(model, tmp_path))
    known = load_reference(path, IDENTITY)
    assert len(reference_of(known, SEQUENCES)) == 6


def test_a_cache_of_another_base_is_refused(tmp_path):
    path = stored(tmp_path, [])
    with pytest.raises(EvidenceError, match="computed from other weights, groups than now present"):
        load_reference(path, IDENTITY.model_copy(update={"weights": "x", "groups": "y"}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key": "q0/0", "log_prob": NaN, "n_tokens": 2}', r"line 1.*log_prob"),
        ('{"key": "q0/0", "log_prob": 3.0, "n_tokens": 2}', "q0/0 is 3.0, above 0"),
        (
            '{"key": "a", "log_prob": -3.0, "n_tokens": 2}\n{"key": "a", "log_prob": -3.0, "n_tokens": 2}',
            "a comes twice",
        ),
    ],
)
def test_values_that_are_no_log_probabilities_are_refused(tmp_path, line, message):
    path = stored(tmp_path, [])
    path.write_text(line + "\n")
    with pytest.raises(EvidenceError, match=message):
        load_reference(path, IDENTITY)


def test_a_missing_value_is_refused():
    with pytest.raises(EvidenceError, match="no reference log-probability for q0/0"):
        reference_of({}, SEQUENCES)


def test_a_value_over_other_tokens_of_the_same_text_is_refused():
    """A mask makes another sum of it."""
    (whole,), known = SEQUENCES[:1], ReferenceLogProb(key="q0/0", log_prob=-1.0, n_tokens=2)
    assert reference_of({"q0/0": known}, [whole]).tolist() == [-1.0]
    with pytest.raises(EvidenceError, match="q0/0 is over 2 tokens, the text has 1"):
        reference_of({"q0/0": known}, [whole.masked([False, True])])


def test_a_value_over_another_text_is_refused():
    with pytest.raises(EvidenceError, match="q0/0 is over 9 tokens, the text has 2"):
        reference_of({"q0/0": ReferenceLogProb(key="q0/0", log_prob=-1.0, n_tokens=9)}, SEQUENCES[:1])
