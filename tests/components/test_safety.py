"""What is planted in a registered model is refused in one line, and nothing of it runs, whichever way it is loaded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tuneline.artifacts import read_json, sha256_file, write_json
from tuneline.errors import InputError
from tuneline.registry import add_version, copy, download, find
from tuneline.safety import MANIFEST, check_folder, write_manifest
from tuneline.serve.files import load
from tuneline.serve.model import Classifier
from tuneline.tracking import client, step_run
from tuneline_pipelines.cli import app

pytestmark = pytest.mark.medium

TEXTS = ["a good film", "a bad plot"]


class Trap:
    """Unpickling it makes a folder: the proof that planted code ran."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


@pytest.fixture
def stored(store, trained) -> Path:
    """The model folder of desk/1, where the artifact store keeps it."""
    with step_run("register", {}) as run:
        add_version(run, "desk", trained, {"tuneline.gate": "passed"})
    store.set_registered_model_alias("desk", "champion", "1")
    return Path(store.get_model_version("desk", "1").source) / "data" / "model"


def pickle_as_weights(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))


def pickle_beside_the_model(model: Path) -> None:
    (model.parents[1] / "python_model.pkl").write_bytes(pickle.dumps(Trap()))


def python_beside_the_model(model: Path) -> None:
    (model.parents[1] / "code").mkdir()
    (model.parents[1] / "code" / "evil.py").write_text("import os; os.mkdir('sprung')\n")


def pickle_in_a_folder(model: Path) -> None:
    (model / "more").mkdir()
    (model / "more" / "model.pkl").write_bytes(pickle.dumps(Trap()))


def code_in_auto_map(model: Path) -> None:
    (model / "evil.py").write_text("import os; os.mkdir('sprung')\n")
    config = read_json(model / "config.json")
    write_json(model / "config.json", config | {"auto_map": {"AutoModelForSequenceClassification": "evil.Model"}})


def flipped_byte(model: Path) -> None:
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)


def flipped_byte_in_the_answer(model: Path) -> None:
    decision = read_json(model / "tuneline.json")
    write_json(model / "tuneline.json", decision | {"labels": decision["labels"][::-1]})


def manifest_that_fits_other_weights(model: Path) -> None:
    flipped_byte(model)
    write_manifest(model)


def path_in_the_manifest(model: Path) -> None:
    listed = read_json(model / MANIFEST)
    write_json(model / MANIFEST, listed | {"../../../secret.json": listed["config.json"]})


def path_in_mlmodel(model: Path) -> None:
    other = Path(shutil.copytree(model, model.parents[2] / "elsewhere"))
    mlmodel = model.parents[1] / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace("data: data/model", f"data: ../{other.name}"))


def other_loader_in_mlmodel(model: Path) -> None:
    mlmodel = model.parents[1] / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace("loader_module: tuneline.serve.model", "loader_module: evil"))


def link_to_the_same_file(model: Path) -> None:
    outside = model.parents[2] / "weights.safetensors"
    (model / "model.safetensors").rename(outside)
    (model / "model.safetensors").symlink_to(outside)


def link_to_a_folder(model: Path) -> None:
    outside = model.parents[2] / "outside"
    model.rename(outside)
    model.symlink_to(outside)


def missing_manifest(model: Path) -> None:
    (model / MANIFEST).unlink()


def missing_file(model: Path) -> None:
    (model / "tokenizer_config.json").unlink(missing_ok=True)
    (model / "tokenizer.json").unlink()


