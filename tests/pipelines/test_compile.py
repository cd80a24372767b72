"""tuneline compile: valid, complete and repeatable IR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tuneline.errors import InputError
from tuneline.recipe import load_recipe
from tuneline_pipelines.cli import app
from tuneline_pipelines.compile import check, compile_batch, compile_pipeline
from tuneline_pipelines.recipes import shipped
from tuneline_pipelines.resources import Profile


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    compile_pipeline(tmp_path / "pipeline.yaml", None)
    return tmp_path / "pipeline.yaml"


def test_two_compilations_give_the_same_bytes(compiled: Path, tmp_path: Path) -> None:
    compile_pipeline(tmp_path / "again.yaml", None)
    assert compiled.read_bytes() == (tmp_path / "again.yaml").read_bytes()


def test_nothing_is_installed_when_a_step_starts(compiled: Path) -> None:
    assert "pip install" not in compiled.read_text()


def test_a_recipe_s_values_become_defaults_and_a_readable_source_is_pinned(reviews_csv: Path, tmp_path: Path) -> None:
    recipe = load_recipe(shipped()["text"], [f"data.train={reviews_csv}", "train.epochs=7"])
    (note,) = compile_pipeline(tmp_path / "pipeline.yaml", recipe)
    assert "images are named by a tag" in note
    document = next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert parameters["train_epochs"]["defaultValue"] == 7
    assert parameters["data_train"]["defaultValue"] == str(reviews_csv)
    assert len(parameters["data_pin"]["defaultValue"]) == 64
    assert document["root"]["dag"]["tasks"]["prepare"]["cachingOptions"] == {"enableCache": True}


def test_data_that_only_the_cluster_sees_is_not_pinned_and_not_cached(tmp_path: Path) -> None:
    recipe = load_recipe(shipped()["text"], ["data.train=/mnt/of-the-cluster/train.csv"])
    note, _ = compile_pipeline(tmp_path / "pipeline.yaml", recipe)
    assert "/mnt/of-the-cluster/train.csv" in note
    document = next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))
    assert document["root"]["dag"]["tasks"]["prepare"]["cachingOptions"] == {}


def test_a_component_that_is_not_there_is_found(compiled: Path) -> None:
    compiled.write_text(compiled.read_text().replace("name: comp-train\n", "name: comp-lost\n"))
    with pytest.raises(InputError, match="task train refers to component 'comp-lost'"):
        check(compiled)


def test_an_executor_that_is_not_there_is_found(compiled: Path) -> None:
    compiled.write_text(compiled.read_text().replace("executorLabel: exec-train", "executorLabel: exec-lost"))
    with pytest.raises(InputError, match="refers to executor 'exec-lost'"):
        check(compiled)


def test_a_field_that_the_protos_do_not_know_is_found(compiled: Path) -> None:
    compiled.write_text(compiled.read_text().replace("  dag:", "  dagger:", 1))
    with pytest.raises(InputError, match="not a KFP pipeline"):
        check(compiled)


@pytest.mark.parametrize("override", ["model.max_length=9999", "data.train=sample:nope", "data.train=."])
def test_what_no_cluster_could_run_either_is_refused(tmp_path: Path, reviews_csv: Path, override: str) -> None:
    recipe = load_recipe(shipped()["text"], [f"data.train={reviews_csv}", override])
    with pytest.raises(InputError):
        compile_pipeline(tmp_path / "pipeline.yaml", recipe)
    assert not (tmp_path / "pipeline.yaml").exists()


def test_only_yaml_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown form '\.txt'"):
        compile_pipeline(tmp_path / "pipeline.txt", None)


def test_a_recipe_is_not_overwritten_by_its_pipeline_and_a_pipeline_is(tmp_path: Path) -> None:
    recipe, out = tmp_path / "topics.yaml", tmp_path / "out.yaml"
    recipe.write_text("# mine\ndata: {train: a.csv}\n")
    with pytest.raises(InputError, match=r"topics\.yaml: holds something other than a pipeline; name another file"):
        compile_pipeline(recipe, None)
    assert recipe.read_text() == "# mine\ndata: {train: a.csv}\n"
    out.touch()
    compile_pipeline(out, None)
    first = out.read_bytes()
    compile_pipeline(out, None)
    assert out.read_bytes() == first


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^--output: .*cannot be written: .*/file is a file; name another place"):
        compile_pipeline(tmp_path / "file" / "pipeline.yaml", None)
    compile_pipeline(tmp_path / "new" / "folder" / "pipeline.yaml", None)
    assert (tmp_path / "new" / "folder" / "pipeline.yaml").is_file()


@pytest.fixture
def batch(tmp_path: Path) -> Any:
    profile = Profile.model_validate({"env": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}, "labels": {"team": "nlp"}})
    compile_batch(tmp_path / "batch.yaml", profile)
    check(tmp_path / "batch.yaml")
    return list(yaml.safe_load_all((tmp_path / "batch.yaml").read_text()))


def test_batch_prediction_asks_for_a_model_and_files_only(batch: Any) -> None:
    parameters = batch[0]["root"]["inputDefinitions"]["parameters"]
    assert {name for name, facts in parameters.items() if not facts.get("isOptional")} == {"model", "files"}
    assert parameters["shards"]["defaultValue"] == 4
    assert all(facts["description"] for facts in parameters.values())


def test_shards_fan_out_and_all_of_them_are_merged(batch: Any) -> None:
    tasks = batch[0]["root"]["dag"]["tasks"]
    assert set(tasks) == {"plan", "for-loop-1", "merge"}
    assert tasks["for-loop-1"]["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--plan-Output"}
    assert tasks["merge"]["dependentTasks"] == ["for-loop-1", "plan"]
    parts = tasks["merge"]["inputs"]["artifacts"]["parts"]["taskOutputArtifact"]
    assert parts == {"outputArtifactKey": "pipelinechannel--predict-predictions", "producerTask": "for-loop-1"}


def test_what_reads_an_alias_is_never_cached_and_a_shard_may_be(batch: Any) -> None:
    tasks = batch[0]["root"]["dag"]["tasks"]
    assert tasks["plan"]["cachingOptions"] == tasks["merge"]["cachingOptions"] == {}
    (shard,) = batch[0]["components"]["comp-for-loop-1"]["dag"]["tasks"].values()
    assert shard["cachingOptions"] == {"enableCache": True}


def test_a_profile_reaches_the_pods_of_the_shards(batch: Any) -> None:
    for name, executor in batch[0]["deploymentSpec"]["executors"].items():
        assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in executor["container"]["env"], name
    pods = batch[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods["exec-predict"]["podMetadata"]["labels"] == {"team": "nlp"}


def test_the_command_compiles_either_pipeline(tmp_path: Path) -> None:
    out = tmp_path / "batch.yaml"
    done = CliRunner().invoke(app, ["compile", "--pipeline", "batch-predict", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert next(yaml.safe_load_all(out.read_text()))["pipelineInfo"]["name"] == "tuneline-batch-predict"
    refused = CliRunner().invoke(app, ["compile", "text", "--pipeline", "batch-predict", "-o", str(out)])
    assert refused.exit_code == 2
    assert "takes no recipe" in refused.output


def test_the_command_takes_its_profile_from_the_environment(tmp_path: Path) -> None:
    profile, out = tmp_path / "cluster.yaml", tmp_path / "out.yaml"
    profile.write_text("env: {MLFLOW_TRACKING_URI: http://mlflow.svc:5000}\n")
    told = CliRunner().invoke(app, ["compile", "-o", str(out)], env={"TUNELINE_PROFILE": str(profile)})
    assert told.exit_code == 0, told.output
    assert "http://mlflow.svc:5000" in out.read_text()
