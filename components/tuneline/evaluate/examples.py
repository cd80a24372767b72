"""Test texts for a person to read: labels that look wrong, and the errors of which the model was most sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuneline.confident import suspects
from tuneline.evaluate.findings import TestSet
from tuneline.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np

MOST = 20
SHOWN = 400
"""Characters of a text that a table shows."""


def doubtful(test: TestSet, rows: Predictions, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """The test texts whose label looks most wrong to the model, which has not learned from them.

    Each has text, label, answer (what fits better), chance (of the label), confidence (of the answer), and baseline:
    what the linear baseline answers, which errs for reasons of its own.
    """
    import numpy as np

    found = suspects(probabilities, test.labels)
    order = np.lexsort((np.arange(len(test.labels)), found.scores, ~found.candidate))[:MOST]
    return [
        _row(test, row, int(found.suggested[row]), probabilities)
        | {"row": row, "chance": float(rows.chance[row]), "baseline": test.names[rows.baseline[row]]}
        for row in order.tolist()
        if found.candidate[row]
    ]


def errors(test: TestSet, rows: Predictions, probabilities: np.ndarray, but: set[int]) -> list[dict[str, Any]]:
    """The errors of which the model was most sure, by the probability of its answer; none where it gave none.

    Args:
        test: the rows.
        rows: what was answered.
        probabilities: [rows, classes] of the model.
        but: rows to leave out, because they are shown elsewhere.
    """
    import numpy as np

    confidence = probabilities[np.arange(len(rows.answers)), rows.answers]
    wrong = np.flatnonzero((rows.answers != test.labels) & (rows.answers >= 0))
    order = [row for row in wrong[np.argsort(-confidence[wrong], kind="stable")].tolist() if row not in but]
    return [_row(test, row, int(rows.answers[row]), probabilities) for row in order[:MOST]]


def _row(test: TestSet, row: int, answer: int, probabilities: np.ndarray) -> dict[str, Any]:
    text = test.texts[row] if test.pairs is None else f"{test.texts[row]} ‖ {test.pairs[row]}"
    return {
        "text": text if len(text) <= SHOWN else text[:SHOWN] + "…",
        "label": test.names[test.labels[row]],
        "answer": test.names[answer],
        "confidence": float(probabilities[row, answer]),
    }
