"""How much a checkpoint's frozen embeddings tell of the labels: LogME, and a logistic head. numpy and scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ROUNDS = 20
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Of the head's regularization (C), of which a fifth of the training rows chooses one."""


def logme(features: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Logarithm of maximum evidence (You et al. 2021): higher where a linear model of the features explains the labels.

    The evidence of a Bayesian linear regression of each class's indicator, a row on average, its two variances found
    by fixed-point iteration; the mean over the classes that occur.

    Args:
        features: [rows, width].
        labels: [rows] class indices.
        classes: how many there are.
    """
    import numpy as np

    features = features.astype(np.float64)
    features = features - features.mean(0)
    rows, width = features.shape
    left, sizes, _ = np.linalg.svd(features, full_matrices=False)
    squares = sizes**2
    found = []
    for index in range(classes):
        target = (labels == index).astype(np.float64)
        if 0 < target.sum() < rows:
            found.append(_evidence(left.T @ (target - target.mean()), target - target.mean(), squares, rows, width))
    return float(np.mean(found)) if found else 0.0


def _evidence(along: np.ndarray, target: np.ndarray, squares: np.ndarray, rows: int, width: int) -> float:
    """The log evidence a row; `along` is the target in the directions of the features' left singular vectors."""
    import numpy as np

    total = float(target @ target)
    prior, noise = 1.0, 1.0
    for _ in range(ROUNDS):
        before = prior / noise
        shrunk = noise * squares / (prior + noise * squares)
        weights = float((noise**2 * squares * along**2 / (prior + noise * squares) ** 2).sum())
        residual = max(total - float((along**2 * (1 - (1 - shrunk) ** 2)).sum()), 1e-12)
        gamma = float(shrunk.sum())
        prior, noise = gamma / max(weights, 1e-12), max(rows - gamma, 1e-6) / residual
        if abs(prior / noise - before) < 1e-3 * before:
            break
    weights = float((noise**2 * squares * along**2 / (prior + noise * squares) ** 2).sum())
    shrunk = noise * squares / (prior + noise * squares)
    residual = max(total - float((along**2 * (1 - (1 - shrunk) ** 2)).sum()), 1e-12)
    spread = float(np.log(prior + noise * squares).sum()) + (width - len(squares)) * np.log(prior)
    evidence = width / 2 * np.log(prior) + rows / 2 * np.log(noise) - noise / 2 * residual - prior / 2 * weights
    return float((evidence - spread / 2 - rows / 2 * np.log(2 * np.pi)) / rows)


def head_proba(train: np.ndarray, labels: np.ndarray, held: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of a logistic regression on standardized embeddings, [rows of held, classes].

    Args:
        train: [rows, width] embeddings of training texts.
        labels: [rows] their class indices.
        held: embeddings of the texts to answer.
        classes: how many there are.
    """
    import numpy as np

    scale = train.std(0) + 1e-9
    train, held = (train - train.mean(0)) / scale, (held - train.mean(0)) / scale
    last = len(train) - max(1, len(train) // 5)
    best = STRENGTHS[1]
    if len(np.unique(labels[:last])) > 1:
        losses = {}
        for strength in STRENGTHS:
            chances = _fit(train[:last], labels[:last], train[last:], classes, strength)
            losses[strength] = -np.log(np.clip(chances[np.arange(len(labels) - last), labels[last:]], 1e-6, 1)).mean()
        best = min(losses, key=lambda strength: float(losses[strength]))
    return _fit(train, labels, held, classes, best)


def _fit(train: np.ndarray, labels: np.ndarray, held: np.ndarray, classes: int, strength: float) -> np.ndarray:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    found = np.zeros((len(held), classes))
    if (known := np.unique(labels)).size == 1:  # which the regression refuses
        found[:, known] = 1.0
        return found
    model = LogisticRegression(C=strength, max_iter=300).fit(train, labels)
    found[:, model.classes_] = model.predict_proba(held)
    return found
