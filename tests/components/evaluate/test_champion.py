"""The champion beside a later model on a later test set: its answers, where they are kept, what stands in the way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from kfp import dsl

from tests.components.conftest import prepare_rows
from tests.conftest import reviews
from tuneline.artifacts import PreparedData, read_split
from tuneline.evaluate.evaluate import evaluate_step
from tuneline.evaluate.findings import Evaluation
from tuneline.predictions import Predictions, contaminated, load_training_keys
from tuneline.register.register import register_step
from tuneline.serve.model import Classifier

pytestmark = pytest.mark.medium

RULES = {"beats_baseline": False}


class Desk:
    """A registered model: evaluates and registers under its name, each in a step's run of its own."""

    def __init__(self, store: Any, folder: Path) -> None:
        self.store, self.folder, self.runs = store, folder, 0

    def evaluate(self, data: Path, model: Path) -> Path:
        """The folder of Evaluation."""
        self.runs += 1
        place = self.folder / f"run{self.runs}"
        place.mkdir()
        outputs: list[Any] = [
            kind(uri=str(place / name))
            for name, kind in (
                ("evaluation", dsl.Artifact), ("report", dsl.HTML), ("metrics", dsl.Metrics),
                ("confusion", dsl.ClassificationMetrics),
            )
        ]  # fmt: skip
        evaluate_step(dsl.Dataset(uri=str(data)), dsl.Model(uri=str(model)), *outputs, register_name="desk")
        return place / "evaluation"

    def register(self, evaluation: Path, model: Path) -> dict[str, Any]:
        """The tags of the version."""
        out = dsl.Artifact(uri=str(evaluation.parent / "version.json"))
        register_step(
            dsl.Artifact(uri=str(evaluation)), dsl.Model(uri=str(model)), out, register_name="desk",
            register_rules=RULES,
        )  # fmt: skip
        return self.store.get_model_version("desk", out.metadata["version"]).tags

    def weights(self) -> Path:
        """The file of the champion's weights in the store."""
        source = self.store.get_model_version_by_alias("desk", "champion").source
        (found,) = Path(urlsplit(source).path).rglob("model.safetensors")
        return found


@pytest.fixture
def desk(store, tmp_path, prepared, trained):
    """A registered model whose champion is `trained`, judged on the test split of `prepared`."""
    made = Desk(store, tmp_path)
    evaluation = made.evaluate(prepared, trained)
    assert not (evaluation / "champion").exists()
    assert Evaluation.load(evaluation).champion == {}
    made.register(evaluation, trained)
    return made


@pytest.fixture(scope="module")
def later(tiny_checkpoint, tmp_path_factory):
    """Other data of the same labels, and a model of it that was never trained."""
    from tuneline.train.train import load_network, save

    folder = tmp_path_factory.mktemp("later")
    data = prepare_rows(
        folder, tiny_checkpoint, train=reviews(60, 1000), validation=reviews(20, 2000), test=reviews(80, 3000)
    )
    manifest = PreparedData.load(data)
    save(load_network(str(tiny_checkpoint), manifest.labels), data, manifest, folder / "model")
    return data, folder / "model"


def test_a_model_judged_on_a_new_test_set_is_compared_with_the_champion_on_it(desk, later, trained):
    evaluation = desk.evaluate(*later)
    test = read_split(later[0], "test")
    wanted = Classifier(trained).predict_proba(test.column("text").to_pylist())
    mine, champion = Predictions.load(evaluation), Predictions.load(evaluation / "champion")
    assert mine.answers_of(champion).tolist() == wanted.argmax(1).tolist()
    assert champion.chance == pytest.approx(wanted[np.arange(80), test.column("label").to_numpy()], abs=1e-6)
    told = Evaluation.load(evaluation).champion
    right = (wanted.argmax(1) == test.column("label").to_numpy()).mean()
    assert (told["name"], told["version"], told["note"]) == ("desk", "1", "")
    assert told["compared"]["accuracy"][1][0] == pytest.approx(right)
    assert told["compared"]["accuracy"][0][0] == pytest.approx((mine.answers == mine.labels).mean())
    page = (evaluation / "report.html").read_text()
    assert "Worse than the champion desk/1, by" in page
    assert "</span>champion, desk/1</th>" in page
    tags = desk.register(evaluation, later[1])
    difference = 100 * (told["compared"]["accuracy"][0][0] - right)
    assert tags["tuneline.gate.not_worse"].startswith(f"refused: accuracy {difference:+.2f} points [")
    assert "against champion version 1" in tags["tuneline.gate.not_worse"]
    assert "not known" not in tags["tuneline.gate.not_worse"]


def test_a_champion_that_is_as_good_on_the_new_test_set_is_no_hindrance(desk, later, trained):
    tags = desk.register(desk.evaluate(later[0], trained), trained)
    assert tags["tuneline.gate.not_worse"].startswith("refused: accuracy +0.00 points [-")
    assert "rows would show it of an equal model" in tags["tuneline.gate.not_worse"]
    assert tags["tuneline.gate.slices"].startswith("passed: ")


def test_answers_made_once_are_stored_with_the_champion_and_not_made_again(desk, later, capsys):
    first = Predictions.load(desk.evaluate(*later) / "champion")
    assert "the champion desk/1 answers the test texts" in capsys.readouterr().out
    desk.weights().unlink()
    again = Predictions.load(desk.evaluate(*later) / "champion")
    assert "the champion" not in capsys.readouterr().out
    assert again.answers.tolist() == first.answers.tolist()
    assert again.facts == first.facts


