"""The stage `interpolate` in a project of two-layer random weights: what it writes, measures once, and refuses."""

import json

import pytest
import torch
import yaml
from tiny import make_tiny_model

from metagdpo.errors import ConfigError
from metagdpo.evaluation.items import build_items
from metagdpo.evaluation.suite import load_suites
from metagdpo.models.load import identify, load_model
from metagdpo.records.group import ResponseGroup
from metagdpo.records.interpolation import Interpolation
from metagdpo.runs import Run
from metagdpo.schema import read_record, write_jsonl, write_record
from metagdpo.training.candidate import identify_candidate, read_manifest, write_manifest
from metagdpo.training.model import make_policy, save_candidate
from metagdpo.training.settings import TrainParams
from pipelines import interpolate

SUITE = {
    "skill": "skill", "metric": "acc", "n_items": 10, "chance": 0.5, "licence": "CC0", "source": "made up",
}  # fmt: skip
SETTINGS = {"alphas": [0.5, 1.0], "n_items": 6, "retention": 0.5}


def write_project(root, method="lora"):
    """Two suites of twenty choices each, ten of them items, and a training that moved the weights at random."""
    for name, tier in (("goal", "target"), ("kept", "required")):
        rows = [{"prompt": f"{name} {i} is", "options": ["yes", "no"], "gold": i % 2} for i in range(20)]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        suite = {**SUITE, "name": name, "tier": tier, "items": {"kind": "files", "path": f"{name}.jsonl"}}
        write_yaml(root / f"registry/suites/{name}.yaml", suite)
    make_tiny_model(root / "tiny")
    write_record(root / "data/base.json", identify("tiny", root / "tiny"))
    write_jsonl(root / "data/groups.jsonl", [])
    for suite in load_suites(root / "registry/suites"):
        write_jsonl(root / f"data/suites/{suite.name}.jsonl", build_items(suite, root))
    train(root, method)
    write_params(root)


def write_params(root, **interpolate_section):
    base = {"model": "tiny", "dtype": "float32", "seed": 1, "experiment": "unit"}
    evaluate = {"batch_size": 4, "items_per_look": 4}
    write_yaml(
        root / "params.yaml", {"base": base, "evaluate": evaluate, "interpolate": SETTINGS | interpolate_section}
    )


def write_yaml(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value))


def train(root, method):
    policy = make_policy(load_model(root / "tiny", "float32"), TrainParams(method=method, learning_rate=1e-4), seed=3)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    save_candidate(policy, root / "models/trained", reference="tiny", base_directory=root / "tiny")
    facts = {"data": {}, "params": {}, "steps": 1, "n_groups": 2, "n_skipped_groups": 0}
    write_manifest(root / "models/trained", identify("tiny", root / "tiny"), key="sha256:k", objective="sft", **facts)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    return tmp_path


def found(root):
    return read_record(root / "models/interpolation.json", Interpolation)


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def count_loads(monkeypatch, limit=None):
    """Names of what is loaded; more than `limit` loads are a kill."""
    loads = []

    def counted(name, load):
        def once(*arguments):
            if len(loads) == limit:
                raise KeyboardInterrupt
            loads.append(name)
            return load(*arguments)

        monkeypatch.setattr(interpolate, name, once)

    counted("load_model", interpolate.load_model)
    counted("load_candidate", interpolate.load_candidate)
    return loads


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_candidate_is_the_chosen_point_and_the_record_tells_how(tmp_path, monkeypatch, method):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, method)
    interpolate.main(Run())
    record, candidate = found(tmp_path), read_manifest(tmp_path / "models/candidate")
    assert [point.alpha for point in record.points] == [0.0, 0.5, 1.0]
    assert [(row.suite, row.n_items, row.n_wanted) for row in record.suites] == [("goal", 6, 6), ("kept", 6, 6)]
    assert candidate.alpha == record.chosen
    assert candidate.identity == identify_candidate(tmp_path / "models/candidate", candidate.base)
    measured = {point.alpha: point.weights for point in record.points}
    assert measured[record.chosen] == (candidate.identity.adapter or candidate.identity.weights)
    trained = read_manifest(tmp_path / "models/trained").identity
    assert measured[1.0] == (trained.adapter or trained.weights)
    assert measured[0.0] == candidate.base.weights


