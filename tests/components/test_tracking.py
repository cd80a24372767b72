"""Runs in a real MLflow store: parents, children, and how they end when a step does not."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest

from tuneline.artifacts import PreparedData
from tuneline.errors import InputError
from tuneline.provenance import environment, installed
from tuneline.stopping import SIGNALS, handled
from tuneline.tracking import (
    EXPERIMENT,
    KFP_RUN,
    PARENT,
    close_abandoned,
    close_pipeline_run,
    experiment_id,
    last_word,
    open_pipeline_run,
    recent_runs,
    step_run,
)

pytestmark = pytest.mark.medium

MANIFEST = PreparedData(
    labels=["neg", "pos"], rows={"train": 7, "validation": 1, "test": 2},
    sha256={"train": "a" * 64, "validation": "b" * 64, "test": "c" * 64, "all": "d" * 64},
    max_length=8, long_texts="head",
    truncated={"train": 0, "validation": 0, "test": 0}, model="pkg:x",
    sources={"train": "a.csv", "validation": "", "test": "t.csv"}, seed=0,
)  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("data: {train: a.csv}\n")
    return path


@pytest.fixture
def parent(store, recipe, monkeypatch):
    """An open pipeline run that steps find by the environment."""
    run_id, _ = open_pipeline_run("desk", None, {"train_epochs": 3}, recipe, "owner")
    monkeypatch.setenv(PARENT, run_id)
    return run_id


def test_a_step_is_a_child_of_the_pipelines_run(store, parent):
    with step_run("train", {"epochs": 3}) as run:
        assert store.get_run(run.run_id).info.status == "RUNNING"
    child, above = store.get_run(run.run_id), store.get_run(parent)
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert child.info.experiment_id == above.info.experiment_id
    assert (child.info.run_name, child.info.status, above.info.status) == ("train", "FINISHED", "RUNNING")


def test_a_step_records_parameters_tags_metrics_and_files(store, parent, recipe):
    with step_run("train", {"epochs": 3, "name": "a=b"}) as run:
        for step in (1, 2):
            run.metrics({"loss": 1 / step, "rate": 0.5}, step)
        run.tags({"note": 7})
        run.artifact(recipe, "configuration")
    data = store.get_run(run.run_id).data
    assert data.params == {"epochs": "3", "name": "a=b"}
    assert (data.tags["tuneline.step"], data.tags["note"]) == ("train", "7")
    assert [(point.step, point.value) for point in store.get_metric_history(run.run_id, "loss")] == [(1, 1.0), (2, 0.5)]
    assert data.metrics["rate"] == 0.5
    assert [file.path for file in store.list_artifacts(run.run_id, "configuration")] == ["configuration/recipe.yaml"]


def test_every_one_of_many_metrics_arrives(store, parent):
    with step_run("train", {}) as run:
        for step in range(450):
            run.metrics({"loss": float(step)}, step)
    assert [point.value for point in store.get_metric_history(run.run_id, "loss")] == [float(at) for at in range(450)]


def test_a_step_without_a_parent_stands_in_the_named_experiment(store, monkeypatch):
    monkeypatch.setenv(EXPERIMENT, "alone")
    with step_run("prepare", {}) as run:
        pass
    found = store.get_run(run.run_id)
    assert store.get_experiment(found.info.experiment_id).name == "alone"
    assert "mlflow.parentRunId" not in found.data.tags
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (InputError("data.train: a.csv: no such file"), "FAILED", "data.train: a.csv: no such file"),
        (InputError("label " + "x" * 20_000), "FAILED", "label xxx"),
        (ZeroDivisionError("secret detail"), "FAILED", "ZeroDivisionError"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
        (SystemExit(143), "KILLED", "SystemExit"),
    ],
    ids=["input", "long input", "error", "interrupt", "exit"],
)
def test_a_step_that_does_not_end_well_says_so_and_passes_the_error_on(store, parent, error, status, told):
    with pytest.raises(type(error)) as caught, step_run("train", {}) as run:
        raise error
    assert caught.value is error
    found = store.get_run(run.run_id)
    assert found.info.status == status
    assert found.data.tags["tuneline.error"].startswith(told)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_follows_while_a_run_is_ended_does_not_leave_it_running(store, parent, monkeypatch, number):
    with pytest.raises(BrokenPipeError), handled(stop), step_run("train", {}) as run:
        end = run.api.set_terminated

        def signalled(*arguments: str) -> None:
            signal.raise_signal(number)
            end(*arguments)

        monkeypatch.setattr(run.api, "set_terminated", signalled)
        raise BrokenPipeError
    assert store.get_run(run.run_id).info.status == "KILLED"


def test_a_signal_that_comes_while_a_step_that_ends_well_says_so_leaves_no_run_running(store, parent, monkeypatch):
    with pytest.raises(SystemExit), handled(stop), step_run("train", {}) as run:
        end = run.api.set_terminated

        def signalled(run_id: str, status: str) -> None:
            if status == "FINISHED":
                signal.raise_signal(signal.SIGTERM)
            end(run_id, status)

        monkeypatch.setattr(run.api, "set_terminated", signalled)
    assert store.get_run(run.run_id).info.status == "KILLED"


def stop(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def test_a_last_word_waits_for_no_server_for_minutes_and_patience_comes_back():
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

    before = MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()
    with suppress(ValueError), last_word():
        assert (MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()) == (5, 1)
        raise ValueError
    assert (MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()) == before
    assert before[0] > 60


def test_what_a_failed_step_measured_is_kept(store, parent):
    with pytest.raises(ZeroDivisionError), step_run("train", {}) as run:
        run.metrics({"loss": 0.5}, 1)
        raise ZeroDivisionError
    assert store.get_run(run.run_id).data.metrics == {"loss": 0.5}


@pytest.mark.parametrize("fails", [False, True])
def test_an_injected_run_is_joined_and_left_open(store, monkeypatch, fails):
    injected = store.create_run(experiment_id(store, "kfp")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with suppress(InputError), step_run("train", {"epochs": 3}) as run:
        run.metrics({"loss": 0.5})
        run.flush()
        if fails:
            raise InputError("bad")
    found = store.get_run(injected)
    assert run.run_id == injected
    assert found.info.status == "RUNNING"
    assert (found.data.params["epochs"], found.data.metrics["loss"]) == ("3", 0.5)


def test_a_parent_goes_before_an_injected_run(store, parent, monkeypatch):
    injected = store.create_run(experiment_id(store, "kfp")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with step_run("train", {}) as run:
        pass
    assert run.run_id != injected
    assert store.get_run(run.run_id).data.tags["mlflow.parentRunId"] == parent


def test_a_pipelines_run_holds_the_recipe_and_is_ours_to_end(store, recipe):
    run_id, owned = open_pipeline_run("desk", None, {"train_epochs": 3}, recipe, "pid 7")
    found = store.get_run(run_id)
    assert owned
    assert store.get_experiment(found.info.experiment_id).name == "desk"
    assert found.data.params == {"train_epochs": "3"}
    assert (found.data.tags["tuneline.pipeline"], found.data.tags["tuneline.owner"]) == ("finetune", "pid 7")
    kept = {Path(file.path).name for file in store.list_artifacts(run_id, "configuration")}
    assert kept == {"recipe.yaml", "requirements.txt"}


def test_a_new_experiment_keeps_its_artifacts_where_it_is_told(store, recipe, tmp_path):
    run_id, _ = open_pipeline_run("desk", str(tmp_path / "kept"), {}, recipe, None)
    assert (tmp_path / "kept" / run_id / "artifacts" / "configuration" / "recipe.yaml").is_file()


def test_a_pipelines_run_that_is_injected_is_joined_and_not_ours_to_end(store, recipe, monkeypatch):
    injected = store.create_run(experiment_id(store, "kfp")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    assert open_pipeline_run("desk", None, {"train_epochs": 3}, recipe, None) == (injected, False)
    close_pipeline_run(injected, "FINISHED", owned=False, metrics={"accuracy": 0.9})
    found = store.get_run(injected)
    assert found.info.status == "RUNNING"
    assert found.data.metrics == {"accuracy": 0.9}


def test_a_deleted_experiment_is_told_as_bad_input(store):
    store.delete_experiment(experiment_id(store, "desk"))
    with pytest.raises(InputError, match=r"register\.name: the MLflow experiment 'desk' is deleted"):
        experiment_id(store, "desk")


@pytest.mark.parametrize(("status", "child"), [("FINISHED", "FAILED"), ("FAILED", "FAILED"), ("KILLED", "KILLED")])
def test_closing_a_pipelines_run_ends_the_children_left_running(store, parent, status, child):
    with step_run("prepare", {}) as done:
        pass
    experiment = store.get_run(parent).info.experiment_id
    left = store.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    stranger = store.create_run(experiment).info.run_id
    close_pipeline_run(parent, status, owned=True, metrics={"accuracy": 0.75})
    ends = [store.get_run(run_id).info.status for run_id in (parent, left, done.run_id, stranger)]
    assert ends == [status, child, "FINISHED", "RUNNING"]
    assert store.get_run(parent).data.metrics == {"accuracy": 0.75}


def test_runs_whose_owner_is_gone_are_closed_and_no_others(store, recipe):
    runs = {owner: open_pipeline_run("desk", None, {}, recipe, owner)[0] for owner in ("dead", "alive", None)}
    experiment = store.get_run(runs["dead"]).info.experiment_id
    child = store.create_run(experiment, tags={"mlflow.parentRunId": runs["dead"]}).info.run_id
    foreign = store.create_run(experiment, tags={"tuneline.owner": "dead"}).info.run_id
    close_abandoned(lambda owner: owner == "alive")
    ends = {owner: store.get_run(run_id).info.status for owner, run_id in runs.items()}
    assert ends == {"dead": "KILLED", "alive": "RUNNING", None: "RUNNING"}
    assert [store.get_run(run_id).info.status for run_id in (child, foreign)] == ["KILLED", "RUNNING"]


def test_abandoned_runs_of_a_new_store_are_none(store):
    close_abandoned(lambda owner: False)
    assert recent_runs(10, None) == []


def test_data_sets_are_logged_with_their_whole_hash_on_the_step_and_on_the_pipelines_run(store, parent):
    with step_run("prepare", {}) as run:
        run.dataset(MANIFEST)
    for run_id in (run.run_id, parent):
        inputs = store.get_run(run_id).inputs.dataset_inputs
        found = {item.dataset.name: json.loads(item.dataset.profile) for item in inputs}
        assert found == {
            "train": {"num_rows": 7, "sha256": "a" * 64},
            "validation": {"num_rows": 1, "sha256": "b" * 64},
            "test": {"num_rows": 2, "sha256": "c" * 64},
        }
        sources = {item.dataset.name: json.loads(item.dataset.source)["uri"] for item in inputs}
        assert sources == {"train": "a.csv", "validation": "a.csv", "test": "t.csv"}
        contexts = {tag.key: tag.value for item in inputs if item.dataset.name == "test" for tag in item.tags}
        assert contexts == {"mlflow.data.context": "test"}


def test_steps_that_read_the_same_data_leave_one_input_a_split_on_the_pipelines_run(store, parent):
    for step in ("prepare", "train"):
        with step_run(step, {}) as run:
            run.dataset(MANIFEST)
    assert len(store.get_run(parent).inputs.dataset_inputs) == 3


def test_recent_runs_come_newest_first_and_can_be_asked_by_name(store, recipe):
    for name in ("desk", "films", "desk"):
        run_id, _ = open_pipeline_run(name, None, {"register_name": name}, recipe, None)
        close_pipeline_run(run_id, "FINISHED", owned=True, metrics={"accuracy": 0.5})
    with step_run("alone", {}):
        pass
    assert [run["experiment"] for run in recent_runs(10, None)] == ["desk", "films", "desk"]
    assert [run["experiment"] for run in recent_runs(10, "films")] == ["films"]
    assert recent_runs(10, "nothing") == []
    newest = recent_runs(1, "desk")
    assert [run["run_id"] for run in newest] == [run_id]
    assert (newest[0]["status"], newest[0]["metrics"]) == ("FINISHED", {"accuracy": 0.5})
    assert newest[0]["params"] == {"register_name": "desk"}


@pytest.fixture
def in_kfp(store, monkeypatch):
    """A pod of a KFP run; gives a function that finds the run's parents."""
    monkeypatch.setenv(KFP_RUN, "0f-7")
    monkeypatch.setenv(EXPERIMENT, "cluster")

    def parents():
        experiment = store.get_experiment_by_name("cluster").experiment_id
        return store.search_runs([experiment], "tags.`tuneline.kfp_run_id` = '0f-7'")

    return parents


