"""Several models on the same rows, each trained with several seeds: means over seeds, and what chance makes of them.

Rows are drawn again, the same for all models and seeds (a paired bootstrap), and what seeds make of a mean is Student's
t interval of theirs: a bootstrap of three seeds, which are never further apart than they were, would be too narrow. The
two are independent, so that their arms add as squares do. One seed tells nothing of others: an interval of rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import TYPE_CHECKING

from tuneline.statistics import ALPHA, Counts, Estimate, widened

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 2000
CHUNK_CELLS = 4_000_000
"""Rows times resamples that are in memory at once."""
Interval = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Resampled:
    """A share, such as accuracy, of each model: its value, and its values on the resamples.

    Attributes:
        value: [models], means over seeds.
        by_seed: [models, seeds].
        drawn: [models, resamples] of rows, means over seeds.
    """

    value: np.ndarray
    by_seed: np.ndarray
    drawn: np.ndarray

    def interval(self, model: int) -> Interval:
        """Value and 95% interval of a model."""
        return _interval(self.by_seed[model], self.drawn[model], ALPHA, 0.0)

    def difference(self, model: int, other: int, looks: int = 1) -> Interval:
        """The first minus the second, with an interval for so many looks at once (Bonferroni)."""
        by_seed, drawn = (values[model] - values[other] for values in (self.by_seed, self.drawn))
        return _interval(by_seed, drawn, ALPHA / looks, -1.0)


def _interval(by_seed: np.ndarray, drawn: np.ndarray, alpha: float, least: float) -> Interval:
    import numpy as np

    value, (low, high) = float(by_seed.mean()), np.quantile(drawn, [alpha, 1 - alpha]).tolist()
    of_rows = Estimate(value, min(low, value), max(high, value))
    return tuple(widened(of_rows, seeds_arm(by_seed.tolist(), alpha), least, 1.0))


def seeds_arm(values: Sequence[float], alpha: float = ALPHA) -> float:
    """Half of Student's t interval of the mean of a score over seeds; 0 of one seed, of which nothing is known.

    Args:
        values: by seed.
        alpha: what the interval leaves out at either end.
    """
    from scipy.special import stdtrit

    if len(values) < 2:
        return 0.0
    return float(stdtrit(len(values) - 1, 1 - alpha)) * stdev(values) / math.sqrt(len(values))


def _weights(sizes: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """How often each kind of row is drawn, [resamples, kinds], in chunks; the first of all is as they were found."""
    import numpy as np

    generator, left, first = np.random.default_rng(seed), RESAMPLES, True
    rows, size = int(sizes.sum()), max(1, CHUNK_CELLS // len(sizes))
    while left:
        take = min(size, left)
        drawn = generator.multinomial(rows, sizes / rows, size=take).astype(np.float32)
        yield np.concatenate([sizes[None].astype(np.float32), drawn]) if first else drawn
        left, first = left - take, False


def _resampled(values: np.ndarray) -> Resampled:
    """Of [models, seeds, 1 + resamples], where the first is of the rows as they were found."""
    return Resampled(values[:, :, 0].mean(1), values[:, :, 0], values[:, :, 1:].mean(1))


def of_answers(labels: np.ndarray, answers: np.ndarray, classes: int, seed: int = 0) -> dict[str, Resampled]:
    """accuracy, macro_f1, and recall of each class as recall_0 and so on.

    Args:
        labels: [rows].
        answers: [models, seeds, rows].
        classes: how many there are.
        seed: of the bootstrap.
    """
    import numpy as np

    models, seeds, rows = answers.shape
    # Rows that all models answer alike are one kind, of which there are fewer than rows.
    kinds, sizes = np.unique(np.vstack([labels, answers.reshape(-1, rows)]), axis=1, return_counts=True)
    labels, answers = kinds[0], kinds[1:].reshape(models, seeds, -1)
    found = np.zeros((2 + classes, models, seeds, 1 + RESAMPLES))
    at = 0
    for weights in _weights(sizes, seed):
        to = at + len(weights)
        for model in range(models):
            for which in range(seeds):
                counts = Counts.of(weights, labels, answers[model, which], classes)
                found[0, model, which, at:to] = counts.both.sum(1) / counts.true.sum(1)
                found[1, model, which, at:to] = counts.macro_f1()
                recall = counts.both / np.maximum(counts.true, 1)
                found[2:, model, which, at:to] = recall.T
        at = to
    names = ["accuracy", "macro_f1", *(f"recall_{index}" for index in range(classes))]
    return {name: _resampled(values) for name, values in zip(names, found, strict=True)}


def of_ranking(positive: np.ndarray, scores: np.ndarray, seed: int = 0) -> Resampled:
    """Average precision.

    Args:
        positive: bool [rows].
        scores: [models, seeds, rows], higher for rows more probably positive.
        seed: of the bootstrap.
    """
    import numpy as np

    models, seeds, rows = scores.shape
    found = np.zeros((models, seeds, 1 + RESAMPLES))
    orders = np.argsort(-scores, axis=2, kind="stable")
    at = 0
    for weights in _weights(np.ones(rows, int), seed):
        to = at + len(weights)
        for model in range(models):
            for which in range(seeds):
                order = orders[model, which]
                ranked = scores[model, which][order]
                found[model, which, at:to] = _average_precision(weights[:, order], ranked, positive[order])
        at = to
    return _resampled(found)


def _average_precision(taken: np.ndarray, ranked: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Of each resample's weights; rows of one score stand or fall together, as in evaluate.metrics.

    Args:
        taken: weights, [resamples, rows], in the order of the scores.
        ranked: the scores, from the highest, [rows].
        hit: whether a row is positive, bool [rows].
    """
    import numpy as np

    last = np.flatnonzero(np.diff(ranked, append=np.nan) != 0)  # of each run of equal scores
    hits = np.flatnonzero(hit)
    runs, first = np.unique(np.searchsorted(last, hits), return_index=True)  # those that hold positive rows
    ends = last[runs]
    starts = np.concatenate([[0], ends[:-1] + 1])  # the rows up to the end of each such run, after the one before
    found = np.add.reduceat(taken[:, hits], first, axis=1)
    above = np.add.reduceat(taken[:, : ends[-1] + 1], starts, axis=1).cumsum(1)
    precision = found.cumsum(1) / np.maximum(above, 1)
    return (precision * found).sum(1) / np.maximum(found.sum(1), 1)
