"""Registering in a real MLflow registry: versions, aliases, tags, and what the stored model is made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from tests.components.register.conftest import predictions
from tuneline.artifacts import Decision, read_json, sha256_file, write_json
from tuneline.config import RegisterConfig, Rules
from tuneline.errors import InputError, ServiceError
from tuneline.register.register import RegisteredVersion, register, register_step
from tuneline.registry import download, find
from tuneline.serve.model import Classifier
from tuneline.tracking import PARENT, open_pipeline_run, step_run

pytestmark = pytest.mark.medium

METRICS = {"accuracy": 0.9, "macro_f1": 0.8, "log_loss": 0.3, "baseline_accuracy": 0.85, "baseline_macro_f1": 0.7}
BEATEN = "0.9000 against the baseline's 0.8500 (right alone in 100 and 50 of 1000 rows, exact McNemar p = 2.7e-05)"
STRICT = RegisterConfig(name="desk", rules=Rules(min_accuracy=0.95))
DESK = RegisterConfig(name="desk")


@pytest.fixture
def evaluation(tmp_path):
    """A folder with the metrics of an evaluation."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    write_json(folder / "metrics.json", {"metrics": METRICS, "speed": {"size_mb": 0.5}, "labels": ["neg", "pos"]})
    predictions(1000, range(100), range(50, 200)).save(folder)
    return folder


@pytest.fixture
def submit(store, evaluation, trained, tmp_path):
    """Registers the trained model from a step run of its own."""

    def run(settings: RegisterConfig = DESK, model: Path = trained) -> RegisteredVersion:
        with step_run("register", {}) as step:
            return register(evaluation, model, settings, tmp_path / "version.json", step)

    return run


def aliases(store: Any, name: str = "desk") -> dict[str, str]:
    return {alias: str(version) for alias, version in store.get_registered_model(name).aliases.items()}


def test_the_first_version_is_challenger_and_champion(store, submit, tmp_path):
    result = submit()
    assert (result.name, result.version, result.aliases) == ("desk", "1", ["challenger", "champion"])
    assert aliases(store) == {"challenger": "1", "champion": "1"}
    assert read_json(tmp_path / "version.json") == {
        "name": "desk", "version": "1", "aliases": ["challenger", "champion"],
        "verdicts": [
            {"rule": "beats_baseline", "passed": True, "evidence": BEATEN},
            {"rule": "not_worse", "passed": True, "evidence": "no champion to compare with"},
            {"rule": "slices", "passed": True, "evidence": "no champion to compare with"},
        ],
    }  # fmt: skip


def test_the_second_version_is_challenger_only(store, submit):
    submit()
    result = submit()
    assert (result.version, result.aliases) == ("2", ["challenger"])
    assert aliases(store) == {"challenger": "2", "champion": "1"}


def test_a_refused_version_is_registered_with_its_evidence_and_without_an_alias(store, submit, trained, capsys):
    result = submit(STRICT)
    assert (result.version, result.aliases) == ("1", [])
    assert aliases(store) == {}
    tags = store.get_model_version("desk", "1").tags
    decision = Decision.load(trained)
    assert tags["tuneline.gate"] == "refused"
    assert tags["tuneline.gate.min_accuracy"] == "refused: accuracy 0.9000, needs 0.95"
    assert tags["tuneline.gate.beats_baseline"] == f"passed: {BEATEN}"
    assert (tags["tuneline.metric.accuracy"], tags["tuneline.metric.log_loss"]) == ("0.900000", "0.300000")
    assert (tags["tuneline.data_sha256"], tags["tuneline.base_model"]) == (decision.data_sha256, decision.base_model)
    told = capsys.readouterr().out
    assert "[register] desk version 1 (no alias: accuracy 0.9000, needs 0.95)" in told


def test_a_refused_version_moves_no_alias_of_others(store, submit):
    submit()
    submit(STRICT)
    assert aliases(store) == {"challenger": "1", "champion": "1"}


def test_a_version_that_passes_after_a_refused_one_becomes_champion(store, submit):
    submit(STRICT)
    assert submit().aliases == ["challenger", "champion"]
    assert store.get_model_version("desk", "2").tags["tuneline.gate"] == "passed"


def test_a_champion_that_a_person_chose_is_left_in_place(store, submit):
    submit()
    submit()
    store.set_registered_model_alias("desk", "champion", "2")
    submit()
    assert aliases(store) == {"challenger": "3", "champion": "2"}


