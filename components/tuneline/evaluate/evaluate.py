"""evaluate: PreparedData + TrainedModel -> Evaluation, on the test split, which training never saw."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneline.artifacts import PreparedData, read_json, read_split, write_json
from tuneline.evaluate.baseline import baseline_proba, texts_of
from tuneline.evaluate.metrics import confusion, per_class, score
from tuneline.evaluate.report import draw_confusion, reading, write_page
from tuneline.inputs import of_table
from tuneline.progress import Progress, say
from tuneline.serve.model import Classifier
from tuneline.step import Artifact, ClassificationMetrics, Metrics, step

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Evaluation:
    """What the step found.

    Attributes:
        metrics: accuracy, macro_f1, log_loss of the model, and baseline_accuracy, baseline_macro_f1.
        labels: label names.
        confusion: counts [true][predicted].
    """

    metrics: dict[str, float]
    labels: list[str]
    confusion: list[list[int]]

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read an Evaluation folder."""
        return cls(**read_json(folder / "metrics.json"))


def evaluate(data: Path, model: Path, out: Path) -> Evaluation:
    """Score the model and the baseline, and write predictions, metrics, picture and page into `out`.

    Args:
        data: folder of PreparedData.
        model: folder of TrainedModel.
        out: folder to write.
    """
    import numpy as np

    out.mkdir(parents=True, exist_ok=True)
    manifest = PreparedData.load(data)
    test, train = read_split(data, "test"), read_split(data, "train")
    labels = np.asarray(test.column("label"))
    inputs = of_table(test)
    progress = Progress("evaluate", len(inputs.rows), "texts" if inputs.windows is None else "windows")
    probabilities = Classifier(model).predict_proba_inputs(inputs, on_batch=progress.update)
    say("[evaluate] training the linear baseline")
    baseline = baseline_proba(
        texts_of(train), train.column("label").to_pylist(), texts_of(test), len(manifest.labels)
    )  # fmt: skip
    rivals = {f"baseline_{name}": value for name, value in score(labels, baseline).items()}
    result = Evaluation(
        score(labels, probabilities) | rivals,
        manifest.labels,
        confusion(labels, probabilities.argmax(1), len(manifest.labels)),
    )
    _write(out, result, manifest, labels, probabilities, test.column("row").to_pylist())
    return result


def _write(
    out: Path,
    result: Evaluation,
    manifest: PreparedData,
    labels: np.ndarray,
    probabilities: np.ndarray,
    rows: list[int],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    predicted = probabilities.argmax(1)
    write_json(out / "metrics.json", result.__dict__)
    table = {"row": rows, "label": labels, "predicted": predicted, "probabilities": list(probabilities)}
    pq.write_table(pa.table(table), out / "predictions.parquet")
    draw_confusion(result.confusion, result.labels, out / "confusion_matrix.png")
    names = [name for name in result.metrics if not name.startswith("baseline_")]
    better = result.metrics["accuracy"] - result.metrics["baseline_accuracy"]
    facts = {
        "rows": len(labels),
        "verdict": f"Accuracy {result.metrics['accuracy']:.1%}, {_distance(better)} the linear baseline.",
        "scores": [(name, result.metrics[name], result.metrics[f"baseline_{name}"]) for name in names],
        "classes": per_class(labels, predicted, result.labels),
        "notes": manifest.notes,
        "base_model": manifest.model,
        "reading": reading(manifest),
        "sha256": manifest.sha256["all"],
    }
    write_page(out / "report.html", out / "confusion_matrix.png", facts)


def _distance(better: float) -> str:
    if better == 0:
        return "the same as"
    return f"{abs(better) * 100:.1f} points {'above' if better > 0 else 'below'}"


def evaluate_step(
    data: Artifact, model: Artifact, out: Artifact, page: Artifact, shown: Metrics, matrix: ClassificationMetrics
) -> None:
    """The KFP component's work: prepared data and a model in; evaluation, page and metrics out."""
    with step("evaluate", {}) as run:
        run.dataset(PreparedData.load(Path(data.path)))
        folder = Path(out.path)
        result = evaluate(Path(data.path), Path(model.path), folder)
        run.metrics(result.metrics)
        for name, value in result.metrics.items():
            shown.log_metric(name, value)
        matrix.log_confusion_matrix(result.labels, result.confusion)
        shutil.copyfile(folder / "report.html", page.path)
        for name in ("report.html", "confusion_matrix.png", "metrics.json", "predictions.parquet"):
            run.artifact(folder / name)
