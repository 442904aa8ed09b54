"""The drift meter: how far a candidate has moved from the base, on text that the base wrote from nothing.

Two estimates from one forward pass of the candidate, of the same quantity. `log_ratio` is log p_base - log p of the
tokens that were drawn, as CFS states it. `exact` is, at each of these tokens, the KL of the next token over the whole
vocabulary: the expectation of the log-ratio given the text so far, so that both have one mean (tower property), and the
draw of the token itself adds no noise. On the default's candidate its interval is half as wide (docs/protection.md).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from metagdpo.records.reference import ReferenceIdentity, ReferenceLogProb
from metagdpo.schema import Frozen, digest_json
from metagdpo.training.base_states import base_states
from metagdpo.training.collate import TokenSequence, make_batch, make_families, pack
from metagdpo.training.divergence import token_kl
from metagdpo.training.logprobs import Scorer, log_prob_sums
from metagdpo.training.reference import reference_of
from metagdpo.training.settings import SequenceParams


class Moved(Frozen):
    """One text's sums over its tokens."""

    key: str
    log_ratio: float
    """log p_base - log p_candidate, nats."""
    exact: float
    """Sum over its tokens of the KL of the next token, nats; at least 0."""
    n_tokens: int


def measure(
    base: Scorer,
    candidate: Scorer,
    sequences: Sequence[TokenSequence],
    references: Mapping[str, ReferenceLogProb],
    settings: SequenceParams,
    *,
    identity: ReferenceIdentity,
    work: Path,
) -> list[Moved]:
    """Both sums for every text, in the order given.

    Args:
        base: The base; its hidden states are computed once and kept.
        candidate: The candidate, in evaluation mode.
        sequences: Held-out context-free samples.
        references: Their log-probabilities under the base, by key.
        settings: How they are batched.
        identity: What the base's states depend on besides the settings.
        work: Folder that keeps the base's states; all candidates of a base share them.

    Raises:
        EvidenceError: A reference is missing or belongs to another text.
        ModelError: The logits of one cannot be computed in chunks.
    """
    before_S = reference_of(references, sequences)
    hidden = _kept_states(base, sequences, settings, identity, work)
    head_VD = base.policy.get_output_embeddings().weight.detach()
    families = make_families(sequences, shared_prompt=settings.shared_prompt and candidate.packed)
    found: dict[int, Moved] = {}
    for positions in pack([each.n_tokens for each in families], settings.token_budget, padded=not candidate.packed):
        batch = make_batch(sequences, [families[i] for i in positions], packed=candidate.packed).to(candidate.device)
        with torch.no_grad():
            states_ND, candidate_VD = candidate.hidden(batch)
            after_S = log_prob_sums(batch, states_ND, candidate_VD).double().cpu()
            base_ND = torch.cat([hidden[sequences[i].key] for i in batch.members]).to(states_ND.device)
            kl_N = token_kl(states_ND, candidate_VD, base_ND, head_VD.to(states_ND.device)).double()
        exact_S = kl_N.new_zeros(len(batch.members)).index_add(0, batch.owner_N, kl_N).cpu()
        for i, after, exact in zip(batch.members, after_S.tolist(), exact_S.tolist(), strict=True):
            found[i] = Moved(
                key=sequences[i].key,
                log_ratio=float(before_S[i]) - after,
                exact=exact,
                n_tokens=sequences[i].n_scored,
            )
    return [found[i] for i in range(len(sequences))]


def _kept_states(
    base: Scorer,
    sequences: Sequence[TokenSequence],
    settings: SequenceParams,
    identity: ReferenceIdentity,
    work: Path,
) -> dict[str, Tensor]:
    """The base's hidden states by text: from the folder, or computed and kept there."""
    name = digest_json([identity.model_dump(mode="json"), settings.model_dump(mode="json")])
    file = work / f"{name.removeprefix('sha256:')[:16]}.safetensors"
    if file.is_file():
        return dict(load_file(file))
    states = base_states(base, sequences, token_budget=settings.token_budget, shared_prompt=settings.shared_prompt)
    hidden = {key: value.contiguous() for key, value in states.hidden.items()}
    work.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    save_file(hidden, temporary)
    temporary.replace(file)
    return hidden
