"""Numbers about predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def score(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """accuracy, macro_f1 (over classes that occur or are predicted) and log_loss (natural).

    Args:
        labels: [rows] class indices.
        probabilities: [rows, classes].
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score

    predicted = probabilities.argmax(1)
    right = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1.0)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "log_loss": float(-np.log(right).mean()),
    }


def per_class(labels: np.ndarray, predicted: np.ndarray, names: list[str]) -> list[dict[str, float | str]]:
    """label, n, precision, recall, f1 of each class."""
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    result = precision_recall_fscore_support(labels, predicted, labels=np.arange(len(names)), zero_division=0)
    return [
        {"label": name, "n": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
        for name, p, r, f, n in zip(names, *result, strict=True)
    ]


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> list[list[int]]:
    """Counts [true][predicted]."""
    import numpy as np

    matrix = np.zeros((classes, classes), dtype=int)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix.tolist()
