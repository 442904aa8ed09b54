import shutil

import numpy as np
import pytest
import torch

from metagdpo.errors import ModelError
from metagdpo.models.embedding import Embedder, mean_pool

TEXTS = ["a", "What is 2 + 2?", "a much longer text than the others, so that they are padded"]


def test_the_mean_is_over_unmasked_tokens_and_has_length_one():
    hidden = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    mean = torch.tensor([3.0 / 2, 4.0 / 2])
    assert torch.allclose(mean_pool(hidden, mask), mean / mean.norm())


def test_rows_are_unit_vectors_in_the_order_of_the_texts(tiny_model_dir):
    rows = Embedder(tiny_model_dir, batch_size=8)(TEXTS)
    assert rows.shape == (3, 32)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1.0, abs=1e-6)
    alone = [Embedder(tiny_model_dir, batch_size=8)([text])[0] for text in TEXTS]
    assert np.abs(rows - np.stack(alone)).max() < 1e-5


def test_batch_size_changes_nothing_but_the_last_digits(tiny_model_dir):
    one, many = Embedder(tiny_model_dir, batch_size=1)(TEXTS), Embedder(tiny_model_dir, batch_size=3)(TEXTS)
    assert np.abs(one - many).max() < 1e-5


def test_no_texts_give_no_rows(tiny_model_dir):
    assert Embedder(tiny_model_dir, batch_size=8)([]).shape == (0, 32)


def test_long_texts_are_cut(tiny_model_dir):
    rows = Embedder(tiny_model_dir, batch_size=8)(["x " * 4000, "x " * 5000])
    assert np.array_equal(rows[0], rows[1])


def test_identity_follows_the_weights(tiny_model_dir, tmp_path):
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    assert Embedder(copy, batch_size=1).identity == Embedder(tiny_model_dir, batch_size=8).identity
    with (copy / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x01")
    assert Embedder(copy, batch_size=1).identity != Embedder(tiny_model_dir, batch_size=1).identity


def test_a_directory_without_a_readable_encoder_is_a_model_error(tiny_model_dir, tmp_path):
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be loaded as an encoder"):
        Embedder(copy, batch_size=1)(["a"])


def test_a_directory_with_a_pickle_is_refused(tiny_model_dir, tmp_path):
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    (copy / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pytorch_model.bin is refused"):
        Embedder(copy, batch_size=1)(["a"])
