import pytest
from releases import facts_of, fresh_client, make_candidate, make_verdict, project

from metagdpo.errors import StoreError
from metagdpo.training.tracking import PARAM_LENGTH, RunLog, flatten, gate_metrics, run_facts, sync_run


def history(client, run_id, name):
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))


def the_run(client, run_id):
    (run,) = client.search_runs([client.get_run(run_id).info.experiment_id])
    assert run.info.run_id == run_id
    return run


def test_a_run_holds_parameters_tags_datasets_and_metrics_and_ends_finished(tmp_path):
    client, facts = fresh_client(tmp_path), facts_of(make_candidate(tmp_path))
    with RunLog(client, facts) as log:
        log.metrics(1, {"loss": 2.0, "lr": 0.1})
        log.metrics(2, {"loss": 1.0, "lr": 0.1})
    run = the_run(client, log.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.objective.beta"] == "0.1"
    assert run.data.tags["metagdpo.run_key"] == facts.run_key
    assert run.data.tags["git.commit"] == facts.git_commit
    assert history(client, log.run_id, "loss") == [(1, 2.0), (2, 1.0)]
    groups = next(i for i in run.inputs.dataset_inputs if i.dataset.name == "data/groups.jsonl")
    sha256 = next(item.sha256 for item in facts.data if item.path == "data/groups.jsonl")
    tags = {tag.key: tag.value for tag in groups.tags}
    assert tags == {
        "mlflow.data.context": "training",
        "sha256": sha256,
        "git.commit": facts.git_commit,
        "dvc.md5": "0" * 32,
    }
    assert groups.dataset.digest == sha256.removeprefix("sha256:")[:36]


def test_the_embedded_store_keeps_artifacts_beside_its_database(tmp_path):
    client = fresh_client(tmp_path)
    log = RunLog(client, facts_of(make_candidate(tmp_path)))
    assert client.get_run(log.run_id).info.artifact_uri.startswith((tmp_path / "mlartifacts").as_uri())


def test_a_killed_training_goes_on_in_the_same_run_without_double_steps(tmp_path):
    """Kill -9 runs no handler: the run stays RUNNING until the rerun ends it."""
    client, facts = fresh_client(tmp_path), facts_of(make_candidate(tmp_path))
    killed = RunLog(client, facts, flush_every=1)
    for step in (1, 2, 3):
        killed.metrics(step, {"loss": 1 / step})
    assert the_run(client, killed.run_id).info.status == "RUNNING"
    with RunLog(client, facts, flush_every=1) as log:
        for step in (2, 3, 4):  # the last checkpoint was at step 1
            log.metrics(step, {"loss": 1 / step})
    assert log.run_id == killed.run_id
    assert history(client, log.run_id, "loss") == [(1, 1.0), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    assert the_run(client, log.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_training_that_breaks_is_not_shown_as_finished(tmp_path, error, status):
    client, facts = fresh_client(tmp_path), facts_of(make_candidate(tmp_path))
    with pytest.raises(error), RunLog(client, facts) as log:
        raise error
    assert the_run(client, log.run_id).info.status == status


def test_a_store_lost_during_training_is_told_once_and_made_up_for_later(tmp_path, monkeypatch, capsys):
    case = project(tmp_path, fresh_client(tmp_path))
    facts = facts_of(case.candidate)
    steps = [(step, {"loss": 1.0 / step}) for step in range(1, 6)]
    with RunLog(case.client, facts, flush_every=1) as log:
        log.metrics(*steps[0])
        with monkeypatch.context() as broken:
            broken.setattr(case.client, "log_batch", lambda *_, **__: (_ for _ in ()).throw(OSError("disk I/O error")))
            for step in steps[1:]:
                log.metrics(*step)
    assert capsys.readouterr().out.count("disk I/O error") == 1
    assert history(case.client, log.run_id, "loss") == [(1, 1.0)]
    assert sync_run(case.client, facts, steps) == log.run_id
    assert history(case.client, log.run_id, "loss") == [(step, 1.0 / step) for step in range(1, 6)]
    assert the_run(case.client, log.run_id).info.status == "FINISHED"


def test_a_run_is_restored_wholly_from_files_with_gate_metrics_and_report(tmp_path):
    candidate = make_candidate(tmp_path)
    verdict = make_verdict(tmp_path, candidate)
    report = tmp_path / "reports"
    (report / "figures").mkdir(parents=True)
    (report / "report.md").write_text("# Report")
    (report / "figures" / "retention.png").write_bytes(b"png")
    client = fresh_client(tmp_path / "new")
    run_id = sync_run(
        client, facts_of(candidate), [(1, {"loss": 2.0})], verdict=verdict, report=report, note="**PROMOTE**"
    )
    run = the_run(client, run_id)
    assert {name: run.data.metrics[name] for name in gate_metrics(verdict)} == gate_metrics(verdict)
    assert run.data.metrics["gate/drift/kl_per_token"] == verdict.drift.kl_per_token
    assert run.data.tags["mlflow.note.content"] == "**PROMOTE**"
    assert len(run.inputs.dataset_inputs) == 2
    stored = {entry.path for entry in client.list_artifacts(run_id, "report")}
    assert stored == {"report/report.md", "report/figures"}


def test_a_complete_run_is_not_written_again(tmp_path, monkeypatch):
    case = project(tmp_path, fresh_client(tmp_path))
    run_id = case.sync()
    for write in ("log_batch", "log_inputs", "create_run", "set_terminated", "log_artifacts"):
        monkeypatch.delattr(type(case.client), write)
    assert case.sync() == run_id


def test_a_store_that_refuses_at_the_start_stops_before_anything_is_paid(tmp_path):
    client = fresh_client(tmp_path)

    class ReadOnly:
        tracking_uri = client.tracking_uri

        def __getattr__(self, name):
            if name.startswith(("create", "log")):
                raise OSError("attempt to write a readonly database")
            return getattr(client, name)

    with pytest.raises(StoreError, match=r"readonly database(.|\n)*MLFLOW_TRACKING_URI"):
        RunLog(ReadOnly(), facts_of(make_candidate(tmp_path)))


def test_a_deleted_experiment_is_restored(tmp_path, capsys):
    case = project(tmp_path, fresh_client(tmp_path))
    experiment = case.client.get_run(case.sync()).info.experiment_id
    case.client.delete_experiment(experiment)
    case.sync()
    assert case.client.get_experiment(experiment).lifecycle_stage == "active"
    assert "is restored" in capsys.readouterr().out


def test_parameters_are_flattened_and_lists_become_json():
    nested = {"train": {"lr": 2e-6, "layers": ["q", "v"], "anchor": {}, "on": True, "none": None}}
    assert flatten(nested) == {
        "train.lr": "2e-06",
        "train.layers": '["q","v"]',
        "train.anchor": "{}",
        "train.on": "true",
        "train.none": "null",
    }


def test_two_long_values_that_differ_only_beyond_the_limit_still_differ():
    one, other = (flatten({"p": "x" * PARAM_LENGTH + end})["p"] for end in "ab")
    assert len(one) == len(other) == PARAM_LENGTH
    assert one != other


def test_characters_that_mlflow_refuses_in_names_are_replaced():
    assert flatten({"a b/c:d-e.f_g": 1, "x;y": 2}) == {"a b/c:d-e.f_g": "1", "x_y": "2"}


def test_more_parameters_and_metrics_than_one_request_holds_are_all_there(tmp_path):
    client = fresh_client(tmp_path)
    facts = facts_of(make_candidate(tmp_path)).model_copy(update={"params": {f"p{i}": i for i in range(150)}})
    run_id = sync_run(client, facts, [(step, {"loss": 0.5}) for step in range(1500)])
    assert len(the_run(client, run_id).data.params) == 150
    assert len(history(client, run_id, "loss")) == 1500


def test_a_run_keeps_the_commit_it_came_from(tmp_path):
    case = project(tmp_path, fresh_client(tmp_path))
    later = facts_of(case.candidate).model_copy(update={"git_commit": "d" * 40})
    run_id = case.sync()
    assert sync_run(case.client, later, [(4, {"loss": 0.1})], verdict=case.verdict) == run_id
    run = the_run(case.client, run_id)
    commits = {tag.value for i in run.inputs.dataset_inputs for tag in i.tags if tag.key == "git.commit"}
    assert {run.data.tags["git.commit"], *commits} == {"c" * 40}


def test_only_numbers_of_a_row_are_logged(tmp_path):
    client = fresh_client(tmp_path)
    row = {"loss": 1.5, "tokens": 7, "path": "packed", "exact": True, "nothing": None}
    run_id = sync_run(client, facts_of(make_candidate(tmp_path)), [(1, row)])
    assert the_run(client, run_id).data.metrics == {"loss": 1.5, "tokens": 7.0}


def test_a_runs_name_and_tags_come_from_its_parameters():
    params = {"base": {"model": "asset:tiny"}, "train": {"method": "full", "objective": {"kind": "sft"}}}
    facts = run_facts("e", "sha256:0123456789", params, {"a": "sha256:1"}, md5s={"a": "m"}, git_commit="c")
    assert facts.name == "sft (full) 01234567"
    assert facts.tags == {"metagdpo.method": "sft (full)", "base.model": "asset:tiny"}
    assert facts.data[0].dvc_md5 == "m"


def test_an_interpolated_candidate_has_a_run_of_its_own_that_names_its_training():
    params = {"base": {"model": "asset:tiny"}, "train": {"method": "full", "objective": {"kind": "sft"}}}
    trained, half, third = (
        run_facts("e", "sha256:0123456789", params, {}, md5s={}, git_commit="c", alpha=alpha)
        for alpha in (1.0, 0.5, 0.3)
    )
    assert trained.run_key == "sha256:0123456789"
    assert len({trained.run_key, half.run_key, third.run_key}) == 3
    assert half.name == "sft (full) 01234567 at 0.5"
    assert half.tags == {**trained.tags, "metagdpo.training": "sha256:0123456789"}
    assert half.params == {**params, "interpolate": {"alpha": 0.5}}
