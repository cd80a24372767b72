"""What was evaluated is what predicts: thresholds, costs and abstention reach every place that gives an answer."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from kfp import dsl
from typer.testing import CliRunner

from tests.components.conftest import QUICK, model_config, write_csv
from tuneline.artifacts import Decision, read_json, read_split, write_json
from tuneline.config import DecisionConfig, RegisterConfig, Rules
from tuneline.errors import InputError
from tuneline.evaluate.evaluate import evaluate, evaluate_step
from tuneline.evaluate.findings import Evaluation
from tuneline.predictions import NONE, Predictions
from tuneline.register.register import register
from tuneline.serve import batch
from tuneline.serve.model import Classifier
from tuneline.tracking import step_run

pytestmark = pytest.mark.medium

KINDS: dict[str, dict[str, Any]] = {
    "thresholds": {"thresholds": {"neg": 0.01, "pos": 0.99}},
    "costs": {"costs": {"neg": {"pos": 100}, "pos": {"neg": 0.01}}},
    "a label for what is unsure": {"abstain_below": "median", "abstain_label": "neg"},
    "no answer": {"abstain_below": "median"},
}
RULES = Rules(beats_baseline=False)


@pytest.fixture(scope="module")
def unsure(prepared, tiny_checkpoint, tmp_path_factory) -> Path:
    """A model that has learned little, so that a decision matters; to be read only."""
    from tuneline.train.train import train

    out = tmp_path_factory.mktemp("unsure") / "model"
    train(prepared, model_config(tiny_checkpoint), QUICK.model_copy(update={"epochs": 2}), out)
    return out


def decided(model: Path, out: Path, **changes: Any) -> Path:
    """The model with another decision."""
    shutil.copytree(model, out)
    write_json(out / "tuneline.json", read_json(out / "tuneline.json") | changes)
    return out


@pytest.fixture(scope="module")
def median(prepared, unsure) -> float:
    """The confidence that half of the test texts fall short of."""
    confidence = Classifier(unsure).predict_proba(read_split(prepared, "test").column("text").to_pylist()).max(1)
    return float(np.sort(confidence)[len(confidence) // 2 : len(confidence) // 2 + 2].mean())


def changes(kind: str, median: float) -> dict[str, Any]:
    """What the decision of this kind changes."""
    return {name: median if value == "median" else value for name, value in KINDS[kind].items()}


def names(folder: Path, labels: list[str]) -> list[str]:
    """What predictions.parquet says was answered."""
    found = pq.read_table(folder / "predictions.parquet").column("predicted").to_pylist()
    return [labels[index] if index != NONE else "" for index in found]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_command_pyfunc_and_shards_answer_alike(store, prepared, unsure, median, tmp_path, kind):
    import mlflow.pyfunc

    from tuneline_pipelines.cli import app

    model, test = decided(unsure, tmp_path / "model", **changes(kind, median)), read_split(prepared, "test")
    texts, folder = test.column("text").to_pylist(), tmp_path / "evaluation"
    result = evaluate(prepared, model, folder)
    told = names(folder, result.labels)
    plain = [result.labels[index] for index in Classifier(model).predict_proba(texts).argmax(1)]
    assert told != plain
    assert ("" in told) == (kind == "no answer")

    with step_run("register", {}) as run:
        register(folder, model, RegisterConfig(name="desk", rules=RULES), tmp_path / "version.json", run)
    frame = mlflow.pyfunc.load_model("models:/desk@champion").predict(texts)
    assert frame["label"].tolist() == told
    chances = frame[["p(neg)", "p(pos)"]].to_numpy()
    wanted = [
        max(row) if label == "" else row[["neg", "pos"].index(label)] for label, row in zip(told, chances, strict=True)
    ]
    assert frame["score"].tolist() == pytest.approx(wanted)

    file, out = write_csv(tmp_path / "new.csv", [(text,) for text in texts], ("text",)), tmp_path / "told.csv"
    done = CliRunner().invoke(app, ["predict", "desk@champion", str(file), "-o", str(out)])
    assert done.exit_code == 0, done.output
    with out.open(newline="", encoding="utf-8") as stream:
        assert [row["label"] for row in csv.DictReader(stream)] == told

    parts = []
    for number, shard in enumerate(batch.plan("desk@champion", str(file), ["text"], 3)):
        parts.append(tmp_path / f"part{number}")
        batch.predict_shard(shard, ["text"], parts[-1])
    counts = batch.merge(parts, len(texts), tmp_path / "all.jsonl")
    assert counts == {label: told.count(label) for label in set(told)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_an_evaluation_is_about_what_was_answered(prepared, unsure, median, tmp_path, kind):
    model = decided(unsure, tmp_path / "model", **changes(kind, median))
    result = evaluate(prepared, model, tmp_path / "out")
    stored = Predictions.load(tmp_path / "out")
    right = stored.answers == stored.labels
    assert result.metrics["accuracy"] == pytest.approx(right.mean())
    assert np.trace(result.confusion) == right.sum()
    assert result.against_baseline["accuracy"][0][0] == pytest.approx(right.mean())
    assert sum(row["n"] * row["recall"] for row in result.classes) == pytest.approx(right.sum())
    plain = Classifier(model).predict_proba(read_split(prepared, "test").column("text").to_pylist()).argmax(1)
    assert result.decision["plain"]["accuracy"] == pytest.approx((plain == stored.labels).mean())
    assert result.decision["plain"]["accuracy"] != result.metrics["accuracy"]
    if "abstain_below" in KINDS[kind]:
        sure = stored.confidence >= median
        assert result.metrics["coverage"] == pytest.approx(sure.mean())
        assert result.metrics["answered_accuracy"] == pytest.approx(right[sure].mean())
        assert 0 < result.metrics["coverage"] < 1
    if kind == "costs":
        errors = [100.0 if true == 0 else 0.01 for true, hit in zip(stored.labels, right, strict=True) if not hit]
        assert result.metrics["cost"] == pytest.approx(sum(errors) / len(right))


def test_a_champion_is_compared_by_its_own_decision(store, prepared, unsure, median, tmp_path):
    champion = decided(unsure, tmp_path / "champion", abstain_below=median)
    folder = tmp_path / "first"
    evaluate(prepared, champion, folder)
    with step_run("register", {}) as run:
        register(folder, champion, RegisterConfig(name="desk", rules=RULES), tmp_path / "version.json", run)
        answers = next(file.path for file in store.list_artifacts(run.run_id) if file.path.startswith("evaluation"))
        source = store.get_run(run.run_id).info.artifact_uri
    shutil.rmtree(Path(source.removeprefix("file://")) / answers)  # so that it has to answer again
    outputs: list[Any] = [
        kind(uri=str(tmp_path / name))
        for name, kind in (
            ("evaluation", dsl.Artifact), ("report", dsl.HTML), ("metrics", dsl.Metrics),
            ("confusion", dsl.ClassificationMetrics),
        )
    ]  # fmt: skip
    evaluate_step(dsl.Dataset(uri=str(prepared)), dsl.Model(uri=str(unsure)), *outputs, register_name="desk")
    assert Evaluation.load(tmp_path / "evaluation").champion["note"] == ""
    rival, mine = Predictions.load(tmp_path / "evaluation" / "champion"), Predictions.load(tmp_path / "evaluation")
    assert rival.answers.tolist() == Predictions.load(folder).answers.tolist()
    assert NONE in rival.answers
    assert NONE not in mine.answers


def test_what_is_fitted_is_fitted_on_the_validation_split_and_kept_with_the_model(
    prepared, tiny_checkpoint, tmp_path, capsys
):
    from tuneline.train.train import train

    settings = QUICK.model_copy(update={"epochs": 1, "decision": DecisionConfig(abstain_coverage=0.6)})
    train(prepared, model_config(tiny_checkpoint), settings, tmp_path / "model")
    decision = Decision.load(tmp_path / "model")
    validation = read_split(prepared, "validation").column("text").to_pylist()
    confidence = Classifier(tmp_path / "model").predict_proba(validation).max(1)
    answered = int((confidence >= decision.abstain_below).sum())
    assert answered == np.ceil(0.6 * len(validation))
    told = f"[train] decision, on {len(validation)} validation texts: abstains below {decision.abstain_below:.3g}"
    assert told in capsys.readouterr().out


def test_a_decision_for_a_label_that_is_not_there_stops_the_training_before_it_begins(
    prepared, tiny_checkpoint, tmp_path, capsys
):
    from tuneline.train.train import train

    settings = QUICK.model_copy(update={"decision": DecisionConfig(abstain_label="oos")})
    with pytest.raises(InputError, match=r"train\.decision\.abstain_label: 'oos' is no label of the data"):
        train(prepared, model_config(tiny_checkpoint), settings, tmp_path / "model")
    assert "[train]" not in capsys.readouterr().out
    assert not (tmp_path / "model").exists()
