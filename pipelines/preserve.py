"""preserve: base model -> ContextFreeSample (CFS), a training part and a held-out part for measuring drift."""

from pathlib import Path

from metagdpo import params
from metagdpo.models.load import load_tokenizer, locate
from metagdpo.models.open import open_base
from metagdpo.params import BaseParams
from metagdpo.preservation.context_free import PreserveParams, sample_context_free, start_symbol
from metagdpo.progress import done, run_stage
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.schema import read_record, write_jsonl


def main() -> None:
    """Sample from the base's start symbol alone; a rerun pays for no sample twice."""
    base = params.section("base", BaseParams)
    settings = params.section("preserve", PreserveParams)
    identity = read_record(Path("data/base.json"), ModelIdentity)
    prefix = start_symbol(load_tokenizer(locate(base.model)), settings)
    model = open_base(identity, dtype=base.dtype, batch_size=settings.batch_size, work=Path(".work/preserve"))
    training, held_out = sample_context_free(model, identity.weights, prefix, settings, base.seed)
    write_jsonl(Path("data/context_free_train.jsonl"), training)
    write_jsonl(Path("data/context_free_held_out.jsonl"), held_out)
    done(
        "preserve",
        f"{len(training)} samples to data/context_free_train.jsonl, {len(held_out)} held out to measure drift",
        "read a few: what the base writes when nobody asks",
    )


if __name__ == "__main__":
    run_stage("preserve", main)
