"""The stage as a user runs it, on a model that writes noise."""

import json

import pytest
from tiny import CHAT_TEMPLATE, make_tiny_model

from metagdpo.errors import ConfigError, DataError, ModelError
from metagdpo.models.load import identify, load_tokenizer
from metagdpo.models.local import Local
from metagdpo.params import validate
from metagdpo.preservation.own_text import sample_own_text
from metagdpo.preservation.settings import PreserveParams
from metagdpo.records.preservation_report import PreservationReport
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.selection import SelectedQuestion
from metagdpo.records.self_dialogue import SelfDialogue
from metagdpo.schema import read_jsonl, read_record, write_jsonl, write_record
from pipelines import preserve

N_QUESTIONS = 12
PARAMS = """
base: {{model: {model}, dtype: float32, seed: 5, experiment: test}}
preserve:
  context_free: {{prefix: bos, ratio: 0.5, n_held_out: 4, max_new_tokens: 8}}
  self_dialogue: {dialogue}
"""
DIALOGUE = "{ratio: 6, max_new_tokens: 60, temperature: 1.0, top_p: 1.0}"
DATA = ("context_free_train.jsonl", "context_free_held_out.jsonl", "self_dialogues.jsonl", "preservation.json")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """The tiny model with a default system message; of ten of its users about one ends the turn within 60 tokens."""
    path = make_tiny_model(tmp_path_factory.mktemp("stage") / "model")
    tokenizer = load_tokenizer(path)
    tokenizer.chat_template = "{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}" + CHAT_TEMPLATE
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def project(model_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "data/base.json", identify(str(model_dir), model_dir))
    rows = (
        SelectedQuestion(question_id=f"q{k}", reason="gap", units=(), closed=(), order=k) for k in range(N_QUESTIONS)
    )
    write_jsonl(tmp_path / "data/metakl.jsonl", rows)
    (tmp_path / "params.yaml").write_text(PARAMS.format(model=model_dir, dialogue=DIALOGUE))
    return tmp_path


def contents(project):
    return {name: (project / "data" / name).read_bytes() for name in DATA}


def own(model_dir, **free):
    section = {"context_free": {"n_train": 2, "n_held_out": 2, "max_new_tokens": 4, **free}}
    settings = validate(section, PreserveParams, where="params.yaml")
    model = Local(model_dir, identify("tiny", model_dir), dtype="float32", batch_size=8)
    return sample_own_text(model, "sha256:w", load_tokenizer(model_dir), settings, n_questions=3, seed=0)


def test_the_stage_writes_what_the_ratios_ask_for(project):
    preserve.main()
    training = list(read_jsonl(project / "data/context_free_train.jsonl", ContextFreeSample))
    held_out = list(read_jsonl(project / "data/context_free_held_out.jsonl", ContextFreeSample))
    assert (len(training), len(held_out)) == (6, 4)
    report = read_record(project / "data/preservation.json", PreservationReport)
    assert report.n_questions == N_QUESTIONS
    assert [(part.source, part.part, part.asked) for part in report.parts] == [
        ("context_free", "train", 6),
        ("context_free", "held_out", 4),
        ("self_dialogue", "train", 72),
    ]


def test_the_report_counts_what_is_in_the_files(project):
    preserve.main()
    report = read_record(project / "data/preservation.json", PreservationReport)
    dialogues = list(read_jsonl(project / "data/self_dialogues.jsonl", SelfDialogue))
    part = report.parts[2]
    assert 0 < len(dialogues) == part.kept < part.asked
    assert part.kept + sum(part.dropped.values()) == part.asked
    assert part.tokens == sum(len(turn.token_ids) for one in dialogues for turn in one.turns)
    assert all(len(one.turns) == 2 for one in dialogues)


def test_the_report_shows_the_start_of_either_source(project):
    """The default system message stands before dialogues, which are chat, and before nothing else."""
    preserve.main()
    starts = [part["provenance"] for part in json.loads((project / "data/preservation.json").read_text())["parts"]]
    assert [(start["prefix"], start["prefix_text"]) for start in starts] == [
        ("bos", "<|im_start|>"),
        ("bos", "<|im_start|>"),
        ("chat_user_prefix", "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\n"),
    ]


def test_a_rerun_asks_nothing_and_gives_the_same_bytes(project, monkeypatch):
    preserve.main()
    before = contents(project)
    monkeypatch.setattr(Local, "complete", lambda *_: pytest.fail("the model was asked again"))
    preserve.main()
    assert contents(project) == before


def test_without_dialogues_their_file_is_empty_and_the_rest_is_as_before(project, model_dir):
    preserve.main()
    before = contents(project)
    (project / "params.yaml").write_text(PARAMS.format(model=model_dir, dialogue="null"))
    preserve.main()
    after = contents(project)
    assert after["self_dialogues.jsonl"] == b""
    assert all(after[name] == before[name] for name in DATA[:2])
    assert len(json.loads(after["preservation.json"])["parts"]) == 2


def test_warnings_are_told_on_the_terminal(project, capsys):
    preserve.main()
    report = read_record(project / "data/preservation.json", PreservationReport)
    assert any("the user's turn never ended" in warning for warning in report.warnings)
    printed = capsys.readouterr().out
    assert all(f"[preserve] warning: {warning}" in printed for warning in report.warnings)


def test_missing_questions_name_their_file(project):
    (project / "data/metakl.jsonl").unlink()
    with pytest.raises(DataError, match=r"metakl\.jsonl does not exist.*dvc repro"):
        preserve.main()


def test_a_template_that_cannot_be_used_is_told_before_anything_is_paid_for(project, monkeypatch):
    monkeypatch.setattr("metagdpo.preservation.own_text.chat_layout", _refuse)
    with pytest.raises(ModelError, match="no chat template"):
        preserve.main()
    assert not (project / ".work/preserve/completions.jsonl").exists()


def _refuse(*_):
    raise ModelError("no chat template")


def test_a_model_without_a_chat_template_still_writes_without_context(tmp_path):
    path = make_tiny_model(tmp_path / "model")
    (path / "chat_template.jinja").unlink()
    found = own(path)
    assert (len(found.training), len(found.held_out), found.dialogues) == (2, 2, [])


def test_ids_outside_the_vocabulary_are_refused(model_dir):
    with pytest.raises(ConfigError, match="must lie in the vocabulary"):
        own(model_dir, prefix="custom", prefix_ids=[10_000])


def test_no_training_samples_leave_the_held_out_part(model_dir):
    found = own(model_dir, n_train=0)
    assert found.training == []
    assert found.held_out == own(model_dir).held_out