def test_models_of_other_names_are_counted_apart(store, submit):
    submit()
    assert submit(RegisterConfig(name="films")).version == "1"
    assert aliases(store, "films") == {"challenger": "1", "champion": "1"}


def test_registering_again_from_the_same_run_gives_the_same_version(store, evaluation, trained, tmp_path):
    with step_run("register", {}) as step:
        first = register(evaluation, trained, DESK, tmp_path / "version.json", step)
        again = register(evaluation, trained, DESK, tmp_path / "version.json", step)
    assert first == again
    assert len(store.search_model_versions("name = 'desk'")) == 1


def test_a_retried_step_of_a_pipeline_gives_the_same_version(store, submit, tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: a.csv}\n")
    for wanted in ("1", "2"):
        parent, _ = open_pipeline_run("desk", None, {}, recipe, None)
        monkeypatch.setenv(PARENT, parent)
        assert [submit().version, submit().version] == [wanted, wanted]
        assert store.get_model_version("desk", wanted).run_id == parent
    assert len(store.search_model_versions("name = 'desk'")) == 2


@pytest.mark.parametrize("first", [STRICT, DESK], ids=["refused first", "passed first"])
def test_a_retried_step_with_another_verdict_leaves_its_tags_and_aliases(store, submit, tmp_path, monkeypatch, first):
    # as where the champion was moved between the attempts of a pod
    submit()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: a.csv}\n")
    monkeypatch.setenv(PARENT, open_pipeline_run("desk", None, {}, recipe, None)[0])
    again = DESK if first is STRICT else STRICT
    assert [submit(first).version, submit(again).version] == ["2", "2"]
    tags = store.get_model_version("desk", "2").tags
    passed = again is DESK
    assert tags["tuneline.gate"] == ("passed" if passed else "refused")
    assert ("tuneline.gate.min_accuracy" in tags) == (not passed)
    assert "tuneline.gate.not_worse" in tags
    assert aliases(store) == {"challenger": "2" if passed else "1", "champion": "1"}


def test_a_refusal_on_a_retry_leaves_no_challenger_where_no_other_version_passed(store, submit, tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: a.csv}\n")
    monkeypatch.setenv(PARENT, open_pipeline_run("desk", None, {}, recipe, None)[0])
    submit()
    assert submit(STRICT).aliases == ["champion"]  # which people move
    assert aliases(store) == {"champion": "1"}


def test_of_two_steps_that_pass_at_once_the_later_version_is_challenger_whoever_writes_last(store, submit, monkeypatch):
    from mlflow import MlflowClient

    point, late = MlflowClient.set_registered_model_alias, iter([True])

    def overtaken(self, name, alias, version):
        if next(late, False):  # between the reading and the writing of this step another registers and points
            submit()
        point(self, name, alias, version)

    submit()
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", overtaken)
    assert submit().aliases == []
    assert aliases(store) == {"challenger": "3", "champion": "1"}


def test_a_version_that_was_made_twice_because_an_answer_was_lost_is_kept_once(store, submit, monkeypatch):
    from mlflow import MlflowClient

    create = MlflowClient.create_model_version

    def twice(*arguments, **more):
        create(*arguments, **more)
        return create(*arguments, **more)

    monkeypatch.setattr(MlflowClient, "create_model_version", twice)
    assert submit().version == "1"
    assert [int(found.version) for found in store.search_model_versions("name = 'desk'")] == [1]


@pytest.mark.parametrize("lost", ["missing", "short"])
def test_a_model_whose_files_did_not_all_arrive_is_no_version(store, submit, monkeypatch, lost):
    from mlflow import MlflowClient

    log_artifacts = MlflowClient.log_artifacts

    def lossy(self, run_id, folder, place):
        weights = next(Path(folder).rglob("model.safetensors"))
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-1])
        if lost == "missing":
            weights.unlink()
        log_artifacts(self, run_id, folder, place)
        weights.write_bytes(whole)

    monkeypatch.setattr(MlflowClient, "log_artifacts", lossy)
    with pytest.raises(ServiceError, match=r"model\.safetensors has \d+ bytes, and its artifact store holds"):
        submit()
    assert store.search_registered_models() == []
    monkeypatch.setattr(MlflowClient, "log_artifacts", log_artifacts)
    assert submit().version == "1"


