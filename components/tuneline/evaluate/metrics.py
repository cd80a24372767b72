"""Numbers about predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def _sklearn() -> Any:
    """scikit-learn's metrics, untyped: it declares zero_division as text, though it takes numbers."""
    from sklearn import metrics

    return metrics


def score(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """accuracy, macro_f1 (over classes that occur or are predicted) and log_loss (natural).

    Args:
        labels: [rows] class indices.
        probabilities: [rows, classes].
    """
    import numpy as np

    predicted = probabilities.argmax(1)
    right = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1.0)
    return {
        "accuracy": float(_sklearn().accuracy_score(labels, predicted)),
        "macro_f1": float(_sklearn().f1_score(labels, predicted, average="macro", zero_division=0)),
        "log_loss": float(-np.log(right).mean()),
    }


def per_class(labels: np.ndarray, predicted: np.ndarray, names: list[str]) -> list[dict[str, float | str]]:
    """label, n, precision, recall, f1 of each class."""
    columns = _sklearn().precision_recall_fscore_support(
        labels, predicted, labels=list(range(len(names))), zero_division=0
    )
    return [
        {"label": name, "n": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
        for name, p, r, f, n in zip(names, *columns, strict=True)
    ]


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> list[list[int]]:
    """Counts [true][predicted]."""
    return _sklearn().confusion_matrix(labels, predicted, labels=list(range(classes))).tolist()
