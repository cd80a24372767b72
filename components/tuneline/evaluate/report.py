"""The evaluation as one self-contained page: the verdict first, then what it rests on."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import PreparedData
from tuneline.comparison import Comparison
from tuneline.evaluate import examples, figures, matrix, words
from tuneline.evaluate.findings import Evaluation, TestSet
from tuneline.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np

MOST_CONFUSIONS, MOST_SLICES, MOST_CURVES, MOST_CLASSES = 20, 25, 5, 30
POINTS = 200
COLOURS = {"model": figures.MODEL, "baseline": figures.BASELINE, "champion": figures.CHAMPION}
SHARES = {
    "accuracy", "macro_f1", "micro_f1", "weighted_f1", "calibration_error", "roc_auc", "average_precision", "coverage",
    "answered_accuracy",
}  # fmt: skip
"""Metrics between 0 and 1."""
FEW = 4
"""Classes whose matrix says all of their confusions at a glance."""


def write_page(
    path: Path, picture: Path, result: Evaluation, manifest: PreparedData, test: TestSet, rows: Predictions,
    probabilities: np.ndarray,
) -> None:  # fmt: skip
    """Render the page; every value is escaped.

    Args:
        path: where to.
        picture: the confusion matrix of all classes, shown where the drawing leaves some out.
        result: what was found.
        manifest: of the data.
        test: the rows.
        rows: what was answered.
        probabilities: [rows, classes] of the model.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["bar"] = figures.interval
    environment.globals["metric"] = words.metric
    template = environment.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    facts = {
        "result": result,
        "manifest": manifest,
        "verdict": words.verdict(result),
        "kind": words.kind(result),
        "probes": words.PROBES,
        "colours": COLOURS,
        "champion": words.against_champion(result.champion),
        "decision": words.decision(result.decision, result.estimates["model"]),
        "silent": words.silent(result),
        "calibration": words.calibration(result.reliability),
        "reading": words.reading(manifest),
        "scores": _scores(result),
        "rivals": _rivals(result),
        "classes": _classes(result),
        "flagged": [row for row in result.slices if row["worse"]],
        "slices": _slices(result),
        "confusions": _confusions(result),
    }
    facts |= _drawings(picture, result, test, probabilities)
    facts["doubtful"] = examples.doubtful(test, rows, probabilities)
    facts["errors"] = examples.errors(test, rows, probabilities, {one["row"] for one in facts["doubtful"]})
    path.write_text(template.render(**facts), encoding="utf-8")


def _drawings(picture: Path, result: Evaluation, test: TestSet, probabilities: np.ndarray) -> dict[str, Any]:
    import numpy as np

    curves = _curves(test, probabilities, result)
    drawn = matrix.shown(result.confusion)
    texts = np.bincount(test.labels, minlength=len(test.names)).tolist()
    return {
        "matrix": matrix.drawing(result.confusion, result.labels, texts, drawn) if drawn else "",
        "drawn": len(drawn),
        "picture": base64.b64encode(picture.read_bytes()).decode() if len(drawn) < len(result.labels) else "",
        "reliability": figures.reliability(result.reliability, result.decision.get("abstain_below", 0.0)),
        "curves": figures.precision_recall([points for _, points in curves]),
        "curve_names": list(zip([name for name, _ in curves], figures.COLOURS, strict=False)),
    }


def _scores(result: Evaluation) -> list[dict[str, Any]]:
    """A row a metric: its name, value and interval of the model, of the baseline and of the champion, and a drawing.

    For one label a text, micro F1 is the accuracy: it is left out where they are equal.
    """
    model, baseline = result.estimates["model"], result.estimates["baseline"]
    champion: dict[str, list[float]] = {}
    if found := result.champion.get("compared"):
        champion = {name: found[name][1] for name in ("accuracy", "macro_f1")}
        champion["log_loss"] = [result.champion["log_loss"]]
    found = []
    for name, of in model.items():
        row = {"name": name, "model": of, "baseline": baseline.get(name), "champion": champion.get(name)}
        shares = [(row[who], colour) for who, colour in COLOURS.items() if row[who] and len(row[who]) == 3]
        row["strip"] = figures.strip(shares) if name in SHARES else ""
        if name != "micro_f1" or of[0] != model["accuracy"][0]:
            found.append(row)
    return found


def _rivals(result: Evaluation) -> list[dict[str, Any]]:
    """What the model was compared with: name, and comparison.Comparison, of accuracy the interval that decides."""
    found = {"the linear baseline": result.against_baseline}
    if compared := result.champion.get("compared"):
        found[f"the champion {result.champion['name']}/{result.champion['version']}"] = compared
    return [
        {"name": name} | of | {"accuracy_difference": Comparison.load(of).difference()} for name, of in found.items()
    ]


def _slices(result: Evaluation) -> list[dict[str, Any]]:
    """The worse ones, then those that are no label, which the classes have a table for, then the most suspicious."""
    first = [row for row in result.slices if row["worse"]]
    others = [row for row in result.slices if not row["worse"]]
    others.sort(key=lambda row: row["name"].startswith("label: "))  # a stable sort: the most suspicious first
    return (first + others)[:MOST_SLICES]


def _classes(result: Evaluation) -> list[dict[str, Any]]:
    """All classes, or where there are many those of the lowest F1 that the test set has."""
    if len(result.classes) <= MOST_CLASSES:
        return result.classes
    occurring = [row for row in result.classes if row["n"]]
    return sorted(occurring, key=lambda row: row["f1"])[:MOST_CLASSES]


def _confusions(result: Evaluation) -> list[tuple[str, str, int, int]]:
    """true, answered, how often, rows of the true class: the most frequent first."""
    texts = {row["label"]: row["n"] for row in result.classes}
    found = [
        (result.labels[true], result.labels[answered], count, texts[result.labels[true]])
        for true, row in enumerate(result.confusion)
        for answered, count in enumerate(row)
        if true != answered and count and len(result.labels) > FEW
    ]
    return sorted(found, key=lambda entry: -entry[2])[:MOST_CONFUSIONS]


def _curves(
    test: TestSet, probabilities: np.ndarray, result: Evaluation
) -> list[tuple[str, tuple[list[float], list[float]]]]:
    """Recall and precision of the classes of the lowest F1, five at most."""
    import numpy as np

    occurring = [index for index, row in enumerate(result.classes) if row["n"]]
    worst = sorted(occurring, key=lambda index: result.classes[index]["f1"])[:MOST_CURVES]
    found = []
    for index in worst:
        hits = np.flatnonzero((test.labels == index)[np.argsort(-probabilities[:, index], kind="stable")])
        taken = np.unique(np.linspace(0, len(hits) - 1, POINTS).astype(int))  # of a rare class each of its texts
        right = taken + 1
        found.append((test.names[index], ((right / len(hits)).tolist(), (right / (hits[taken] + 1)).tolist())))
    return found