def test_answers_of_its_own_evaluation_are_taken_where_the_test_set_is_the_same(desk, prepared, later, capsys):
    desk.weights().unlink()
    evaluation = desk.evaluate(prepared, later[1])
    assert "the champion" not in capsys.readouterr().out
    assert Evaluation.load(evaluation).champion["note"] == ""
    assert "against champion version 1" in desk.register(evaluation, later[1])["tuneline.gate.not_worse"]


def test_a_champion_that_was_trained_on_test_rows_is_not_compared_with(desk, prepared, tiny_checkpoint, later, capsys):
    seen = read_split(prepared, "train").column("text").to_pylist()[:3]
    rows = [(text, label) for text, label in reviews(240) if text in seen] + reviews(40, 3000)
    data = prepare_rows(
        desk.folder / "leaky", tiny_checkpoint, train=reviews(60, 1000), validation=reviews(20, 2000), test=rows
    )
    evaluation = desk.evaluate(data, later[1])
    told = "it has seen 3 of the 43 test rows in training"
    assert f"the champion desk/1 is not compared with: {told}" in capsys.readouterr().out
    assert contaminated(Predictions.load(evaluation).keys, load_training_keys(evaluation / "champion")) == 3
    assert f"Not compared with the champion desk/1: {told}." in (evaluation / "report.html").read_text()
    verdict = desk.register(evaluation, later[1])["tuneline.gate.not_worse"]
    assert verdict == (
        "refused: comparison refused: the champion (version 1) has seen 3 of the 43 test rows in training"
    )


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (Path.unlink, "desk/1: data/model: no model.safetensors"),
        (flipped, "desk/1: data/model/model.safetensors: has changed since it was registered"),
        (lambda path: shutil.rmtree(path.parents[2]), ""),
    ],
    ids=["deleted weights", "a flipped byte", "a deleted model"],
)
def test_a_champion_that_cannot_be_loaded_is_told_and_fails_no_run(desk, later, damage, told):
    damage(desk.weights())
    evaluation = desk.evaluate(*later)
    note = Evaluation.load(evaluation).champion["note"]
    assert note.startswith(told)
    assert 0 < len(note) <= 500
    verdict = desk.register(evaluation, later[1])["tuneline.gate.not_worse"]
    assert verdict.startswith("refused: comparison refused: the champion (version 1) has no predictions on this test")
    assert verdict.endswith(f": {' '.join(note.split())}")


def test_a_champion_of_other_labels_is_told(desk, tiny_checkpoint, tmp_path):
    from tuneline.train.train import load_network, save

    rows = [(text, f"{label}!") for text, label in reviews(60, 4000)]
    data = prepare_rows(tmp_path / "other", tiny_checkpoint, train=rows)
    manifest = PreparedData.load(data)
    save(load_network(str(tiny_checkpoint), manifest.labels), data, manifest, tmp_path / "renamed")
    evaluation = desk.evaluate(data, tmp_path / "renamed")
    told = "it knows 2 labels and the test set has 2, which are not the same: 'neg' is in one of them only"
    assert Evaluation.load(evaluation).champion == {"name": "desk", "version": "1", "note": told}
    assert desk.register(evaluation, tmp_path / "renamed")["tuneline.gate.not_worse"].endswith(told)


def test_a_champion_of_pairs_or_of_texts_is_not_asked_the_other(desk, tiny_checkpoint, tmp_path):
    from tests.components.conftest import model_config, write_csv
    from tuneline.config import DataConfig
    from tuneline.prepare.prepare import prepare
    from tuneline.train.train import load_network, save

    rows = [(text, f"the plot {number}", label) for number, (text, label) in enumerate(reviews(60, 4000))]
    table = write_csv(tmp_path / "pairs.csv", rows, ("text", "pair", "label"))
    prepare(DataConfig(train=str(table), pair_column="pair"), model_config(tiny_checkpoint), tmp_path / "pairs")
    manifest = PreparedData.load(tmp_path / "pairs")
    save(load_network(str(tiny_checkpoint), manifest.labels), tmp_path / "pairs", manifest, tmp_path / "of-pairs")
    evaluation = desk.evaluate(tmp_path / "pairs", tmp_path / "of-pairs")
    assert "the model answers single texts" in Evaluation.load(evaluation).champion["note"]


@pytest.mark.parametrize("damage", ["garbage", "a deleted run"])
def test_a_damaged_champion_that_came_after_the_evaluation_fails_no_run(desk, later, prepared, trained, damage):
    evaluation = desk.evaluate(*later)
    second = desk.evaluate(prepared, trained)
    desk.register(second, trained)
    desk.store.set_registered_model_alias("desk", "champion", "2")
    version = desk.store.get_model_version("desk", "2")
    run = desk.store.get_run(version.run_id)
    if damage == "garbage":
        (stored,) = Path(urlsplit(run.info.artifact_uri).path).glob("evaluation-*/predictions.npz")
        stored.write_bytes(b"garbage")
        told = "damaged"
    else:
        desk.store._tracking_client.store._hard_delete_run(version.run_id)  # as `mlflow gc` does
        told = "MLflow"
    verdict = desk.register(evaluation, later[1])["tuneline.gate.not_worse"]
    assert verdict.startswith("refused: comparison refused: the champion (version 2) has no predictions on this test")
    note = "it became champion after this model was evaluated, and what is stored of it cannot be read: "
    assert told in verdict.partition(note)[2]
    assert "npz" not in verdict  # a folder that is gone by then


def test_a_champion_that_came_after_the_evaluation_is_told(desk, later, prepared, trained):
    evaluation = desk.evaluate(*later)
    desk.register(desk.evaluate(prepared, trained), trained)
    desk.store.set_registered_model_alias("desk", "champion", "2")
    verdict = desk.register(evaluation, later[1])["tuneline.gate.not_worse"]
    assert verdict.endswith("no predictions on this test set: it became champion after this model was evaluated")