def test_one_alpha_of_one_hands_the_training_on_without_measuring(project, monkeypatch):
    write_params(project, alphas=[1.0])
    loads = count_loads(monkeypatch)
    interpolate.main(Run())
    assert files(project / "models/candidate") == files(project / "models/trained")
    assert (found(project).chosen, found(project).points, loads) == (1.0, (), [])


def test_one_other_alpha_is_taken_as_it_is(project, monkeypatch):
    write_params(project, alphas=[0.25])
    loads = count_loads(monkeypatch)
    interpolate.main(Run())
    assert (read_manifest(project / "models/candidate").alpha, loads) == (0.25, [])


def test_the_same_run_writes_the_same_bytes_and_measures_nothing_again(project, monkeypatch):
    interpolate.main(Run())
    first = files(project / "models/candidate"), (project / "models/interpolation.json").read_bytes()
    loads = count_loads(monkeypatch)
    interpolate.main(Run())
    assert (files(project / "models/candidate"), (project / "models/interpolation.json").read_bytes()) == first
    assert loads == []


@pytest.mark.parametrize("n_loads", [0, 1, 2])
def test_a_killed_run_pays_for_no_model_twice(project, monkeypatch, n_loads):
    with monkeypatch.context() as killed:
        first = count_loads(killed, limit=n_loads)
        with pytest.raises(KeyboardInterrupt):
            interpolate.main(Run())
    second = count_loads(monkeypatch)
    interpolate.main(Run())
    assert first + second == ["load_model", "load_candidate", "load_candidate"]
    assert not (project / ".work/interpolate/main/point").exists()


def test_other_trained_weights_are_measured_anew_and_the_base_is_not(project, monkeypatch):
    interpolate.main(Run())
    train(project, "full")
    loads = count_loads(monkeypatch)
    interpolate.main(Run())
    assert loads == ["load_candidate", "load_candidate"]


def test_a_run_of_the_comparison_uses_its_own_folders_and_the_bases_scores(project, monkeypatch):
    interpolate.main(Run())
    folder = project / "comparison/runs/sft-1"
    (project / "models/trained").rename(project / "trained")
    loads = count_loads(monkeypatch)
    run = Run(
        trained=project / "trained",
        candidate=folder / "candidate",
        interpolation=folder / "interpolation.json",
        method="sft",
        seed=1,
        layers=({"interpolate": {"alphas": [0.25, 1.0]}},),
    )
    interpolate.main(run)
    record = read_record(folder / "interpolation.json", Interpolation)
    assert [point.alpha for point in record.points] == [0.0, 0.25, 1.0]
    assert read_manifest(folder / "candidate").alpha == record.chosen
    assert loads == ["load_candidate"]  # only alpha 0.25 is new


def test_fewer_items_than_wanted_are_told_and_recorded(project, capsys):
    write_params(project, n_items=50)
    interpolate.main(Run())
    assert [(row.n_items, row.n_wanted) for row in found(project).suites] == [(10, 50), (10, 50)]
    assert "goal has only 10 items left to choose on, of 50 wanted" in capsys.readouterr().out


def test_a_suite_without_items_left_is_refused_unless_there_is_nothing_to_choose(project):
    asked = [f"kept {i} is" for i in range(20)]
    groups = [ResponseGroup(question_id=a, prompt=a, responses=(), degenerate=True) for a in asked]
    write_jsonl(project / "data/groups.jsonl", groups)
    with pytest.raises(ConfigError, match="suite kept has no items left to choose alpha on"):
        interpolate.main(Run())
    assert not (project / "models/candidate").exists()
    write_params(project, alphas=[1.0])
    interpolate.main(Run())
    assert (project / "models/candidate").is_dir()
