"""Thresholds of labels, fitted on the validation split; calibration.decide says how they make an answer.

A threshold at a time is moved to where the metric is highest. Only the answers that are, or become, this class change
with it: of each row the class's nearest rival is kept, and what is counted anew is the rows that pass from one to the
other. A thousand classes and ten thousand rows take half a minute; deciding about all rows for each candidate, hours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneline.statistics import Counts, tabulate

if TYPE_CHECKING:
    import numpy as np

SMALLEST = 1e-12
ROUNDS = 3
STEPS = 64


def fit_thresholds(probabilities: np.ndarray, labels: np.ndarray, metric: str = "macro_f1") -> np.ndarray:
    """Thresholds, [classes] with mean 1 / classes, of the highest metric, found class by class.

    Args:
        probabilities: [rows, classes] of validation rows.
        labels: [rows] class indices.
        metric: macro_f1 or accuracy.
    """
    import numpy as np

    classes, reach = probabilities.shape[1], _accuracy if metric == "accuracy" else Counts.macro_f1
    thresholds = np.ones(classes)
    rivals = _Rivals(probabilities / thresholds)
    best = float(reach(_counts_of(labels, probabilities.argmax(1), classes))[0])
    for _ in range(ROUNDS):
        before = best
        for index in range(classes):
            others, nearest = rivals.of(index)
            candidates = _crossings(probabilities[:, index], nearest)
            answered = _answered(probabilities[:, index], candidates, nearest, index < others)
            taken = None
            reached = reach(_counts(labels, others, answered, index, classes))
            for candidate, value in zip(candidates, reached.tolist(), strict=False):
                if value > best + 1e-12:
                    taken, best = candidate, value
            if taken is not None:
                thresholds[index] = taken
                rivals.change(index, probabilities[:, index] / taken)
        if best == before:
            break
    return thresholds / thresholds.sum()


class _Rivals:
    """Of each row the two classes that exceed their thresholds most, so that one class may change at a time."""

    def __init__(self, ratios: np.ndarray) -> None:
        import numpy as np

        self.ratios = ratios  # [rows, classes]
        self.order, self.values = np.empty((2, len(ratios)), int), np.empty((2, len(ratios)))
        self._rank(np.arange(len(ratios)))

    def of(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each row the class that is answered if not this one, and its ratio; of equals the first."""
        import numpy as np

        place = (self.order[0] == index).astype(int)
        rows = np.arange(len(self.ratios))
        return self.order[place, rows], self.values[place, rows]

    def change(self, index: int, ratios: np.ndarray) -> None:
        """Give a class other ratios, [rows]."""
        import numpy as np

        self.ratios[:, index] = ratios
        self._rank(np.flatnonzero((self.order == index).any(0) | (ratios >= self.values[1])))

    def _rank(self, rows: np.ndarray) -> None:
        import numpy as np

        left = self.ratios[rows]
        for place in range(2):
            self.order[place, rows] = found = left.argmax(1)
            self.values[place, rows] = left[np.arange(len(rows)), found]
            left[np.arange(len(rows)), found] = -1.0


def _crossings(chance: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Thresholds of a class between which its answers change, ascending, at most 64 of them, spread over the rows."""
    import numpy as np

    ratios = np.unique(chance / np.maximum(nearest, SMALLEST))
    ratios = ratios[(ratios > 0.05) & (ratios < 20)]
    between = np.sqrt(ratios[1:] * ratios[:-1])
    return between[np.unique(np.linspace(0, len(between) - 1, STEPS).astype(int))] if len(between) else between


def _answered(chance: np.ndarray, candidates: np.ndarray, nearest: np.ndarray, first: np.ndarray) -> np.ndarray:
    """With how many of the ascending thresholds each row is answered with the class, [rows], by bisection.

    Args:
        chance: [rows] the class's probability.
        candidates: the thresholds.
        nearest: [rows] the ratio that has to be exceeded.
        first: [rows] whether to equal it is enough.
    """
    import numpy as np

    low, high = np.zeros(len(chance), int), np.full(len(chance), len(candidates))
    for _ in range(len(candidates).bit_length()):
        middle = (low + high) // 2
        ratio = chance / candidates[np.minimum(middle, len(candidates) - 1)]
        beyond = (middle < high) & ((ratio > nearest) | ((ratio == nearest) & first))
        low, high = np.where(beyond, middle + 1, low), np.where(beyond, high, middle)
    return low


def _counts(labels: np.ndarray, others: np.ndarray, answered: np.ndarray, index: int, classes: int) -> Counts:
    """What each of the candidates makes of the rows, [candidates + 1, classes]; the last one answers none with it.

    Args:
        labels: [rows] true classes.
        others: [rows] what is answered where not this class.
        answered: [rows] how many candidates answer with it, the first ones.
        index: the class.
        classes: how many there are.
    """
    import numpy as np

    steps = int(answered.max(initial=0)) + 1

    def count(rows: np.ndarray) -> np.ndarray:
        """Rows of each other class from each candidate on that does not answer with this one."""
        table = np.bincount(answered[rows] * classes + others[rows], minlength=steps * classes)
        return table.reshape(steps, classes).cumsum(0).astype(float)

    def of_index(rows: np.ndarray) -> np.ndarray:
        return rows.sum() - np.bincount(answered[rows], minlength=steps).cumsum()

    told, both = count(np.full(len(labels), True)), count(others == labels)
    told[:, index], both[:, index] = of_index(np.full(len(labels), True)), of_index(labels == index)
    true = np.bincount(labels, minlength=classes).astype(float)
    return Counts(np.tile(true, (steps, 1)), told, both)


def _counts_of(labels: np.ndarray, answers: np.ndarray, classes: int) -> Counts:
    true, answered, counts = tabulate(labels, answers)
    return Counts.of(counts[None], true, answered, classes)


def _accuracy(counts: Counts) -> np.ndarray:
    return counts.both.sum(1) / counts.true.sum(1)
