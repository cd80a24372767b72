"""From texts to answers for each way to treat long texts, alone and in pairs: what was evaluated is what predicts."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.components.conftest import write_csv
from tests.components.register.conftest import predictions
from tests.components.tokenizers import save
from tests.conftest import WORDS
from tuneline import packing
from tuneline.artifacts import SPLITS, Decision, PreparedData, read_json, read_split, split_writer, write_json
from tuneline.config import ModelConfig, RegisterConfig, TrainConfig
from tuneline.errors import InputError
from tuneline.evaluate.baseline import texts_of
from tuneline.evaluate.evaluate import evaluate
from tuneline.inputs import Inputs, of_table, of_tokens
from tuneline.serve.batch import plan, predict_shard
from tuneline.serve.files import predict
from tuneline.serve.model import Classifier, PyFunc
from tuneline.tokenizer import copy_tokenizer
from tuneline.tokens import Encoder
from tuneline.train.train import _examples, train

pytestmark = pytest.mark.medium

POLICIES = ("head", "tail", "head_tail", "windows")
LENGTH = 12
ROWS = {"train": 24, "validation": 9, "test": 20}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
             "max_position_embeddings": 32, "type_vocab_size": 2, "pad_token_id": 0},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
                "max_position_embeddings": 34, "type_vocab_size": 1, "pad_token_id": 1},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "eos_token_id": 0, "bos_token_id": 0,
             "pad_token_id": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of each family with random weights so large that every text gets an answer of its own."""
    from transformers import AutoConfig, AutoModel

    folders = {}
    for family, keys in CONFIGS.items():
        torch.manual_seed(0)
        folders[family] = save(family, tmp_path_factory.mktemp("checkpoints") / family)
        network = AutoModel.from_config(AutoConfig.for_model(family, vocab_size=320, initializer_range=0.5, **keys))
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.4)
        network.save_pretrained(folders[family])
    return folders


def some(draw: random.Random, count: int) -> list[str]:
    return [" ".join(draw.choices(WORDS, k=draw.randrange(1, 40))) for _ in range(count)]


def prepared(out: Path, checkpoint: Path, policy: str, pairs: bool) -> Path:
    """Prepared data of drawn texts, long and short."""
    draw, encoder = random.Random(0), Encoder(checkpoint, LENGTH, policy)
    out.mkdir()
    for split in SPLITS:
        texts, seconds = some(draw, ROWS[split]), some(draw, ROWS[split]) if pairs else None
        columns = {
            "row": pa.array(range(len(texts)), pa.int64()),
            "text": pa.array(texts, pa.large_string()),
            "label": pa.array([number % 2 for number in range(len(texts))], pa.int32()),
            **encoder.encode(texts, seconds).columns(),
        }
        if seconds:
            columns["pair"] = pa.array(seconds, pa.large_string())
        table = pa.table(columns)
        with split_writer(out, split, table.schema) as writer:
            writer.write_table(table)
    copy_tokenizer(checkpoint, out / "tokenizer")
    PreparedData(
        labels=["neg", "pos"], rows=ROWS, sha256={"all": "00", "test": "00"}, max_length=LENGTH, long_texts=policy,
        truncated={"train": 10, "validation": 4, "test": 11}, model=str(checkpoint),
        sources=dict.fromkeys(SPLITS, ""), seed=0, pairs=pairs,
    ).save(out)  # fmt: skip
    return out


