"""Trials: what they train is what the pipeline trains, they never see the test split, and they die alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from tests.components.conftest import write_csv
from tests.conftest import reviews
from tuneline.artifacts import PreparedData, read_split
from tuneline.errors import InputError
from tuneline.search.data import first_rows, folds, prepared, share
from tuneline.search.engine import Engine, configured
from tuneline.search.job import Interrupted, OutOfTime, Pruned, TrialLost
from tuneline.stopping import SIGNALS
from tuneline_pipelines.local import stopped_by_signals
from tuneline_pipelines.searching import closing

pytestmark = pytest.mark.medium


def trials_below(process: psutil.Process) -> list[psutil.Process]:
    """The processes that train: children of the fork server, which is a child of this one."""
    return [
        child for server in process.children() for child in server.children()
        if "forkserver" in " ".join(child.cmdline())
    ]  # fmt: skip


def test_a_trial_trains_exactly_what_the_pipeline_trains(engine, recipe, data, tmp_path, monkeypatch):
    from tuneline.prepare.prepare import prepare
    from tuneline.train.train import train

    result = engine.trial(recipe, {"train.epochs": 2, "train.precision": "fp32"}, data, "trial 0")
    own = configured(recipe, {"train.epochs": 2, "train.precision": "fp32"})
    prepare(own.data, own.model, tmp_path / "whole")
    monkeypatch.delenv("TUNELINE_CHECKPOINTS", raising=False)
    numbers = train(tmp_path / "whole", own.model, own.train, tmp_path / "model")
    assert result.numbers["validation_loss"] == pytest.approx(numbers["validation_loss"], abs=1e-6)
    assert result.value("accuracy")[0] == pytest.approx(numbers["validation_accuracy"])
    value, low, high = result.value("macro_f1")
    assert low <= value <= high
    assert result.rows == PreparedData.load(tmp_path / "whole").rows["train"]
    assert result.seconds > 0
    assert result.peak_memory_mib > 50
    answers = np.load(result.answers)
    assert answers["probabilities"].shape == (len(answers["labels"]), 2)


def test_what_trials_get_holds_no_test_split(recipe, data):
    held = {path.name for path in data.iterdir()}
    assert held == {"manifest.json", "train.arrow", "validation.arrow", "tokenizer"}
    assert PreparedData.load(data).rows["test"] > 0
    with pytest.raises(FileNotFoundError):
        read_split(data, "test")


def test_prepared_data_is_reused_and_made_anew_when_a_source_changes(recipe, data, tmp_path):
    made = (data / "manifest.json").stat().st_mtime_ns
    assert prepared(recipe.data, recipe.model, tmp_path / "search" / "data", "") == data
    assert (data / "manifest.json").stat().st_mtime_ns == made
    with Path(recipe.data.train).open("a") as stream:
        stream.write("a good film of its own,pos\n")
    assert prepared(recipe.data, recipe.model, tmp_path / "search" / "data", "") != data


def test_mlflow_has_a_child_run_with_its_params_epochs_and_intervals(engine, recipe, data):
    result = engine.trial(recipe, {"train.epochs": 2, "balance": "focal"}, data, "trial 7")
    run = engine.run.api.get_run(result.run_id)
    assert run.data.tags["mlflow.parentRunId"] == engine.run.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train_epochs": "2", "balance": "focal", "train_seed": "0"}
    assert len(engine.run.api.get_metric_history(result.run_id, "validation_loss")) == 2
    low, value, high = (run.data.metrics[f"validation_macro_f1{end}"] for end in ("_low", "", "_high"))
    assert low <= value <= high
    assert value == result.value("macro_f1")[0]
    curve = engine.run.api.get_metric_history(result.run_id, "validation_macro_f1")
    assert [point.step for point in curve] == [1, 2, 2], "the end of a curve begins it, or is hidden by an epoch"
    assert {"seconds", "train_seconds", "peak_memory_mib"} <= set(run.data.metrics)


def test_the_same_trial_is_not_trained_twice(engine, recipe, data):
    first = engine.trial(recipe, {"train.epochs": 1}, data, "trial 0")
    again = engine.trial(recipe, {"train.epochs": 1}, data, "trial 1")
    other = engine.trial(recipe, {"train.epochs": 1, "train.seed": 1}, data, "trial 2")
    assert (first.reused, again.reused, other.reused) == (False, True, False)
    assert again.metrics == first.metrics
    assert other.numbers["validation_loss"] != first.numbers["validation_loss"]


def test_a_trial_of_other_weights_under_the_same_name_is_trained_anew(engine, overwritten, tmp_path):
    recipe, overwrite = overwritten
    data = prepared(recipe.data, recipe.model, tmp_path / "data", "")
    first = engine.trial(recipe, {"train.epochs": 1}, data, "trial 0")
    overwrite()
    assert prepared(recipe.data, recipe.model, tmp_path / "data", "") == data
    assert engine.trial(recipe, {"train.epochs": 1}, data, "trial 1").reused, "a command reads weights once"
    next_command = Engine(engine.folder, engine.run)
    other = next_command.trial(recipe, {"train.epochs": 1}, data, "trial 2")
    assert not other.reused
    assert other.numbers["validation_loss"] != first.numbers["validation_loss"]


def test_a_trial_ends_when_it_is_told_to(engine, recipe, data):
    heard: list[int] = []

    def on_epoch(epoch, numbers):
        heard.append(epoch)
        return epoch < 2

    with pytest.raises(Pruned):
        engine.trial(recipe, {"train.epochs": 9}, data, "trial 0", on_epoch=on_epoch)
    assert heard == [1, 2]


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED"), (ValueError("no"), "FAILED")]
)
def test_a_child_run_tells_whether_it_was_stopped_or_failed(engine: Engine, error, status):
    with pytest.raises(type(error)), engine.run.child("frozen", {}, {}) as child:
        raise error
    assert engine.run.api.get_run(child.run_id).info.status == status


@pytest.mark.parametrize(("fails", "status"), [(False, "KILLED"), (True, "FAILED")], ids=["good end", "bad end"])
def test_a_signal_while_a_search_s_end_is_written_leaves_no_run_running(engine: Engine, monkeypatch, fails, status):
    end, told = MlflowClient.set_terminated, []

    def signalled(*arguments: str) -> None:
        told.append(arguments[-1])
        if len(told) == 1:
            signal.raise_signal(signal.SIGINT)
        end(*arguments)

    monkeypatch.setattr(MlflowClient, "set_terminated", signalled)
    error = ValueError if fails else KeyboardInterrupt
    with pytest.raises(error), stopped_by_signals(), closing(engine.run, engine):
        if fails:
            raise ValueError
    assert engine.run.api.get_run(engine.run.run_id).info.status == status


def test_signals_that_all_processes_of_a_command_get_leave_its_trials_to_it(engine: Engine, recipe, data):
    epochs = []

    def signalled(epoch, numbers):
        epochs.append(epoch)
        for trial in trials_below(psutil.Process()):
            for number in SIGNALS:
                trial.send_signal(number)
            if epoch == 1:
                trial.parent().terminate()
        return True

    result = engine.trial(recipe, {"train.epochs": 3}, data, "trial 0", on_epoch=signalled)
    assert epochs == [1, 2, 3]
    assert engine.run.api.get_run(result.run_id).info.status == "FINISHED"


def test_a_killed_trial_is_lost_alone(engine: Engine, recipe, data):
    pid: list[int] = []

    def kill(epoch, numbers):
        (trial,) = trials_below(psutil.Process())
        pid.append(trial.pid)
        os.kill(trial.pid, signal.SIGKILL)
        return True

    with pytest.raises(TrialLost, match=r"killed or ended early \(status"):
        engine.trial(recipe, {"train.epochs": 3}, data, "trial 0", on_epoch=kill)
    (child,) = engine.run.api.search_runs([engine.run.experiment], "tags.`tuneline.step` = 'trial'")
    assert child.info.status == "FAILED"
    assert engine.trial(recipe, {"train.epochs": 1}, data, "trial 1").value("accuracy")[0] > 0.4


def test_bad_settings_are_told_and_do_not_end_the_search(engine, recipe, data):
    with pytest.raises(InputError, match=r"train\.sampling|train\.class_weights"):
        engine.trial(recipe, {"train.class_weights": True, "train.sampling": "balanced"}, data, "trial 0")
    with pytest.raises(InputError, match="no checkpoint there"):
        engine.trial(recipe, {"model.name": "/nowhere"}, data, "trial 1")
    assert engine.trial(recipe, {"train.epochs": 1}, data, "trial 2").rows


@pytest.mark.parametrize("ended", ["deadline", "stop"])
def test_a_trial_that_may_not_go_on_leaves_no_process(engine, recipe, data, ended):
    many = {"train.epochs": 1000}
    started = time.monotonic()
    if ended == "deadline":
        with pytest.raises(OutOfTime):
            engine.trial(recipe, many, data, "trial 0", deadline=started + 1)
    else:
        threading.Timer(1, engine.stop.set).start()
        with pytest.raises(Interrupted):
            engine.trial(recipe, many, data, "trial 0")
    assert time.monotonic() - started < 60
    assert trials_below(psutil.Process()) == []


def test_folds_hold_every_row_once_with_equal_texts_together_and_hashes_of_their_own(data, tmp_path):
    whole = sum(PreparedData.load(data).rows[name] for name in ("train", "validation"))
    made = folds(data, 4, tmp_path / "folds")
    held = [read_split(fold, "validation").column("text").to_pylist() for fold in made]
    assert sum(map(len, held)) == whole
    assert len(set().union(*held)) == len({text for part in held for text in part})
    assert max(map(len, held)) - min(map(len, held)) <= 2
    for fold, texts in zip(made, held, strict=True):
        assert not set(texts) & set(read_split(fold, "train").column("text").to_pylist())
    assert len({PreparedData.load(fold).sha256["all"] for fold in [data, *made]}) == 5
    assert folds(data, 4, tmp_path / "folds") == made


def test_folds_are_made_of_data_whose_validation_source_has_no_slices(recipe, tmp_path):
    sliced = [(text, label, "mail") for text, label in reviews(120)]
    train = write_csv(tmp_path / "sliced.csv", sliced, ("text", "label", "channel"))
    validation = write_csv(tmp_path / "validation.csv", reviews(40, 120))
    source = recipe.data.model_copy(
        update={"train": str(train), "validation": str(validation), "slice_columns": ["channel"]}
    )
    made = folds(prepared(source, recipe.model, tmp_path / "data", ""), 3, tmp_path / "folds")
    assert sum(PreparedData.load(fold).rows["validation"] for fold in made) > 40


def test_embedded_rows_hold_every_class_however_rare():
    table = pa.table({"text": [f"text {row}" for row in range(500)], "label": [0] * 300 + [1] * 198 + [2, 3]})
    rows = first_rows(table, 40)
    assert len(set(rows)) == len(rows) == 40
    assert set(table.column("label").to_numpy()[rows]) == {0, 1, 2, 3}
    assert set(first_rows(table, 20)) < set(rows)


def test_a_share_of_the_rows_stands_in_every_larger_share_and_keeps_the_classes(data, tmp_path):
    texts = {}
    for part in (0.2, 0.5, 1.0):
        table = read_split(share(data, part, tmp_path / "shares"), "train")
        texts[part] = set(table.column("text").to_pylist())
        assert abs(np.mean(table.column("label").to_numpy()) - 0.5) < 0.1
    assert texts[0.2] < texts[0.5] < texts[1.0]
    assert len(texts[0.2]) == pytest.approx(0.2 * len(texts[1.0]), abs=2)
