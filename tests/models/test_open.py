import pydantic
import pytest

from metagdpo.errors import ConfigError, ModelError
from metagdpo.models import EndpointSettings, LocalSettings, ModelSettings, RecordedSettings
from metagdpo.models.load import identify
from metagdpo.models.open import open_base, open_model
from metagdpo.models.port import Message, Request, Sampling
from metagdpo.params import validate
from metagdpo.schema import Frozen

ASK = [Request(messages=(Message(role="user", content="hi"),), seed=3)]
SAMPLING = Sampling(temperature=1.0, max_new_tokens=3)


class Holder(Frozen):
    """A section with one model."""

    model: ModelSettings


def read(value):
    return validate({"model": value}, Holder, where="params.yaml").model


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"kind": "local"}, LocalSettings),
        ({"kind": "endpoint", "base_url": "http://h/v1", "model": "m"}, EndpointSettings),
        ({"kind": "recorded", "journal": "j", "identity": "m"}, RecordedSettings),
    ],
)
def test_the_kind_decides_which_settings_are_read(value, kind):
    assert type(read(value)) is kind


@pytest.mark.parametrize(
    "url", ["localhost:8000", "http://user:secret@host/v1", "https://host/v1?key=secret", "ftp://host"]
)
def test_an_address_with_credentials_or_without_a_scheme_is_refused(url):
    with pytest.raises(ConfigError, match=r"model.endpoint.base_url"):
        read({"kind": "endpoint", "base_url": url, "model": "m"})


def test_the_local_settings_default_to_the_base_model():
    assert LocalSettings().model == "base"
    with pytest.raises(pydantic.ValidationError):
        LocalSettings(batch_size=0)


def test_the_base_answers_and_what_it_said_is_replayed_by_the_same_identity(tiny_model_dir, tmp_path):
    base = identify(str(tiny_model_dir), tiny_model_dir)
    model = open_model(LocalSettings(), base=base, dtype="float32", work=tmp_path)
    first = dict(model.complete(ASK, SAMPLING))
    settings = RecordedSettings(kind="recorded", journal=str(tmp_path / "completions.jsonl"), identity=model.identity)
    assert dict(open_model(settings, base=base, dtype="float32", work=tmp_path).complete(ASK, SAMPLING)) == first


def test_another_local_model_has_another_identity(tiny_model_dir, tmp_path):
    from tiny import make_tiny_model

    base = identify(str(tiny_model_dir), tiny_model_dir)
    other = LocalSettings(model=str(make_tiny_model(tmp_path / "other", seed=5)))
    opened = [open_model(s, base=base, dtype="float32", work=tmp_path) for s in (LocalSettings(), other)]
    assert opened[0].identity != opened[1].identity


def test_a_base_that_was_altered_is_refused_before_it_is_asked(tiny_model_dir, tmp_path):
    base = identify(str(tiny_model_dir), tiny_model_dir).model_copy(update={"weights": "sha256:other"})
    with pytest.raises(ModelError, match=r"weights differ"):
        open_base(base, dtype="float32", batch_size=1, work=tmp_path)
