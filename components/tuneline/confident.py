"""Labels that look wrong, told by probabilities that did not see them: confident learning.

Northcutt, Jiang and Chuang 2021. A row is a candidate where another class is as probable as it is, on average, for the
rows that carry that class's label, and more probable than the row's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Suspects(NamedTuple):
    """What is thought of each row's label; arrays of one entry a row.

    Attributes:
        candidate: bool, whether the label looks wrong.
        suggested: int64, the class that fits better, or the most probable one where the label does not look wrong.
        scores: float64, from 0 (surely wrong) to 1: half of one plus the probability of the given label less that of
            the best other; 1 where nothing can be said.
    """

    candidate: np.ndarray
    suggested: np.ndarray
    scores: np.ndarray


def suspects(probabilities: np.ndarray, labels: np.ndarray, judged: np.ndarray | None = None) -> Suspects:
    """Find them.

    Args:
        probabilities: [rows, classes], calibrated, by a model that did not learn from these rows.
        labels: [rows] class indices, as given.
        judged: bool [rows], the rows whose probabilities say something; None for all.
    """
    import numpy as np

    every = np.arange(len(labels))
    judged = np.ones(len(labels), bool) if judged is None else judged
    given = probabilities[every, labels]
    thresholds = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(labels[judged]):
        thresholds[label] = given[judged & (labels == label)].mean()
    others = probabilities.copy()
    others[every, labels] = -1.0
    reached = np.where(others >= thresholds, others, -1.0)
    candidate = judged & (reached.max(1) > given)
    suggested = np.where(candidate, reached.argmax(1), probabilities.argmax(1))
    scores = np.where(judged, np.round((1 + given - others.max(1)) / 2, 6), 1.0)
    return Suspects(candidate, suggested, scores)
