"""The class that answers: the same answer for a text however it is asked, and nothing but data in its folder."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.components.register.conftest import predictions
from tests.conftest import WORDS, reviews
from tuneline.artifacts import read_json, write_json
from tuneline.config import RegisterConfig
from tuneline.errors import InputError
from tuneline.inputs import of_tokens
from tuneline.register.register import register
from tuneline.safety import ALLOWED_FILES
from tuneline.serve.model import Classifier, PyFunc
from tuneline.tracking import step_run

DRAW = random.Random(0)
TEXTS = [" ".join(DRAW.choices(WORDS, k=DRAW.randrange(1, 25))) for _ in range(60)] + ["!?", "unknown words only"]
LOOKALIKES = ["123", "True", "[1]", "None", "1.5", '{"a": 1}', "nan", ""]


@pytest.fixture(scope="module")
def lively(trained, tmp_path_factory):
    """A model folder with random weights so large that every text gets an answer of its own; to be read only."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("lively") / "model"))
    torch.manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    drawn = {name: torch.randn_like(weight) * 0.3 if weight.ndim == 2 else weight for name, weight in weights.items()}
    save_file(drawn, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def classifier(lively):
    """The lively model, loaded once."""
    return Classifier(lively)


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the trained model that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "model"))


def test_probabilities_are_fp32_and_sum_to_one(classifier):
    found = classifier.predict_proba(TEXTS)
    assert (found.shape, found.dtype) == ((len(TEXTS), 2), np.float32)
    assert found.sum(1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)


def test_a_trained_models_answers_are_right(trained):
    classifier, rows = Classifier(trained), reviews(60, start=900)
    found = classifier.predict_proba([text for text, _ in rows]).argmax(1)
    right = sum(classifier.labels[index] == label for index, (_, label) in zip(found, rows, strict=True))
    assert right >= 54


def test_in_bf16_the_answers_are_near_those_of_fp32_and_no_longer_the_same(trained):
    texts = [text for text, _ in reviews(60, start=900)]
    full, low = (Classifier(trained, precision).predict_proba(texts) for precision in ("fp32", "bf16"))
    assert (low.argmax(1) == full.argmax(1)).all()
    assert 0 < np.abs(low - full).max() < 0.02
    assert low.sum(1) == pytest.approx(np.ones(60), abs=1e-5)


def test_these_texts_can_tell_a_wrong_answer_from_a_right_one(classifier):
    chances = np.sort(classifier.predict_proba(TEXTS)[:, 0])
    assert chances[-1] - chances[0] > 0.3
    assert np.median(np.diff(chances)) > 1e-3


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_a_text_gets_the_same_answer_alone_and_in_any_batch(classifier, batch_size):
    alone = np.concatenate([classifier.predict_proba([text]) for text in TEXTS])
    assert classifier.predict_proba(TEXTS, batch_size=batch_size) == pytest.approx(alone, abs=1e-5)


def test_answers_come_in_the_order_of_the_texts(classifier):
    forward = classifier.predict_proba(TEXTS, batch_size=4)
    assert classifier.predict_proba(TEXTS[::-1], batch_size=4)[::-1] == pytest.approx(forward, abs=1e-5)


def test_token_ids_get_the_answer_of_their_text(classifier):
    inputs = of_tokens(classifier.encoder.encode(TEXTS))
    assert np.array_equal(classifier.predict_proba_inputs(inputs), classifier.predict_proba(TEXTS))


@pytest.mark.parametrize("side", ["head", "tail"])
def test_a_long_text_is_cut_on_the_side_on_which_training_texts_were(lively, tmp_path, side):
    folder = Path(shutil.copytree(lively, tmp_path / "model"))
    write_json(folder / "tuneline.json", read_json(folder / "tuneline.json") | {"long_texts": side})
    words, rest = "a good film with a nice plot and great actors who play very well".split(), ["bad"] * 5000
    long = " ".join(words + rest if side == "head" else rest + words)
    classifier = Classifier(folder)
    assert len(words) == classifier.decision.max_length - 2
    assert np.array_equal(classifier.predict_proba([long]), classifier.predict_proba([" ".join(words)]))


def test_progress_is_told_after_every_batch(classifier):
    told: list[int] = []
    classifier.predict_proba(TEXTS[:10], batch_size=4, on_batch=told.append)
    assert told == [4, 8, 10]


def test_no_texts_are_no_answers(classifier):
    assert classifier.predict_proba([]).shape == (0, 2)
    assert list(PyFunc(classifier).predict([]).columns) == ["label", "score", "p(neg)", "p(pos)"]


