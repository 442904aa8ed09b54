"""preserve: base model -> ContextFreeSample (CFS; a training and a held-out part), SelfDialogue (SA-SFT), counts."""

from pathlib import Path

from metagdpo import params
from metagdpo.models.load import load_tokenizer, locate
from metagdpo.models.open import open_base
from metagdpo.params import BaseParams
from metagdpo.preservation.own_text import sample_own_text
from metagdpo.preservation.settings import PreserveParams
from metagdpo.progress import done, note, run_stage
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.selection import SelectedQuestion
from metagdpo.schema import read_jsonl, read_record, write_jsonl, write_record


def main() -> None:
    """Let the base write by itself; a rerun pays for nothing twice."""
    base = params.section("base", BaseParams)
    settings = params.section("preserve", PreserveParams)
    identity = read_record(Path("data/base.json"), ModelIdentity)
    n_questions = sum(1 for _ in read_jsonl(Path("data/metakl.jsonl"), SelectedQuestion))
    tokenizer = load_tokenizer(locate(identity.reference))
    model = open_base(identity, dtype=base.dtype, batch_size=settings.batch_size, work=Path(".work/preserve"))
    own = sample_own_text(model, identity.weights, tokenizer, settings, n_questions=n_questions, seed=base.seed)
    write_jsonl(Path("data/context_free_train.jsonl"), own.training)
    write_jsonl(Path("data/context_free_held_out.jsonl"), own.held_out)
    write_jsonl(Path("data/self_dialogues.jsonl"), own.dialogues)
    write_record(Path("data/preservation.json"), own.report)
    for warning in own.report.warnings:
        note("preserve", f"warning: {warning}")
    done(
        "preserve",
        f"{len(own.training)} samples to data/context_free_train.jsonl, {len(own.held_out)} held out to measure drift, "
        f"{len(own.dialogues)} dialogues to data/self_dialogues.jsonl, counts to data/preservation.json",
        "read a few: what the base writes when nobody asks",
    )


if __name__ == "__main__":
    run_stage("preserve", main)