def test_the_stored_model_is_data_only(store, submit, trained):
    submit()
    source = Path(store.get_model_version("desk", "1").source)
    files = {str(path.relative_to(source)): path for path in source.rglob("*") if path.is_file()}
    data = {name: path for name, path in files.items() if name.startswith("data/")}
    assert {Path(name).name for name in data} == {path.name for path in trained.iterdir()} | {"files.json"}
    listed = read_json(next(path for name, path in data.items() if name.endswith("/files.json")))
    assert {name: file["sha256"] for name, file in listed.items()} == {
        path.name: sha256_file(path) for path in trained.iterdir()
    }
    assert {name for name in files if not name.startswith("data/")} <= {
        "MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt",
    }  # fmt: skip
    assert "loader_module: tuneline.serve.model" in files["MLmodel"].read_text()


@pytest.mark.parametrize("reference", ["desk@champion", "desk@challenger", "desk/1"])
def test_a_registered_version_is_found_and_its_model_folder_fetched(submit, trained, tmp_path, reference):
    submit()
    version = find(reference)
    assert (version.name, str(version.version)) == ("desk", "1")
    folder = download(version, tmp_path / "fetched")
    assert Classifier(folder).decision == Decision.load(trained)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("desk@nobody", "no version has the alias nobody; the latest: 1; name one as desk/1"),
        ("desk/7", "no version 7; the latest: 1"),
        ("desk/x", "no version x; the latest: 1"),
        ("other@champion", "not in the registry; registered models: desk"),
        ("other/1", "not in the registry; registered models: desk"),
    ],
)
def test_a_version_that_is_not_there_is_told_with_what_is(submit, reference, told):
    submit()
    with pytest.raises(InputError) as caught:
        find(reference)
    assert str(caught.value) == f"{reference}: {told}"


def test_a_model_that_the_gate_refused_is_told_to_have_no_champion_and_how_to_make_one(submit):
    submit(RegisterConfig(name="desk", rules=Rules(min_accuracy=1.0)))
    with pytest.raises(InputError, match=r"no version has the alias champion; .* tuneline promote desk/1$"):
        find("desk@champion")


@pytest.mark.parametrize("reference", ["desk", "desk@", "@champion", "desk/", ""])
def test_what_names_no_version_is_told_how_to_name_one(store, reference):
    with pytest.raises(InputError, match="not a model; write MODEL@alias or MODEL/VERSION"):
        find(reference)


def test_a_version_of_another_program_is_not_taken_for_a_model_folder(store, tmp_path):
    source = tmp_path / "foreign"
    source.mkdir()
    (source / "MLmodel").write_text(json.dumps({"flavors": {}}))
    store.create_registered_model("foreign")
    store.create_model_version("foreign", str(source))
    with pytest.raises(InputError, match=r"^foreign/1: not registered by tuneline"):
        download(find("foreign/1"), tmp_path / "fetched")


def test_the_step_shows_and_records_the_version(store, evaluation, trained, tmp_path):
    out = dsl.Artifact(uri=str(tmp_path / "version.json"))
    register_step(
        dsl.Artifact(uri=str(evaluation)), dsl.Model(uri=str(trained)), out, register_name="desk",
        register_rules={"beats_baseline": True, "min_accuracy": 0.5},
    )  # fmt: skip
    assert out.metadata == {"name": "desk", "version": "1", "aliases": ["challenger", "champion"]}
    version = store.get_model_version("desk", "1")
    run = store.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    stored = {file.path for file in store.list_artifacts(run.info.run_id)}
    assert stored == {Path(version.source).name, version.tags["tuneline.evaluation"], "version.json"}


def test_the_step_refuses_rules_that_are_none(store, evaluation, trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        register_step(
            dsl.Artifact(uri=str(evaluation)), dsl.Model(uri=str(trained)), dsl.Artifact(uri=str(tmp_path / "v.json")),
            register_name="desk", register_rules={"min_acuracy": 0.5},
        )  # fmt: skip
    assert caught.value.code == 2
    assert "tuneline: error: register.rules.min_acuracy: unknown key; did you mean min_accuracy?" in (
        capsys.readouterr().out
    )
    assert store.search_registered_models() == []


def test_a_model_with_other_weights_is_a_version_of_its_own(store, submit, trained, tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: a.csv}\n")
    monkeypatch.setenv(PARENT, open_pipeline_run("desk", None, {}, recipe, None)[0])
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert [submit().version, submit(model=other).version, submit().version] == ["1", "2", "1"]
