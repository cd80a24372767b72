"""evaluate as a whole: its files agree with each other, its page is safe to open, its baseline saw train only."""

from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from kfp import dsl

from tests.components.conftest import model_config, prepare_rows, write_csv
from tests.conftest import WORDS, reviews
from tuneline.artifacts import PreparedData, read_split, sha256_file
from tuneline.config import DataConfig
from tuneline.evaluate.baseline import baseline_proba
from tuneline.evaluate.evaluate import evaluate, evaluate_step
from tuneline.evaluate.findings import Evaluation
from tuneline.evaluate.robustness import PROBES
from tuneline.evaluate.words import metric
from tuneline.predictions import Predictions, contaminated, keys, load_training_keys
from tuneline.prepare.prepare import prepare
from tuneline.serve.model import Classifier

FILES = {
    "metrics.json", "predictions.parquet", "predictions.npz", "training_keys.npy", "confusion_matrix.png",
    "report.html",
}  # fmt: skip
STRANGE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "$x^2$ & $y_{$", "costs $5", "w" * 300,
    "日本語 ünï 😀", "a\"b'c", "{{ 7 * 7 }}{% raw %}", "back\\slash_{sub}", r"\$escaped\$",
]  # fmt: skip


class Page(HTMLParser):
    """The tags of a page, and the text of its cells and items."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("td", "th", "li"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells and self.tags[-1] in ("td", "th", "li"):
            self.cells[-1] += data.strip()


@pytest.fixture(scope="module")
def evaluated(prepared, trained, tmp_path_factory):
    """The Evaluation of `trained`, and its folder; to be read only."""
    out = tmp_path_factory.mktemp("evaluated") / "evaluation"
    return evaluate(prepared, trained, out), out


@pytest.fixture
def with_labels(tmp_path, tiny_checkpoint):
    """Evaluates a model that was never trained, on data of these labels."""
    from tuneline.train.train import load_network, save

    def run(labels: list[str]) -> tuple[Evaluation, Path]:
        parts = {
            split: [
                (f"{WORDS[number % len(WORDS)]} {label[:3]} {split} {turn}", label)
                for number, label in enumerate(labels)
                for turn in range(turns)
            ]
            for split, turns in (("train", 3), ("validation", 1), ("test", 2))
        }
        data = prepare_rows(tmp_path, tiny_checkpoint, **parts)
        manifest = PreparedData.load(data)
        save(load_network(str(tiny_checkpoint), manifest.labels), data, manifest, tmp_path / "model")
        return evaluate(data, tmp_path / "model", tmp_path / "out"), tmp_path / "out"

    return run


def is_png(content: bytes) -> bool:
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")


def test_an_evaluation_is_six_files(evaluated):
    result, folder = evaluated
    assert {path.name for path in folder.iterdir()} == FILES
    assert Evaluation.load(folder) == result
    assert set(result.metrics) == {
        "accuracy", "macro_f1", "micro_f1", "weighted_f1", "mcc", "log_loss", "calibration_error", "roc_auc",
        "average_precision", "baseline_accuracy", "baseline_macro_f1", "baseline_log_loss",
    }  # fmt: skip


def test_predictions_agree_with_the_metrics_and_the_confusion_matrix(evaluated, prepared):
    result, folder = evaluated
    rows = pq.read_table(folder / "predictions.parquet").to_pydict()
    right = [true == predicted for true, predicted in zip(rows["label"], rows["predicted"], strict=True)]
    assert sum(right) / len(right) == pytest.approx(result.metrics["accuracy"])
    losses = [-math.log(chances[true]) for chances, true in zip(rows["probabilities"], rows["label"], strict=True)]
    assert sum(losses) / len(losses) == pytest.approx(result.metrics["log_loss"], abs=1e-5)
    assert [int(np.argmax(chances)) for chances in rows["probabilities"]] == rows["predicted"]
    assert sum(map(sum, result.confusion)) == len(right)
    assert sum(result.confusion[index][index] for index in range(2)) == sum(right)
    test = read_split(prepared, "test")
    assert (rows["row"], rows["label"]) == (test.column("row").to_pylist(), test.column("label").to_pylist())


def test_what_the_gate_reads_agrees_with_the_table_for_people(evaluated, prepared, trained):
    result, folder = evaluated
    stored, table = Predictions.load(folder), pq.read_table(folder / "predictions.parquet").to_pydict()
    chances = np.array(table["probabilities"])
    assert stored.labels.tolist() == table["label"]
    assert stored.answers.tolist() == table["predicted"]
    assert stored.confidence == pytest.approx(chances.max(1))
    assert stored.chance == pytest.approx(chances[np.arange(len(chances)), table["label"]])
    assert (stored.baseline == stored.labels).mean() == pytest.approx(result.metrics["baseline_accuracy"])
    assert stored.names == result.labels
    assert [row["n"] for row in sorted(result.slices, key=lambda row: row["name"])] == [
        int(stored.slices[name].sum()) for name in sorted(stored.slices)
    ]
    assert stored.facts["test_sha256"] == PreparedData.load(prepared).sha256["test"]
    assert stored.facts["weights_sha256"] == sha256_file(trained / "model.safetensors")


def test_the_rows_that_the_model_has_seen_are_known_and_no_test_row_is_among_them(evaluated, prepared):
    _, folder = evaluated
    seen, tested = load_training_keys(folder), Predictions.load(folder).keys
    assert contaminated(tested, seen) == 0
    for split in ("train", "validation"):
        texts = read_split(prepared, split).column("text").to_pylist()
        assert contaminated(keys(texts), seen) == len(texts)


def test_every_metric_lies_in_its_interval_and_speed_was_measured(evaluated, prepared):
    result, _ = evaluated
    for of in result.estimates.values():
        assert all(low <= value <= high for name, (value, low, high) in of.items() if name != "calibration_error")
    assert {name: value for name, (value, _, _) in result.estimates["model"].items()}.items() <= result.metrics.items()
    assert 0 < result.speed["latency_p50_ms"] <= result.speed["latency_p99_ms"]
    assert result.speed["texts_per_second"] > 0
    assert {row["name"] for row in result.probes} == set(PROBES)
    assert result.against_baseline["rows"] == PreparedData.load(prepared).rows["test"]


def test_predictions_are_those_of_the_class_that_serves(evaluated, prepared, trained):
    _, folder = evaluated
    stored = pq.read_table(folder / "predictions.parquet").column("probabilities").to_pylist()
    served = Classifier(trained).predict_proba(read_split(prepared, "test").column("text").to_pylist())
    assert np.array(stored) == pytest.approx(served, abs=1e-6)


def test_a_trained_model_is_seen_to_be_good(evaluated):
    result, _ = evaluated
    assert result.metrics["accuracy"] >= 0.9
    assert result.metrics["baseline_accuracy"] >= 0.9


def test_the_page_tells_the_numbers_and_holds_its_picture(evaluated, prepared):
    result, folder = evaluated
    text, manifest = (folder / "report.html").read_text(encoding="utf-8"), PreparedData.load(prepared)
    cells = Page(text).cells
    for name in ("accuracy", "macro_f1", "log_loss"):
        of = metric(name)
        values = [of.shown(result.metrics[key]) for key in (name, f"baseline_{name}")]
        row = text[text.index(f'<th class="name">{of.name}<') :].partition("</tr>")[0]
        assert re.findall(r'<td class="n">([^<]+)<', row) == values
    assert f"Evaluation on {manifest.rows['test']} test texts" in text
    assert manifest.sha256["all"] in text
    assert set(manifest.notes) <= set(cells)
    for true, row in zip(result.labels, result.confusion, strict=True):
        for told, count in zip(result.labels, row, strict=True):
            assert f"<title>{true} → {told}: {count} of {sum(row)} (" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_labels_of_any_kind_are_shown_as_they_are_and_never_run(with_labels):
    result, folder = with_labels(STRANGE)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert sorted(result.labels) == sorted(STRANGE)
    assert set(STRANGE) <= set(page.cells)
    assert not {"script", "img"} & set(page.tags)
    assert is_png((folder / "confusion_matrix.png").read_bytes())


def test_thirty_classes_are_measured_drawn_and_listed(with_labels):
    labels = [f"class {number}" for number in range(30)]
    result, folder = with_labels(labels)
    assert (len(result.confusion), {len(row) for row in result.confusion}) == (30, {30})
    assert [sum(row) for row in result.confusion] == [2] * 30
    assert is_png((folder / "confusion_matrix.png").read_bytes())
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert all(f'<th class="name">{label}</th>' in text for label in labels)
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert base64.b64decode(picture) == (folder / "confusion_matrix.png").read_bytes()
    chances = pq.read_table(folder / "predictions.parquet").column("probabilities").to_pylist()
    assert np.array(chances).sum(1) == pytest.approx(np.ones(60), abs=1e-5)


def test_the_baseline_learns_from_the_train_split_only(tmp_path, tiny_checkpoint, trained):
    held_out = {
        split: [(f"{word} {split}", "pos" if number % 2 else "neg") for number, word in enumerate(WORDS)]
        for split in ("validation", "test")
    }
    train = [(f"word{number} x", "pos" if number % 2 else "neg") for number in range(40)]
    data = prepare_rows(tmp_path, tiny_checkpoint, train=train, **held_out)
    metrics = evaluate(data, trained, tmp_path / "out").metrics
    # Words that train does not hold tell it nothing, so that it says the same of every text.
    assert metrics["baseline_accuracy"] == pytest.approx(0.5, abs=0.02)
    assert metrics["baseline_log_loss"] == pytest.approx(math.log(2), abs=0.05)


def test_the_baseline_learns_words_that_train_holds():
    texts, labels = ["good film", "bad film", "good plot", "bad plot"] * 5, [1, 0, 1, 0] * 5
    chances = baseline_proba(texts, labels, ["a good one", "a bad one", "?"], 3)
    assert chances.argmax(1).tolist()[:2] == [1, 0]
    assert chances.sum(1) == pytest.approx(np.ones(3))
    assert chances[:, 2].tolist() == [0.0, 0.0, 0.0]


def test_the_baseline_reads_words_of_one_letter():
    chances = baseline_proba(["a", "b"] * 10, [0, 1] * 10, ["a", "b"], 2)
    assert chances.argmax(1).tolist() == [0, 1]


def test_a_column_that_the_user_names_is_a_slice_and_a_bad_one_is_flagged(tmp_path, tiny_checkpoint, trained):
    """The reviews of one channel have their labels turned around, so that the model is wrong there."""
    turned = {"pos": "neg", "neg": "pos"}
    rows = [
        (text, turned[label] if number % 4 == 0 else label, "phone" if number % 4 == 0 else "mail")
        for number, (text, label) in enumerate(reviews(160, 3000))
    ]
    header = ("text", "label", "channel")
    test, train = write_csv(tmp_path / "test.csv", rows, header), write_csv(tmp_path / "train.csv", reviews(40, 5000))
    data = DataConfig(train=str(train), test=str(test), slice_columns=["channel"])
    prepare(data, model_config(tiny_checkpoint), tmp_path / "data")
    found = {row["name"]: row for row in evaluate(tmp_path / "data", trained, tmp_path / "out").slices}
    phone, mail = found["channel: phone"], found["channel: mail"]
    assert (phone["n"], phone["worse"], mail["n"], mail["worse"]) == (40, True, 120, False)
    assert phone["low"] <= phone["accuracy"] < 0.2
    assert "channel: phone (" in (tmp_path / "out" / "report.html").read_text()


def test_the_step_shows_and_records_the_evaluation(store, prepared, trained, tmp_path):
    uris: dict[str, Any] = {name: str(tmp_path / name) for name in ("evaluation", "report", "metrics", "confusion")}
    shown, matrix = dsl.Metrics(uri=uris["metrics"]), dsl.ClassificationMetrics(uri=uris["confusion"])
    evaluate_step(
        dsl.Dataset(uri=str(prepared)), dsl.Model(uri=str(trained)), dsl.Artifact(uri=uris["evaluation"]),
        dsl.HTML(uri=uris["report"]), shown, matrix, register_name="desk",
    )  # fmt: skip
    result = Evaluation.load(tmp_path / "evaluation")
    assert shown.metadata == result.metrics
    assert [row["row"] for row in matrix.metadata["confusionMatrix"]["rows"]] == result.confusion
    assert (tmp_path / "report").read_bytes() == (tmp_path / "evaluation" / "report.html").read_bytes()
    (run,) = store.search_runs([store.get_experiment_by_name("tuneline").experiment_id])
    assert (run.info.status, run.data.metrics) == ("FINISHED", pytest.approx(result.metrics | result.speed))
    assert {file.path for file in store.list_artifacts(run.info.run_id)} == FILES