def fitted(folder: Path, checkpoint: Path, policy: str, pairs: bool) -> tuple[Path, Path]:
    """Prepared data, and the checkpoint fine-tuned on it for an epoch."""
    data = prepared(folder / "data", checkpoint, policy, pairs)
    model = ModelConfig(name=str(checkpoint), max_length=LENGTH, long_texts=policy)  # pyright: ignore[reportArgumentType]
    train(data, model, TrainConfig(epochs=1, batch_size=8), folder / "model")
    return data, folder / "model"


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("pairs", [False, True], ids=["one", "two"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("family", CONFIGS)
def test_what_was_evaluated_is_what_predicts(checkpoints, family, policy, pairs, packed, tmp_path, monkeypatch):
    if not packed:
        monkeypatch.setattr(packing, "can_pack", lambda _: False)
    data, model = fitted(tmp_path, checkpoints[family], policy, pairs)
    evaluate(data, model, tmp_path / "out")
    stored = np.array(pq.read_table(tmp_path / "out" / "predictions.parquet").column("probabilities").to_pylist())
    classifier, test = Classifier(model), read_split(data, "test")
    assert isinstance(classifier.network, packing.PackedClassifier) == packed
    columns = [test.column(name).to_pylist() for name in (["text", "pair"] if pairs else ["text"])]
    assert classifier.predict_proba(*columns) == pytest.approx(stored, abs=1e-5)
    assert classifier.predict_proba(*columns, batch_size=1) == pytest.approx(stored, abs=1e-5)
    assert len({tuple(row) for row in stored.round(4)}) > len(stored) // 2
    assert Decision.load(model).pairs == pairs


@pytest.mark.parametrize("family", CONFIGS)
def test_a_text_in_windows_is_answered_by_the_mean_of_its_windows(checkpoints, family, tmp_path):
    _, model = fitted(tmp_path, checkpoints[family], "windows", False)
    classifier, text = Classifier(model), " ".join(WORDS * 2)
    inputs = of_tokens(classifier.encoder.encode([text]))
    assert inputs.windows == [len(inputs.rows)]
    assert len(inputs.rows) > 2
    alone = np.concatenate([classifier.predict_proba_inputs(Inputs([row])) for row in inputs.rows])
    assert alone.std(0).min() > 1e-3
    assert classifier.predict_proba(["good", text, "bad"])[1] == pytest.approx(alone.mean(0), abs=1e-5)


def test_a_text_counts_once_in_training_however_many_windows_it_has(checkpoints, tmp_path):
    examples = _examples(prepared(tmp_path / "data", checkpoints["bert"], "windows", True), "train")
    assert examples.windows is not None
    assert examples.weights is not None
    assert max(examples.windows) > min(examples.windows) == 1
    weights, each = iter(examples.weights), len(examples.labels) / ROWS["train"]
    assert [sum(next(weights) for _ in range(count)) for count in examples.windows] == pytest.approx([each] * 24)
    assert sum(examples.weights) / len(examples.weights) == pytest.approx(1)
    assert {len(examples.input_ids), len(examples.pair_at or []), sum(examples.windows)} == {len(examples.labels)}
    labels = [number % 2 for number, count in enumerate(examples.windows) for _ in range(count)]
    assert examples.labels == labels


@pytest.mark.parametrize("policy", ["head", "tail", "head_tail"])
def test_texts_without_windows_are_trained_on_without_weights(checkpoints, policy, tmp_path):
    examples = _examples(prepared(tmp_path / "data", checkpoints["bert"], policy, False), "train")
    assert (examples.weights, examples.windows, examples.pair_at) == (None, None, None)


@pytest.mark.parametrize("policy", ["head", "windows"])
@pytest.mark.parametrize("pairs", [False, True], ids=["one", "two"])
def test_a_split_holds_the_rows_that_serving_reads(checkpoints, policy, pairs, tmp_path):
    data = prepared(tmp_path / "data", checkpoints["roberta"], policy, pairs)
    table, encoder = read_split(data, "test"), Encoder(checkpoints["roberta"], LENGTH, policy)
    columns = [table.column(name).to_pylist() for name in (["text", "pair"] if pairs else ["text"])]
    assert of_table(table) == of_tokens(encoder.encode(*columns))


def test_two_models_of_pairs_and_of_texts_refuse_each_others_input(checkpoints, tmp_path):
    for name, pairs in (("one", False), ("two", True)):
        (tmp_path / name).mkdir()
        _, model = fitted(tmp_path / name, checkpoints["bert"], "head", pairs)
        classifier = Classifier(model)
        told = "the model answers pairs of texts, and single" if pairs else "the model answers single texts, and pairs"
        with pytest.raises(InputError, match=told):
            classifier.predict_proba(["good"], None if pairs else ["bad"])
        frame = pd.DataFrame({"text": ["good"]} if pairs else {"text": ["good"], "pair": ["bad"]})
        told = (
            "1 columns given; two columns of texts, text and pair" if pairs else "2 columns given; one column of texts"
        )
        with pytest.raises(InputError, match=told):
            PyFunc(classifier).predict(frame)


@pytest.fixture(scope="module")
def of_pairs(checkpoints, tmp_path_factory) -> Path:
    """A model folder of pairs; to be read only."""
    return fitted(tmp_path_factory.mktemp("pairs"), checkpoints["bert"], "head", True)[1]


def test_pairs_are_taken_in_every_usual_form(of_pairs):
    draw, classifier = random.Random(5), Classifier(of_pairs)
    texts, pairs = some(draw, 8), some(draw, 8)
    wanted = classifier.predict_proba(texts, pairs)
    assert not np.allclose(wanted, classifier.predict_proba(pairs, texts), atol=1e-3)
    both = list(zip(texts, pairs, strict=True))
    forms: list[Any] = [
        both, [list(pair) for pair in both], np.array(both, dtype=object), pd.DataFrame(both, columns=["a", "b"]),
        pd.DataFrame({"pair": pairs, "text": texts}),
        pd.DataFrame({"id": range(8), "pair": pairs, "text": texts}),
    ]  # fmt: skip
    for given in forms:
        assert np.array_equal(PyFunc(classifier).predict(given)[["p(neg)", "p(pos)"]].to_numpy(), wanted)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["good", "bad"], "item 1: one text given"),
        ("good", "item 1: one text given"),
        ([("good", "bad"), ("good",)], "item 2: one text given"),
        ([("good", 3)], "item 1: int given; a text is needed"),
        (pd.Series(["good"]), "item 1: one text given"),
    ],
)
def test_what_is_no_pair_is_refused(of_pairs, given, told):
    with pytest.raises(InputError, match=told):
        PyFunc(Classifier(of_pairs)).predict(given)