def test_the_steps_of_a_kfp_run_meet_in_one_parent_which_the_last_one_ends(store, in_kfp):
    steps = {}
    for step, params, metrics in (
        ("prepare", {"data_seed": 3, "model_name": "pkg:x"}, {"train_rows": 7.0}),
        (
            "train",
            {"train_seed": 4, "model_name": "pkg:x"},
            {"loss": 0.4, "train_seconds": 9.0, "validation_loss": 0.5},
        ),
        ("evaluate", {}, {"accuracy": 0.9, "baseline_accuracy": 0.8}),
        ("register", {"register_name": "desk"}, {}),
    ):
        with step_run(step, params) as run:
            run.metrics(metrics)
            (parent,) = in_kfp()
            assert parent.info.status == "RUNNING"
        steps[step] = run
    (parent,) = in_kfp()
    assert parent.info.status == "FINISHED"
    assert {run.parent for run in steps.values()} == {parent.info.run_id}
    assert parent.data.metrics == {
        "accuracy": 0.9, "baseline_accuracy": 0.8, "train_seconds": 9.0, "validation_loss": 0.5,
    }  # fmt: skip
    assert parent.data.params == {
        "data_seed": "3", "model_name": "pkg:x", "train_seed": "4", "register_name": "desk",
    }  # fmt: skip
    assert (parent.data.tags["tuneline.data_seed"], parent.data.tags["tuneline.train_seed"]) == ("3", "4")
    (listed,) = recent_runs(10, "cluster")
    assert (listed["run_id"], listed["metrics"]["accuracy"]) == (parent.info.run_id, 0.9)


