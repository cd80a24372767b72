"""evaluate: PreparedData + TrainedModel -> Evaluation, on the test split, which training never saw."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline import predictions
from tuneline.artifacts import PreparedData, read_split, sha256_file, write_json
from tuneline.confident import suspects
from tuneline.config import RegisterConfig
from tuneline.evaluate.baseline import baseline_proba, texts_of
from tuneline.evaluate.champion import Rival, beside
from tuneline.evaluate.findings import Evaluation, TestSet, find, write_training_keys
from tuneline.evaluate.matrix import picture
from tuneline.evaluate.report import write_page
from tuneline.evaluate.speed import latency, machine, size_mb
from tuneline.inputs import of_table
from tuneline.progress import Progress, say
from tuneline.recipe import from_flat
from tuneline.serve.model import Classifier
from tuneline.step import Artifact, ClassificationMetrics, Metrics, step
from tuneline.threads import within_quota

if TYPE_CHECKING:
    import numpy as np


FILES = (
    "report.html", "confusion_matrix.png", "metrics.json", "predictions.parquet", predictions.FILE,
    predictions.TRAINING_FILE,
)  # fmt: skip


def evaluate(data: Path, model: Path, out: Path, rival: Rival | None = None) -> Evaluation:
    """Score the model and the baseline, and write predictions, metrics, picture and page into `out`.

    Args:
        data: folder of PreparedData.
        model: folder of TrainedModel.
        out: folder to write.
        rival: the champion, to be set beside them; None where there is none.
    """
    out.mkdir(parents=True, exist_ok=True)
    manifest = PreparedData.load(data)
    table, train = read_split(data, "test"), read_split(data, "train")
    inputs = of_table(table)
    progress = Progress("evaluate", len(inputs.rows), "texts" if inputs.windows is None else "windows")
    classifier, started = Classifier(model), time.perf_counter()
    probabilities = classifier.predict_proba_inputs(inputs, on_batch=progress.update)
    speed = {"texts_per_second": len(table) / (time.perf_counter() - started), "size_mb": size_mb(model)}
    say("[evaluate] training the linear baseline")
    baseline = baseline_proba(
        texts_of(train), train.column("label").to_pylist(), texts_of(table), len(manifest.labels)
    )  # fmt: skip
    say("[evaluate] slices, probes and speed")
    test = TestSet.of(table, manifest)
    speed |= latency(classifier.predict_proba, test.texts, test.pairs)
    device = machine(classifier.device.type)
    result = find(test, probabilities, baseline, classifier.predict_proba, speed, device, classifier.decision)
    facts = {"weights_sha256": sha256_file(model / "model.safetensors"), "environment": device}
    answers = test.answered(probabilities, classifier.answers(probabilities), baseline.argmax(1), facts)
    answers.save(out)
    write_training_keys(out, train, read_split(data, "validation"))
    if rival:
        result = replace(result, champion=beside(rival, test, answers, out))
    _write(out, result, manifest, test, answers, probabilities, table.column("row").to_pylist())
    return result


def _write(
    out: Path,
    result: Evaluation,
    manifest: PreparedData,
    test: TestSet,
    answers: predictions.Predictions,
    probabilities: np.ndarray,
    rows: list[int],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_json(out / "metrics.json", result.__dict__)
    doubts = suspects(probabilities, test.labels)
    columns = {
        "row": rows, "label": test.labels, "predicted": answers.answers, "label_score": doubts.scores,
        "label_suspect": doubts.candidate,
    }  # fmt: skip
    pq.write_table(pa.table(columns | {"probabilities": list(probabilities)}), out / "predictions.parquet")
    picture(result.confusion, result.labels, out / "confusion_matrix.png")
    write_page(out / "report.html", out / "confusion_matrix.png", result, manifest, test, answers, probabilities)


def evaluate_step(
    data: Artifact, model: Artifact, out: Artifact, page: Artifact, shown: Metrics, matrix: ClassificationMetrics,
    **parameters: Any,
) -> None:  # fmt: skip
    """The KFP component's work: prepared data, a model and the registered name in; evaluation, page and metrics out."""
    with step("evaluate", parameters) as run:
        within_quota()
        run.dataset(PreparedData.load(Path(data.path)))
        folder = Path(out.path)
        rival = Rival.of(from_flat(RegisterConfig, parameters).name, run)
        result = evaluate(Path(data.path), Path(model.path), folder, rival)
        run.metrics(result.metrics | result.speed)
        for name, value in result.metrics.items():
            shown.log_metric(name, value)
        matrix.log_confusion_matrix(result.labels, result.confusion)
        shutil.copyfile(folder / "report.html", page.path)
        for name in FILES:
            run.artifact(folder / name)
