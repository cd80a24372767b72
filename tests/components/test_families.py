"""Each family of checkpoints goes the whole road, packed and padded, and what is registered answers anywhere alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.components.conftest import model_config, prepare_rows
from tests.components.families import FAMILIES, checkpoint
from tests.conftest import reviews
from tuneline import packing
from tuneline.artifacts import read_json, write_json
from tuneline.config import RegisterConfig, Rules, TrainConfig
from tuneline.evaluate.evaluate import evaluate
from tuneline.packing import PackedClassifier, PaddedClassifier
from tuneline.register.register import register
from tuneline.registry import download, find
from tuneline.serve.model import Classifier
from tuneline.tracking import step_run
from tuneline.train.network import load_network
from tuneline.train.train import train

pytestmark = pytest.mark.medium

ROWS = reviews(240)
TEXTS = [text for text, _ in reviews(4, start=900)] + [
    "good", "good bad", "the plot", "awful but nice", "nice but awful", "a film", "Bad, was it NOT?", "日本 ünï 7",
    "a fine film and not a bad one " * 9, "good good bad bad " * 9,
]  # fmt: skip
LENGTH = 32
QUICK = TrainConfig(epochs=4, learning_rate=5e-3, batch_size=16, precision="fp32")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each family; to be read only."""
    folder = tmp_path_factory.mktemp("families")
    return {name: checkpoint(name, [text for text, _ in ROWS], folder / name) for name in FAMILIES}


@pytest.fixture(scope="module")
def data(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PreparedData for each of them; to be read only."""
    folder = tmp_path_factory.mktemp("data")
    return {name: prepare_rows(folder / name, path, LENGTH, train=ROWS) for name, path in checkpoints.items()}


def stock(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Logits of TEXTS by transformers alone, as its users ask it, all in one batch; and what it calls the labels."""
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.inference_mode():
        logits = network(**inputs).logits
    return logits.numpy(), list(network.config.id2label.values())


def answers(classifier: Classifier) -> np.ndarray:
    """Logits of TEXTS as the pipeline reads them."""
    rows = classifier.inputs_of(TEXTS).rows
    with torch.inference_mode():
        return classifier.network(rows).numpy()


def probabilities(logits: np.ndarray) -> np.ndarray:
    return torch.tensor(logits).softmax(1).numpy()


def registered(data: Path, model: Path, name: str, folder: Path) -> dict[str, float]:
    """Evaluates and registers the model; its metrics."""
    found = evaluate(data, model, folder / "evaluation")
    with step_run("register", {}) as run:
        settings = RegisterConfig(name=name, rules=Rules(beats_baseline=False))
        version = register(folder / "evaluation", model, settings, folder / "version.json", run)
    assert version.aliases == ["challenger", "champion"]
    return found.metrics


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_trained_evaluated_and_registered_and_answers_alike_wherever_it_is_loaded(
    name: str, checkpoints: dict[str, Path], data: dict[str, Path], store: MlflowClient, tmp_path: Path, capsys: Any
) -> None:
    train(data[name], model_config(checkpoints[name], LENGTH), QUICK, tmp_path / "model")
    assert registered(data[name], tmp_path / "model", name, tmp_path)["accuracy"] >= 0.9
    way = "packed rows, fp32" if FAMILIES[name].packs else f"rows of like length, padded ({name} is not known to take"
    assert capsys.readouterr().out.count(way) == 1

    stored = download(find(f"{name}@champion"), tmp_path / "stored")
    logits, labels = stock(stored)
    classifier = Classifier(stored)
    assert isinstance(classifier.network, PackedClassifier if FAMILIES[name].packs else PaddedClassifier)
    assert np.allclose(answers(classifier), logits, atol=1e-4)
    assert labels == classifier.labels == ["neg", "pos"]
    frame = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(TEXTS)
    assert np.allclose(frame[["p(neg)", "p(pos)"]].to_numpy(), probabilities(logits), atol=1e-5)
    assert frame["label"].tolist() == [labels[index] for index in logits.argmax(1)]
    assert set(frame["label"]) == {"neg", "pos"}


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.packs])
def test_a_family_that_packs_learns_the_same_where_it_is_padded(
    name: str, checkpoints: dict[str, Path], data: dict[str, Path], store: MlflowClient, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: Any,
) -> None:  # fmt: skip
    train(data[name], model_config(checkpoints[name], LENGTH), QUICK, tmp_path / "packed")
    packed = answers(Classifier(tmp_path / "packed"))
    monkeypatch.setattr(packing, "POOLING", {})  # no family is known to take packed rows
    train(data[name], model_config(checkpoints[name], LENGTH), QUICK, tmp_path / "model")
    assert "rows of like length, padded" in capsys.readouterr().out
    assert registered(data[name], tmp_path / "model", name, tmp_path)["accuracy"] >= 0.9
    classifier = Classifier(tmp_path / "model")
    assert isinstance(classifier.network, PaddedClassifier)
    assert np.allclose(answers(classifier), stock(tmp_path / "model")[0], atol=1e-4)
    assert np.allclose(answers(classifier), packed, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_learns_in_bf16_too(
    name: str, checkpoints: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"precision": "bf16"})
    metrics = train(data[name], model_config(checkpoints[name], LENGTH), settings, tmp_path / "model")
    assert metrics["validation_accuracy"] >= 0.9


def test_a_padding_token_that_only_the_tokenizer_names_is_the_models_too(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "gpt2"
    shutil.copytree(checkpoints["gpt2"], folder)
    settings = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", settings | {"pad_token": "!"})
    network = load_network(str(folder), ["neg", "pos"])
    assert network.config.pad_token_id == AutoTokenizer.from_pretrained(folder).pad_token_id != 0