def test_a_registered_model_of_pairs_names_its_two_columns(store, of_pairs, tmp_path):
    import mlflow.pyfunc

    from tuneline.register.register import register
    from tuneline.tracking import step_run

    write_json(tmp_path / "metrics.json", {"metrics": {"accuracy": 0.9}, "speed": {}})
    predictions(100, range(5), range(20, 50)).save(tmp_path)
    with step_run("register", {}) as run:
        register(tmp_path, of_pairs, RegisterConfig(name="pairs"), tmp_path / "version.json", run)
    loaded = mlflow.pyfunc.load_model("models:/pairs@champion")
    assert loaded.metadata.get_input_schema().input_names() == ["text", "pair"]
    draw = random.Random(5)
    texts, pairs = some(draw, 8), some(draw, 8)
    wanted = Classifier(of_pairs).predict_proba(texts, pairs)
    found = loaded.predict(pd.DataFrame({"pair": pairs, "text": texts}))[["p(neg)", "p(pos)"]].to_numpy()
    assert found == pytest.approx(wanted, abs=1e-6)
    file = write_csv(tmp_path / "new.csv", list(zip(texts, pairs, strict=True)), ("premise", "claim"))
    rows = list(predict("pairs@champion", str(file), ["premise", "claim"], lambda *_: None))
    assert [(row["text"], row["pair"]) for row in rows] == list(zip(texts, pairs, strict=True))
    assert [row["p(pos)"] for row in rows] == pytest.approx(wanted[:, 1], abs=1e-5)
    (shard,) = plan("pairs@champion", str(file), ["premise", "claim"], 1)
    predict_shard(shard, ["premise", "claim"], tmp_path / "part")
    assert [json.loads(line) for line in (tmp_path / "part").open()] == [
        {"row": number, **row} for number, row in enumerate(rows)
    ]
    with pytest.raises(InputError, match="name the column of the second texts, as with tuneline predict --pair-column"):
        list(predict("pairs@champion", str(file), ["premise"], lambda *_: None))


def test_texts_are_cleaned_before_they_are_answered_as_those_of_training_were(of_pairs, tmp_path):
    folder = Path(shutil.copytree(of_pairs, tmp_path / "model"))
    plain, broken = Classifier(folder), ("a good<br />film", "b\u00adad plot")
    assert not np.array_equal(
        plain.predict_proba([broken[0]], [broken[1]]), plain.predict_proba(["a good film"], ["bad plot"])
    )
    settings = read_json(folder / "tuneline.json")
    write_json(folder / "tuneline.json", settings | {"clean": ["control_characters", "markup"]})
    found = Classifier(folder).predict_proba([broken[0]], [broken[1]])
    assert np.array_equal(found, plain.predict_proba(["a good film"], ["bad plot"]))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_report_says_what_is_read_of_a_long_text(checkpoints, policy, tmp_path):
    data, model = fitted(tmp_path, checkpoints["bert"], policy, True)
    evaluate(data, model, tmp_path / "out")
    kept = {
        "head": "its first 12 tokens", "tail": "its last 12 tokens", "head_tail": "a quarter of them from its head",
        "windows": "overlapping windows of 12 tokens, whose probabilities are averaged",
    }[policy]  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert kept in page
    assert "Of a long pair of texts" in page
    assert "11 of 20 test texts are longer" in page


def test_the_baseline_reads_both_texts_and_no_word_pair_across_them():
    table = pa.table({"text": ["a good", "b"], "pair": ["film", "c"]})
    assert texts_of(table) == ["a good ‖ film", "b ‖ c"]
    assert texts_of(pa.table({"text": ["a good"]})) == ["a good"]
