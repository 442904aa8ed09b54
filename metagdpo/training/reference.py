"""Reference log-probabilities: computed once with the base, kept as they are paid for, checked when they are used.

They go through the very code that scores the policy, so that rounding cannot show up as a reward.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metagdpo.errors import DataError, EvidenceError
from metagdpo.progress import bar
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.records.reference import ReferenceIdentity, ReferenceLogProb
from metagdpo.schema import append_jsonl, digest_file, digest_json, read_journal, read_jsonl, read_record
from metagdpo.training.collate import TokenSequence, make_batch, make_families, pack
from metagdpo.training.logprobs import Scorer
from metagdpo.training.settings import SequenceParams

AGAIN = "Run `dvc repro -f reference` to compute them again."


def bound_to(model: ModelIdentity, dtype: str, *, groups: Path | None, context_free: Path) -> ReferenceIdentity:
    """What log-probabilities of these texts under this model are valid for.

    Args:
        model: The base, or a candidate whose drift is measured.
        dtype: Of the weights as loaded.
        groups: groups.jsonl; None where only context-free samples are scored.
        context_free: The held-out samples.
    """
    return ReferenceIdentity(
        weights=model.adapter or model.weights,
        tokenizer=model.tokenizer,
        chat_template=model.chat_template,
        groups="" if groups is None else digest_file(groups),
        context_free=digest_file(context_free),
        dtype=dtype,
    )


def reference_log_probs(
    model: Any,
    sequences: Sequence[TokenSequence],
    settings: SequenceParams,
    *,
    journal: Path,
    identity: ReferenceIdentity,
) -> Iterator[ReferenceLogProb]:
    """Score every sequence under the base and yield the results in the order given.

    Batches are planned over all sequences and a finished batch is never computed again, so an interrupted run ends with
    the same numbers as an uninterrupted one.

    Args:
        model: The base, in evaluation mode.
        sequences: What to score; keys are unique.
        settings: How it is batched.
        journal: Folder that keeps finished batches.
        identity: What the values depend on; other values are never mixed in.

    Raises:
        ModelError: The model's logits cannot be computed in chunks.
        StoreError: The journal cannot be written.
    """
    name = digest_json([identity.model_dump(mode="json"), settings.model_dump(mode="json")])
    file = journal / f"{name.removeprefix('sha256:')[:16]}.jsonl"
    known = {found.key: found for found in read_journal(file, ReferenceLogProb)}
    for found in score_batches(Scorer(model), sequences, settings, known=known):
        append_jsonl(file, found)
        known |= {each.key: each for each in found}
    yield from (known[sequence.key] for sequence in sequences)


def score_batches(
    scorer: Scorer, sequences: Sequence[TokenSequence], settings: SequenceParams, *, known: Container[str] = ()
) -> Iterator[list[ReferenceLogProb]]:
    """Reference log-probabilities, batch by batch; the batches depend on nothing but sequences and settings.

    Args:
        scorer: The base.
        sequences: What to score; keys are unique.
        settings: How it is batched.
        known: Keys that need not be computed again; a batch is left out when all its keys are known.
    """
    families = make_families(sequences, shared_prompt=settings.shared_prompt and scorer.packed)
    batches = pack([family.n_tokens for family in families], settings.token_budget, padded=not scorer.packed)
    for positions in bar(batches, total=len(batches), what="reference", unit="batch"):
        chosen = [families[i] for i in positions]
        if all(sequences[i].key in known for family in chosen for i in family.members):
            continue
        batch = make_batch(sequences, chosen, packed=scorer.packed).to(scorer.device)
        with torch.no_grad():
            values = scorer(batch).tolist()
        members = [sequences[i] for i in batch.members]
        yield [
            ReferenceLogProb(key=member.key, log_prob=value, n_tokens=member.n_scored)
            for member, value in zip(members, values, strict=True)
        ]


def load_reference(path: Path, identity: ReferenceIdentity) -> dict[str, ReferenceLogProb]:
    """Read reference log-probabilities by key, if they are those of this base and this data.

    Args:
        path: JSON Lines; what they were computed from stands beside it with the suffix `.json`.
        identity: What they must have been computed from.

    Raises:
        DataError: A file is missing.
        EvidenceError: They come from something else, a value is not a log-probability, or a key comes twice.
    """
    bound_to = read_record(path.with_suffix(".json"), ReferenceIdentity)
    different = [field for field in type(identity).model_fields if getattr(bound_to, field) != getattr(identity, field)]
    if different:
        raise EvidenceError(f"{path} was computed from other {', '.join(different)} than now present. {AGAIN}")
    if not path.exists():
        raise DataError(f"{path} does not exist. Run the stage that writes it: `dvc repro reference`.")
    known: dict[str, ReferenceLogProb] = {}
    try:
        for found in read_jsonl(path, ReferenceLogProb):
            if found.log_prob > 0 or found.key in known:
                what = "comes twice" if found.key in known else f"is {found.log_prob}, above 0"
                raise EvidenceError(f"{path}: the log-probability of {found.key} {what}. {AGAIN}")
            known[found.key] = found
    except DataError as error:
        raise EvidenceError(f"{error} {AGAIN}") from error
    return known


def reference_of(known: Mapping[str, ReferenceLogProb], sequences: Sequence[TokenSequence]) -> Tensor:
    """The reference log-probability of each sequence, nats, float64 [S].

    Raises:
        EvidenceError: One is missing, or is the sum over another number of tokens.
    """
    for sequence in sequences:
        found = known.get(sequence.key)
        if found is None:
            raise EvidenceError(f"there is no reference log-probability for {sequence.key}. {AGAIN}")
        if found.n_tokens != sequence.n_scored:
            message = (
                f"the reference log-probability of {sequence.key} is over {found.n_tokens} tokens, the text has "
                f"{sequence.n_scored}. {AGAIN}"
            )
            raise EvidenceError(message)
    return torch.tensor([known[sequence.key].log_prob for sequence in sequences], dtype=torch.float64)
