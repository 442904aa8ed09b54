"""Sentence embeddings of a BERT-like encoder: mean over the tokens that are not padding, then unit length.

Source: Sentence-BERT (Reimers and Gurevych 2019, arXiv 1908.10084), and the model card of all-MiniLM-L6-v2.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metagdpo.errors import ModelError
from metagdpo.models.load import check_directory, identify, load_tokenizer
from metagdpo.progress import bar
from metagdpo.schema import digest_json

MAX_TOKENS = 256
"""Texts are cut here: all-MiniLM-L6-v2 was trained on no longer ones."""


class Embedder:
    """Callable from texts to unit vectors; the weights are read at the first call."""

    def __init__(self, path: Path, *, batch_size: int) -> None:
        self.path = path
        self.batch_size = batch_size

    @functools.cached_property
    def identity(self) -> str:
        """Digest over weights, configuration, tokenizer and the length at which texts are cut."""
        found = identify(str(self.path), self.path)
        return digest_json([found.weights, found.config, found.tokenizer, MAX_TOKENS])

    def __call__(self, texts: Sequence[str]) -> Any:
        """Embeddings [text, dimension], float32, each row of length 1.

        Texts of similar length share a batch; values depend on the batch only in the last digits.

        Raises:
            ModelError: The directory holds no encoder that can be read.
        """
        import numpy as np
        import torch

        model, tokenizer = self._loaded
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        rows_ND = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
        for batch in bar(batches, total=len(batches), what=f"embedding with {self.path.name}", unit="batches"):
            encoded = tokenizer(
                [texts[place] for place in batch],
                padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt",
            ).to(model.device)  # fmt: skip
            with torch.inference_mode():
                hidden_BTD = model(**encoded).last_hidden_state
            rows_ND[batch] = mean_pool(hidden_BTD.float(), encoded["attention_mask"]).cpu().numpy()
        return rows_ND

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModel

        check_directory(self.path)
        try:
            model = AutoModel.from_pretrained(
                self.path,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            message = f"{self.path} cannot be loaded as an encoder: {error}. Run `dvc repro -f assets`."
            raise ModelError(message) from error
        return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), load_tokenizer(self.path)


def mean_pool(hidden_BTD: Any, mask_BT: Any) -> Any:
    """Mean of the hidden states over the unmasked tokens, scaled to length 1.

    Args:
        hidden_BTD: Last hidden states [text, token, dimension].
        mask_BT: 1 for a token, 0 for padding; at least one token a row.
    """
    import torch

    mask_BT1 = mask_BT[:, :, None].to(hidden_BTD.dtype)
    mean_BD = (hidden_BTD * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1)
    return torch.nn.functional.normalize(mean_BD, dim=-1)
