"""reference: ResponseGroup + base -> reference log-probabilities, bound to weights, tokenizer, template and data."""

from pathlib import Path

import torch

from metagdpo import params
from metagdpo.models.load import load_model, load_tokenizer, locate, verify
from metagdpo.params import BaseParams
from metagdpo.progress import done, run_stage
from metagdpo.records.group import ResponseGroup
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.sample import ContextFreeSample
from metagdpo.schema import read_jsonl, read_record, write_jsonl, write_record
from metagdpo.training.collate import context_free_sequences, group_sequences
from metagdpo.training.reference import bound_to, reference_log_probs
from metagdpo.training.settings import SequenceParams

GROUPS = Path("data/groups.jsonl")
HELD_OUT = Path("data/context_free_held_out.jsonl")


def main() -> None:
    """Compute each reference log-probability once, ever."""
    base = params.section("base", BaseParams)
    settings = params.section("reference", SequenceParams)
    identity = read_record(Path("data/base.json"), ModelIdentity)
    directory = locate(base.model)
    verify(identity, directory)
    tokenizer = load_tokenizer(directory)
    sequences = [
        *group_sequences(tokenizer, read_jsonl(GROUPS, ResponseGroup), settings),
        *context_free_sequences(read_jsonl(HELD_OUT, ContextFreeSample)),
    ]
    validity = bound_to(identity, base.dtype, groups=GROUPS, context_free=HELD_OUT)
    model = load_model(directory, base.dtype).to("cuda" if torch.cuda.is_available() else "cpu")
    values = reference_log_probs(model, sequences, settings, journal=Path(".work/reference"), identity=validity)
    count = write_jsonl(Path("data/reference.jsonl"), values)
    write_record(Path("data/reference.json"), validity)
    done("reference", f"{count} log-probabilities to data/reference.jsonl", "train uses them; no second forward, ever")


if __name__ == "__main__":
    run_stage("reference", main)
