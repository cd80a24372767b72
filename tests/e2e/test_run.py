"""tuneline run on a person's own file, from labelled text to a champion, and what can be done with it then."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest

from tests.conftest import free_port, reviews
from tests.e2e.conftest import Project, in_process

pytestmark = pytest.mark.medium

FILE = "python3 'reviews'.csv"  # KFP's runner rewrites the word python3, and hands what it runs to a shell


def settings(checkpoint: Path, *more: str) -> list[str]:
    """A recipe for the reviews that a CPU trains in a second."""
    return ["run", "text", f"data.train={FILE}", f"model.name={checkpoint}", "model.max_length=32",
            "train.epochs=8", "train.learning_rate=0.01", "register.name=reviews", *more]  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    with (project.folder / FILE).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *reviews(400)])
    return project


@pytest.fixture(scope="module")
def result(shared: Project, tiny_checkpoint: Path) -> dict[str, Any]:
    return shared.succeed(*settings(tiny_checkpoint, "register.rules.beats_baseline=false"))


def test_the_json_tells_what_scripts_rely_on(result: dict[str, Any]) -> None:
    assert result["status"] == "succeeded"
    assert result["experiment"] == "reviews"
    assert {"accuracy", "macro_f1", "baseline_accuracy", "train_examples_per_second"} <= set(result["metrics"])
    assert result["metrics"]["accuracy"] > 0.9
    assert result["model"] == {"name": "reviews", "version": "1", "aliases": ["challenger", "champion"]}
    assert len(result["data"]["sha256"]) == 64
    assert sum(result["data"]["rows"].values()) == 400
    assert {"prepare", "train", "evaluate", "register", "total", "not_training"} <= set(result["seconds"])


def test_mlflow_holds_a_finished_parent_and_a_child_a_step(shared: Project, result: dict[str, Any]) -> None:
    store = shared.store
    parent = store.get_run(result["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.params["train_learning_rate"] == "0.01"
    assert parent.data.metrics["accuracy"] == pytest.approx(result["metrics"]["accuracy"])
    assert {given.dataset.name for given in parent.inputs.dataset_inputs} == {"train", "validation", "test"}
    assert {file.path for file in store.list_artifacts(result["run_id"], "configuration")} == {
        "configuration/recipe.yaml", "configuration/requirements.txt",
    }  # fmt: skip
    assert parent.data.tags["tuneline.train_seed"] == "0"
    query = f"tags.`mlflow.parentRunId` = '{result['run_id']}'"
    children = {run.info.run_name: run for run in store.search_runs([parent.info.experiment_id], query)}
    assert {name: run.info.status for name, run in children.items()} == dict.fromkeys(
        ("prepare", "train", "evaluate", "register"), "FINISHED"
    )
    train = children["train"].info.run_id
    losses = store.get_metric_history(train, "loss")
    assert len(losses) == 8 * -(-result["data"]["rows"]["train"] // 16)
    assert {"learning_rate", "examples_per_second", "tokens_per_second", "validation_loss"} <= set(
        children["train"].data.metrics
    )
    stored = {file.path for file in store.list_artifacts(children["evaluate"].info.run_id)}
    assert {"report.html", "confusion_matrix.png", "metrics.json", "predictions.parquet"} <= stored
    assert children["train"].data.tags["tuneline.version.torch"]


@pytest.mark.slow
def test_a_version_is_made_again_bit_for_bit_and_nothing_is_registered(shared: Project, result: dict[str, Any]) -> None:
    del result
    before = [version.version for version in shared.store.search_model_versions("name='reviews'")]
    found = json.loads(shared.tuneline("reproduce", "reviews/1", "--json").stdout)
    assert (found["model"], found["version"], found["status"]) == ("reviews", "1", "identical")
    assert found["weights"]["found"] == found["weights"]["registered"]
    assert (found["answers"]["flipped"], found["answers"]["largest_difference"]) == (0, 0.0)
    assert found["environment"] == {}
    assert [version.version for version in shared.store.search_model_versions("name='reviews'")] == before


@pytest.mark.slow
def test_another_seed_is_found_to_give_other_weights(shared: Project, result: dict[str, Any]) -> None:
    del result
    done = shared.tuneline("reproduce", "reviews@champion", "train.seed=1")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("reviews version 1: other weights")


def test_other_data_are_refused_before_a_training(shared: Project, result: dict[str, Any], tmp_path: Path) -> None:
    del result
    changed = tmp_path / "changed.csv"
    changed.write_text((shared.folder / FILE).read_text(encoding="utf-8").replace("good", "fine"), encoding="utf-8")
    done = shared.tuneline("reproduce", "reviews/1", f"data.train={changed}")
    assert done.returncode == 2
    assert "reviews/1: made from data of SHA-256" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("train ")]


def test_predictions_by_alias_agree_with_the_evaluation(
    shared: Project, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc
    import pandas as pd

    evaluated = pq.read_table(Path(result["evaluation"]) / "predictions.parquet").to_pydict()
    texts = [text for text, _ in reviews(400)]
    held_out = [texts[row] for row in evaluated["row"]]
    pd.DataFrame({"text": held_out}).to_csv(shared.folder / "held_out.csv", index=False)
    done = shared.tuneline("predict", "reviews@champion", "held_out.csv", "-o", "labelled.csv")
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(shared.folder / "labelled.csv")
    assert written["text"].tolist() == held_out
    probabilities = pd.DataFrame(evaluated["probabilities"], columns=["p(neg)", "p(pos)"])
    assert (written[["p(neg)", "p(pos)"]] - probabilities).abs().to_numpy().max() < 1e-5
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared.folder / '.tuneline' / 'mlflow.db'}")
    loaded = mlflow.pyfunc.load_model("models:/reviews@champion").predict(held_out)
    assert (loaded[["p(neg)", "p(pos)"]] - probabilities).abs().to_numpy().max() < 1e-5
    assert loaded["label"].tolist() == written["label"].tolist()


def test_predictions_without_a_file_go_to_stdout_and_are_safe_in_a_spreadsheet(
    shared: Project, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    del result
    (shared.folder / "new.jsonl").write_text(json.dumps({"text": "=2+3 good film"}) + "\n")
    done = in_process(shared, monkeypatch, "predict", "reviews/1", "new.jsonl")
    assert done.exit_code == 0, done.stderr
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert row["text"] == "'=2+3 good film"
    assert float(row["p(neg)"]) + float(row["p(pos)"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_the_service_answers_over_http_as_the_file_was_labelled(shared: Project, result: dict[str, Any]) -> None:
    del result
    texts = [text for text, _ in reviews(20, start=900)]
    (shared.folder / "some.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = shared.tuneline("predict", "reviews@champion", "some.jsonl", "-o", "some.parquet")
    assert done.returncode == 0, done.stderr
    port = free_port()
    service = shared.start("serve", "reviews@champion", "--port", str(port))
    try:
        assert service.stdout and f"reviews/1 answers at http://127.0.0.1:{port}" in service.stdout.readline()
        asked = Request(
            f"http://127.0.0.1:{port}/predict",
            json.dumps({"texts": texts}).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(asked, timeout=60) as answer:
            found = json.load(answer)["predictions"]
    finally:
        service.terminate()
        service.communicate(timeout=60)
    assert service.returncode == 0
    written = pq.read_table(shared.folder / "some.parquet").to_pylist()
    assert [row["label"] for row in found] == [row["label"] for row in written]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in written], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["reviews@production", "new.csv"], "reviews@production: no version has the alias production; the latest: 1"),
        (["reviews", "new.csv"], "write MODEL@alias or MODEL/VERSION"),
        (["reviews@champion", "none.csv"], "none.csv: no such file"),
        (["reviews@champion", "new.csv", "--column", "body"], "no column 'body'"),
        (["reviews@champion", "new.csv", "-o", "out.xlsx"], "unknown form '.xlsx'"),
        (["reviews@champion", "new.csv", "-o", "new.csv"], "--output: new.csv is the input"),
    ],
)
def test_a_prediction_that_cannot_be_made_is_one_line(
    shared: Project, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    del result
    (shared.folder / "new.csv").write_text("text\ngood film\n")
    done = in_process(shared, monkeypatch, "predict", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_second_run_reuses_prepared_data_and_a_refused_model_gets_no_alias(
    shared: Project, result: dict[str, Any], tiny_checkpoint: Path
) -> None:
    second = shared.succeed(
        *settings(tiny_checkpoint, "register.rules.min_accuracy=1.0", "train.seed=1", "train.epochs=1")
    )
    assert second["seconds"]["prepare"] == 0.0
    assert second["data"] == result["data"]
    assert second["model"] == {"name": "reviews", "version": "2", "aliases": []}
    assert not all(verdict["passed"] for verdict in second["gate"])
    aliases = shared.store.get_registered_model("reviews").aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {"challenger": "1", "champion": "1"}
    table = shared.tuneline("runs", "reviews").stdout
    assert result["run_id"][:8] in table
    assert second["run_id"][:8] in table
    listed = json.loads(shared.tuneline("runs", "--json").stdout)
    assert [run["run_id"] for run in listed] == [second["run_id"], result["run_id"]]


@pytest.mark.slow
def test_a_run_that_is_injected_by_the_environment_is_joined_and_left_open(
    project: Project, shared: Project, tiny_checkpoint: Path
) -> None:
    shutil.copy(shared.folder / FILE, project.folder)
    place = (project.folder / "artifacts").as_uri()
    injected = project.store.create_run(project.store.create_experiment("of-the-cluster", place)).info.run_id
    more = {"MLFLOW_RUN_ID": injected}
    done = project.tuneline(*settings(tiny_checkpoint, "train.epochs=1"), "--json", **more)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run_id"] == injected
    assert project.statuses() == {"pipeline": "RUNNING"} | dict.fromkeys(
        ("prepare", "train", "evaluate", "register"), "FINISHED"
    )


def test_doctor_tells_what_is_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    done = in_process(project, monkeypatch, "doctor")
    assert done.exit_code == 0
    assert "transformers" in done.stdout
    assert "free disk" in done.stdout