@pytest.mark.parametrize(("error", "status"), [(InputError("bad"), "FAILED"), (SystemExit(143), "KILLED")])
def test_a_step_that_fails_in_kfp_ends_the_parent_and_a_retry_opens_it_again(store, in_kfp, error, status):
    with step_run("prepare", {}):
        pass
    with pytest.raises(type(error)), step_run("train", {"train_seed": 4}):
        raise error
    assert [parent.info.status for parent in in_kfp()] == [status]
    with step_run("train", {"train_seed": 4}):
        assert [parent.info.status for parent in in_kfp()] == ["RUNNING"]
    assert [parent.info.status for parent in in_kfp()] == ["RUNNING"]


def test_a_retry_in_kfp_ends_the_attempt_whose_pod_was_killed_outright(store, in_kfp):
    with step_run("prepare", {}) as first:
        pass
    experiment = store.get_run(first.run_id).info.experiment_id
    tags = {"mlflow.parentRunId": first.parent}
    lost = store.create_run(experiment, run_name="train", tags=tags).info.run_id
    beside = store.create_run(experiment, run_name="evaluate", tags=tags).info.run_id
    with step_run("train", {}):
        assert [store.get_run(run_id).info.status for run_id in (lost, beside)] == ["FAILED", "RUNNING"]


