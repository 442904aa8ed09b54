"""Candidate: a trained model, bound to the base, the data and the parameters that made it."""

from typing import Literal

from pydantic import Field, JsonValue

from metagdpo.records.model_identity import ModelIdentity
from metagdpo.schema import Frozen


class Candidate(Frozen):
    """Manifest `candidate.json` in the candidate's directory."""

    identity: ModelIdentity
    """The candidate's own digests; `weights` is the base's for an adapter, its own for full fine-tuning."""
    base: ModelIdentity
    method: Literal["lora", "full"]
    objective: str
    """Kind of the objective, such as `gdpo`."""
    run_key: str
    """Digest of parameters, data and base: the same training has the same key, so reruns find their MLflow run."""
    data: dict[str, str]
    """Digest of every data file that training read."""
    params: dict[str, JsonValue]
    """The sections `base` and `train` as they were."""
    steps: int
    n_groups: int
    """Groups trained on."""
    n_skipped_groups: int
    """Degenerate groups, which carry no preference."""
    files: dict[str, str]
    """Digest of every other file in the directory, by relative path."""
    alpha: float = Field(default=1.0, gt=0, le=1, exclude_if=lambda alpha: alpha == 1.0)
    """Share of the way from the base to the trained weights (Wise-FT); 1 is what training left."""
    # Left out of the canonical form when 1: manifests written before the field existed keep their digest.
