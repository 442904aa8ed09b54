"""Checkpoints: complete, atomic, and the newest whole one is found."""

import pytest
import torch
from safetensors import SafetensorError

from metagdpo.errors import StoreError
from metagdpo.training import checkpoint
from metagdpo.training.checkpoint import restore_checkpoint, save_checkpoint


def fresh():
    model = torch.nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def work(model, optimiser, steps):
    for _ in range(steps):
        model(torch.rand(4, 3)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()


def named(model):
    return dict(model.named_parameters())


def test_restored_training_goes_on_as_if_nothing_had_happened(tmp_path):
    """Weights, moments and random state: the next steps are bit-identical."""
    model, optimiser = fresh()
    work(model, optimiser, 3)
    save_checkpoint(tmp_path, 3, "key", named(model), optimiser)
    work(model, optimiser, 2)
    again, optimiser_again = fresh()
    assert restore_checkpoint(tmp_path, "key", named(again), optimiser_again) == 3
    work(again, optimiser_again, 2)
    assert torch.equal(model.weight, again.weight)


def test_without_a_checkpoint_nothing_changes(tmp_path):
    model, optimiser = fresh()
    before = model.weight.clone()
    assert restore_checkpoint(tmp_path, "key", named(model), optimiser) == 0
    assert torch.equal(before, model.weight)


def test_a_checkpoint_of_another_training_is_not_continued(tmp_path):
    model, optimiser = fresh()
    save_checkpoint(tmp_path, 3, "key", named(model), optimiser)
    assert restore_checkpoint(tmp_path, "other", named(model), optimiser) == 0


@pytest.mark.parametrize("file", ["weights.safetensors", "optimiser.safetensors", "random.safetensors", "state.json"])
def test_a_torn_checkpoint_is_passed_over(tmp_path, file):
    model, optimiser = fresh()
    work(model, optimiser, 1)
    for step in (1, 2):
        save_checkpoint(tmp_path, step, "key", named(model), optimiser)
    torn = tmp_path / "step-00000002" / file
    torn.write_bytes(torn.read_bytes()[:-3])
    assert restore_checkpoint(tmp_path, "key", named(model), optimiser) == 1


def test_the_newest_two_are_kept(tmp_path):
    model, optimiser = fresh()
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, step, "key", named(model), optimiser)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]


def test_one_of_a_run_that_was_cut_off_later_does_not_push_out_the_new_one(tmp_path):
    """As for the best weights: saved at step 9, killed, gone on from step 4, and then best at step 6."""
    model, optimiser = fresh()
    for step in (9, 6):
        save_checkpoint(tmp_path, step, "key", named(model), optimiser, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000006"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch, error):
    model, optimiser = fresh()
    work(model, optimiser, 1)
    save_checkpoint(tmp_path, 1, "key", named(model), optimiser)

    def full(*_arguments):
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StoreError, match=r"No space left on device.*The one before it is intact"):
        save_checkpoint(tmp_path, 2, "key", named(model), optimiser)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert restore_checkpoint(tmp_path, "key", named(model), optimiser) == 1