def test_other_kfp_runs_have_parents_of_their_own_and_other_work_has_none(store, in_kfp, monkeypatch):
    with step_run("prepare", {}) as one:
        pass
    with step_run("label", {}) as other:
        pass
    monkeypatch.setenv(KFP_RUN, "0f-8")
    with step_run("prepare", {}) as two:
        pass
    assert other.parent is None
    assert len({one.parent, two.parent, None}) == 3


def test_a_run_that_kfps_plugin_injects_goes_before_kfps_id(store, in_kfp, monkeypatch):
    injected = store.create_run(experiment_id(store, "cluster")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with step_run("register", {}) as run:
        pass
    assert run.run_id == injected
    assert in_kfp() == []


def test_a_server_that_is_away_for_the_metrics_only_fails_the_step_at_its_end(store, parent, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    worked = []
    log_batch = MlflowClient.log_batch

    def refuse(self, run_id, metrics=(), **more):
        if metrics:
            raise MlflowException("API request to x failed with exception: Connection refused")
        return log_batch(self, run_id, metrics, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    with pytest.raises(MlflowException), step_run("train", {}) as run:
        for step in range(400):
            run.metrics({"loss": 0.5}, step)
        worked.append(True)
    assert worked
    found = store.get_run(run.run_id)
    assert found.info.status == "FAILED"
    assert "not to be reached" in found.data.tags["tuneline.error"]


def test_the_environment_tells_versions_commit_and_program(monkeypatch):
    monkeypatch.setenv("TUNELINE_COMMIT", "abc123")
    tags = environment()
    assert tags["tuneline.python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert {"tuneline.version", "tuneline.version.mlflow-skinny", "tuneline.version.tokenizers"} <= set(tags)
    assert tags["mlflow.source.git.commit"] == "abc123"


def test_what_is_installed_is_listed_by_name_and_version():
    found = installed()
    assert {f"{name}=={version(name)}" for name in ("pytest", "PyYAML", "mlflow-skinny")} <= set(found)
    assert found == sorted(set(found), key=str.lower)


def test_outside_of_a_repository_no_commit_is_claimed(tmp_path, monkeypatch):
    monkeypatch.delenv("TUNELINE_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert "mlflow.source.git.commit" not in environment()
