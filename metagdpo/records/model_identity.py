"""ModelIdentity: the digests that say which model this is."""

from metagdpo.schema import Frozen


class ModelIdentity(Frozen):
    """Everything that decides what a model answers; equal identity, equal model."""

    reference: str
    """As written in params.yaml: `asset:<name>`, `hub:<owner>/<name>@<40-hex revision>` or a directory."""
    weights: str
    """Digest over the base's safetensors files."""
    config: str
    tokenizer: str
    chat_template: str
    """Digest of the template text; of the empty text when the model has none."""
    adapter: str | None = None
    """Digest over the adapter's safetensors and configuration, if there is one."""
    licence: str = "unknown"