@pytest.mark.parametrize("name", ["modeling.py", "pytorch_model.bin", "model.pkl", "__pycache__", "notes.md"])
def test_a_file_that_does_not_belong_is_named_and_nothing_is_loaded(folder, name):
    if name == "__pycache__":
        (folder / name).mkdir()
    else:
        (folder / name).write_text("raise SystemExit('planted code ran')\n")
    with pytest.raises(InputError, match=f"{name} does not belong in a model folder; not loaded"):
        Classifier(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tuneline.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"no {name}; not a model folder of tuneline"):
        Classifier(folder)


def test_a_folder_that_is_missing_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json; not a model folder of tuneline"):
        Classifier(tmp_path / "nowhere")


def test_a_configuration_that_names_code_is_refused(folder):
    code = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    write_json(folder / "config.json", read_json(folder / "config.json") | {"auto_map": code})
    with pytest.raises(InputError, match=r"config\.json: auto_map names Python code to run; not loaded"):
        Classifier(folder)


def test_nothing_that_can_hold_code_is_allowed():
    assert {Path(name).suffix for name in ALLOWED_FILES} == {".json", ".safetensors", ".txt"}


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        tuple(TEXTS),
        pd.Series(TEXTS),
        pd.Series(TEXTS, index=range(100, 100 + len(TEXTS)), dtype="object"),
        pd.DataFrame({"anything": TEXTS}),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        np.array(TEXTS).reshape(-1, 1),
    ],
    ids=["list", "tuple", "series", "indexed series", "frame", "array", "object array", "column"],
)
def test_texts_are_taken_in_every_usual_form(classifier, given):
    found = PyFunc(classifier).predict(given)
    wanted = classifier.predict_proba(TEXTS)
    assert list(found.columns) == ["label", "score", "p(neg)", "p(pos)"]
    assert np.array_equal(found[["p(neg)", "p(pos)"]].to_numpy(), wanted)
    assert found["label"].tolist() == [["neg", "pos"][index] for index in wanted.argmax(1)]
    assert np.array_equal(found["score"].to_numpy(), wanted.max(1))


def test_one_text_gets_one_row(classifier):
    found = PyFunc(classifier).predict("good")
    assert len(found) == 1
    assert found["score"].item() == classifier.predict_proba(["good"]).max()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["good", 3], "item 2: int given; a text is needed"),
        ([None], "item 1: NoneType given; a text is needed"),
        ([b"good"], "item 1: bytes given; a text is needed"),
        ([["good"]], "item 1: list given; a text is needed"),
        (pd.Series(["good", None], dtype="object"), "item 2: NoneType given; a text is needed"),
        (pd.Series([1.5]), "item 1: float given; a text is needed"),
        (pd.DataFrame({"text": [True]}), "item 1: bool given; a text is needed"),
        (pd.DataFrame({"text": ["good"], "other": ["bad"]}), "2 columns given; one column of texts is needed"),
        (np.array([1, 2]), "item 1: int given; a text is needed"),
    ],
)
def test_what_is_no_text_is_refused(classifier, given, told):
    with pytest.raises(InputError) as caught:
        PyFunc(classifier).predict(given)
    assert str(caught.value) == told


def test_texts_that_look_like_python_are_texts(classifier):
    found = PyFunc(classifier).predict(LOOKALIKES)
    assert found["p(pos)"].to_numpy() == pytest.approx(classifier.predict_proba(LOOKALIKES)[:, 1], abs=1e-6)


def test_a_registered_version_answers_as_the_classifier_does(store, classifier, lively, tmp_path):
    import mlflow.pyfunc

    write_json(tmp_path / "metrics.json", {"metrics": {"accuracy": 0.9}, "speed": {}})
    predictions(100, range(5), range(20, 50)).save(tmp_path)
    with step_run("register", {}) as run:
        register(tmp_path, lively, RegisterConfig(name="desk"), tmp_path / "version.json", run)
    loaded = mlflow.pyfunc.load_model("models:/desk@champion")
    texts = [*TEXTS, *LOOKALIKES]
    wanted = classifier.predict_proba(texts)
    forms: list[Any] = [texts, pd.DataFrame({"text": texts}), pd.Series(texts), np.array(texts, dtype=object)]
    for given in forms:
        found = loaded.predict(given)[["p(neg)", "p(pos)"]].to_numpy()
        assert found == pytest.approx(wanted, abs=1e-6)
    assert loaded.predict("good")["label"].item() == PyFunc(classifier).predict("good")["label"].item()
