"""Starting a stage again in several processes keeps what it was asked to do."""

import os

import pytest

from metagdpo.training.launch import VARIABLE, launch_command, relaunch


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("num_processes: 2\n")
    return str(path)


def test_the_arguments_of_a_stage_are_handed_on(file):
    plain = launch_command("pipelines.train", {VARIABLE: file})
    assert ["-m", "pipelines.train"] == plain[-2:]
    assert [*plain, "sft", "3"] == launch_command("pipelines.train", {VARIABLE: file}, ["sft", "3"])


def test_the_process_becomes_the_launcher_with_the_same_arguments_and_without_the_variable(file, monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
    monkeypatch.setattr(os, "environ", {VARIABLE: file, "HOME": "h"})
    relaunch("pipelines.train", ["sft", "3"])
    ((program, command, environment),) = started
    assert program == command[0]
    assert ["pipelines.train", "sft", "3"] == command[-3:]
    assert {"HOME": "h"} == environment


def test_a_launched_process_goes_on_by_itself(file, monkeypatch):
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started once more"))
    monkeypatch.setattr(os, "environ", {VARIABLE: file, "RANK": "0"})
    relaunch("pipelines.train", ["sft", "3"])


def test_the_train_stage_hands_its_arguments_on(monkeypatch):
    from pipelines import train

    def started(*words):
        raise InterruptedError(words)

    monkeypatch.setattr(train, "relaunch", started)
    with pytest.raises(InterruptedError) as caught:
        train.main(["sft", "3"])
    assert (("pipelines.train", ["sft", "3"]),) == caught.value.args