ATTACKS: dict[Callable[[Path], None], str] = {
    pickle_as_weights: "pytorch_model.bin does not belong in a model folder",
    pickle_beside_the_model: "python_model.pkl does not belong beside a model",
    python_beside_the_model: "code does not belong beside a model",
    pickle_in_a_folder: "more does not belong in a model folder",
    code_in_auto_map: "evil.py does not belong in a model folder",
    flipped_byte: "model.safetensors: has changed since it was registered",
    flipped_byte_in_the_answer: "tuneline.json: has changed since it was registered",
    manifest_that_fits_other_weights: "files.json: is not the one that was registered",
    path_in_the_manifest: "files.json: is not the one that was registered",
    path_in_mlmodel: "the model is in data/model",
    other_loader_in_mlmodel: "names code other than tuneline.serve.model",
    link_to_the_same_file: "model.safetensors: is a symbolic link",
    link_to_a_folder: "data/model: is a symbolic link",
    missing_manifest: "no files.json",
    missing_file: "no tokenizer.json",
}
UNSEEN_BY_MLFLOW = (manifest_that_fits_other_weights, other_loader_in_mlmodel, path_in_mlmodel)
"""MLflow hands over a folder, without the version whose tag tells; and it has read MLmodel before us."""


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_version_that_was_tampered_with_is_refused_by_name_and_nothing_of_it_runs(stored, attack, tmp_path):
    attack(stored)
    with pytest.raises(InputError, match=ATTACKS[attack]) as caught:
        load(find("desk@champion"))
    assert str(caught.value).startswith("desk/1: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack not in UNSEEN_BY_MLFLOW])
def test_what_was_tampered_with_is_refused_where_mlflow_loads_it(stored, attack, tmp_path):
    import mlflow.pyfunc

    attack(stored)
    told = "is not the name of a model's file" if attack is path_in_the_manifest else ATTACKS[attack]
    with pytest.raises(InputError, match=told):
        mlflow.pyfunc.load_model("models:/desk@champion")
    assert not (tmp_path / "sprung").exists()


def python_in_auto_map(model: Path) -> None:
    """By somebody who may write to the registry too: manifest and tag are those of the changed files."""
    config = read_json(model / "config.json")
    write_json(model / "config.json", config | {"auto_map": {"AutoModelForSequenceClassification": "evil.Model"}})
    listed = read_json(model / MANIFEST)
    listed["config.json"]["sha256"] = sha256_file(model / "config.json")
    write_json(model / MANIFEST, listed)
    client().set_model_version_tag("desk", "1", "tuneline.manifest_sha256", sha256_file(model / MANIFEST))


PLANTED = {
    pickle_as_weights: ATTACKS[pickle_as_weights],
    python_in_auto_map: "config.json: auto_map names Python code to run; not loaded",
    flipped_byte: ATTACKS[flipped_byte],
    path_in_mlmodel: ATTACKS[path_in_mlmodel],
    link_to_the_same_file: ATTACKS[link_to_the_same_file],
}


@pytest.mark.parametrize("attack", PLANTED)
def test_the_commands_refuse_what_is_planted_in_one_line(stored, store, attack, tmp_path):
    file = tmp_path / "new.csv"
    file.write_text("text\na good film\n")
    store.delete_registered_model_alias("desk", "champion")
    attack(stored)
    for command in (["predict", "desk/1", str(file), "-o", str(tmp_path / "out.csv")], ["promote", "desk/1"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2, (command, done.output)
        line = done.stderr.splitlines()[-1]
        assert line.startswith("error: desk/1: ")
        assert PLANTED[attack] in line
        assert "Traceback" not in done.output
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "out.csv").exists()
    assert store.get_registered_model("desk").aliases == {}


def test_a_version_that_nobody_touched_is_loaded(stored):
    assert load(find("desk/1")).predict_proba(TEXTS).shape == (2, 2)


def test_a_copy_in_another_model_is_checked_as_its_source_is(stored):
    made = copy(find("desk/1"), "prod")
    assert load(made).predict_proba(TEXTS).shape == (2, 2)
    flipped_byte(stored)
    with pytest.raises(InputError, match=r"^prod/1: data/model/model\.safetensors: has changed"):
        load(made)


def test_a_version_without_the_manifests_hash_is_not_loaded(store, stored, tmp_path):
    store.delete_model_version_tag("desk", "1", "tuneline.manifest_sha256")
    with pytest.raises(InputError, match=r"^desk/1: not registered by tuneline"):
        download(find("desk/1"), tmp_path / "got")


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


@pytest.mark.parametrize(
    "planted",
    [
        {"auto_map": {"AutoConfig": "evil.Config"}},
        {"nested": {"deep": [{"auto_map": {"AutoConfig": "evil.Config"}}]}},
        {"attn_implementation": "someone/kernel"},
        {"trust_remote_code": True},
    ],
)
def test_a_configuration_that_names_code_is_refused_before_anything_is_loaded(folder, planted):
    write_json(folder / "config.json", read_json(folder / "config.json") | planted)
    with pytest.raises(InputError, match=r"config\.json: \w+ .*; not loaded"):
        check_folder(folder)


@pytest.mark.parametrize("named", [None, [], ["BertModel"], "BertForSequenceClassification", ["A", "B"]])
def test_an_architecture_that_is_no_classifier_is_refused(folder, named):
    write_json(folder / "config.json", read_json(folder / "config.json") | {"architectures": named})
    with pytest.raises(InputError, match="architectures"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("kind", "named"), [("bert", "EvilForSequenceClassification"), ("evil", "BertForSequenceClassification")]
)
def test_a_classifier_that_transformers_does_not_have_built_in_is_refused(folder, kind, named):
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"architectures": [named], "model_type": kind})
    with pytest.raises(InputError, match="no classifier of texts that is built in"):
        Classifier(folder)


def test_a_label_may_be_called_as_it_likes(folder):
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"label2id": {"auto_map": 0, "trust_remote_code": 1}})
    check_folder(folder)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000])
def test_a_configuration_that_is_no_object_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: not a JSON object; not loaded"):
        check_folder(folder)


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_read(folder):
    (folder / "vocab.txt").unlink(missing_ok=True)
    os.mkfifo(folder / "vocab.txt")
    with pytest.raises(InputError, match=r"vocab\.txt: is a special file"):
        check_folder(folder)


@pytest.mark.parametrize(("gone", "more", "told"), [
    ("vocab.txt", None, "vocab.txt is missing"),
    (None, "merges.txt", "merges.txt is not in files.json"),
])  # fmt: skip
def test_a_file_of_the_list_that_is_gone_and_one_that_is_not_on_it_are_refused(folder, gone, more, told):
    (folder / "vocab.txt").write_text("word")
    manifest = write_manifest(folder)
    if gone:
        (folder / gone).unlink()
    if more:
        (folder / more).touch()
    with pytest.raises(InputError, match=f"{told}.*; not loaded"):
        check_folder(folder, manifest)


def test_the_manifest_lists_every_file_and_is_the_same_for_the_same_files(folder, trained, tmp_path):
    again = Path(shutil.copytree(trained, tmp_path / "again"))
    assert write_manifest(folder) == write_manifest(again) == write_manifest(folder)
    assert {name: file["sha256"] for name, file in json.loads((folder / MANIFEST).read_text()).items()} == {
        path.name: sha256_file(path) for path in trained.iterdir()
    }
