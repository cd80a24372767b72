"""Intervals and tests that evaluation, the gate and comparisons share. numpy only, as is the image that registers.

Whatever is resampled is a table of counts, one for each distinct kind of row, and never the rows: a bootstrap is one
draw from a multinomial distribution, and an answer about 25,000 rows takes a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from math import hypot
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.95
ALPHA = (1 - LEVEL) / 2
RESAMPLES = 2000
Z = NormalDist().inv_cdf(1 - ALPHA)


class Estimate(NamedTuple):
    """A number and the ends of its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def wilson(right: Any, rows: Any) -> tuple[Any, Any]:
    """The score interval of a share (Wilson 1927); arrays or numbers; [0, 1] where there are no rows."""
    right, rows = np.asarray(right, float), np.asarray(rows, float)
    size = np.where(rows > 0, rows, 1.0)
    share = np.where(rows > 0, right / size, 0.5)
    centre = (share + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * np.sqrt(share * (1 - share) / size + Z**2 / (4 * size**2))
    low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
    return np.where((rows == 0) | (right == 0), 0.0, low), np.where((rows == 0) | (right == rows), 1.0, high)


def share(right: int, rows: int) -> Estimate:
    """A share of rows with its Wilson interval."""
    low, high = wilson(right, rows)
    return Estimate(right / rows if rows else 0.0, float(low), float(high))


def widened(found: Estimate, arm: float, least: float, most: float) -> Estimate:
    """An interval of two things that are independent, whose arms add as squares do.

    Args:
        found: the interval of the one.
        arm: of the other, to either side.
        least, most: where the interval ends at the latest.
    """
    value, low, high = found
    return Estimate(value, max(value - hypot(value - low, arm), least), min(value + hypot(high - value, arm), most))


def mean(values: np.ndarray) -> Estimate:
    """A mean, its interval corrected for skewness by a cubic transformation (Hall 1992); of costs it ends at 0.

    Args:
        values: [rows], such as the losses of texts; where none is below 0, none is taken to be possible.
    """
    values = np.asarray(values, float)
    centre, spread, root = values.mean(), values.std(), np.sqrt(len(values))
    skew = ((values - centre) ** 3).mean() / spread**3 if spread > 0 else 0.0
    ends = np.array([Z, -Z])
    if abs(skew) > 1e-6:
        ends = 3 * root / skew * (np.cbrt(1 + skew * (ends - skew / (6 * root)) / root) - 1)
    low, high = centre - spread / root * ends
    least = 0.0 if values.min() >= 0 else -np.inf
    return Estimate(float(centre), max(float(low), least), float(high))


def _log_factorials(top: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, top + 1)))])


def mcnemar(wins: Any, losses: Any) -> Any:
    """The exact one-sided p-value that a model with that many wins is no better: P(X >= wins | wins + losses, 1/2).

    Args:
        wins: rows that only this model has right; a number or an array.
        losses: rows that only the other has right.
    """
    wins, losses = np.broadcast_arrays(np.asarray(wins, int), np.asarray(losses, int))
    table = _log_factorials(int((wins + losses).max(initial=0)))

    def tail(won: int, lost: int) -> float:
        total = won + lost
        at = np.arange(won, total + 1)
        return min(float(np.exp(table[total] - table[at] - table[total - at] - total * np.log(2)).sum()), 1.0)

    found = np.array([tail(won, lost) for won, lost in zip(wins.flat, losses.flat, strict=True)])
    return float(found[0]) if wins.ndim == 0 else found.reshape(wins.shape)


def fisher_less(right: int, rows: int, right_of_rest: int, rest: int) -> float:
    """Fisher's exact one-sided p-value that a slice of rows is no worse than the rest."""
    table = _log_factorials(rows + rest)
    total = right + right_of_rest

    def choose(of: Any, some: Any) -> Any:
        return table[of] - table[some] - table[of - some]

    at = np.arange(max(0, total - rest), right + 1)
    return min(float(np.exp(choose(rows, at) + choose(rest, total - at) - choose(rows + rest, total)).sum()), 1.0)


def holm(p_values: Any) -> np.ndarray:
    """p-values corrected for the number of looks (Holm 1979), in the order given."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    found = np.empty_like(stepped)
    found[order] = np.minimum(stepped, 1.0)
    return found


def score_interval(wins: Any, losses: Any, rows: Any) -> tuple[Any, Any]:
    """The score interval of the difference of two paired shares, (wins - losses) / rows (Tango 1998).

    It stays honest where few rows differ: of 50 rows that two models answer alike, it is 7 points to either side.
    Arrays or numbers.
    """
    wins, losses, rows = np.broadcast_arrays(*(np.asarray(value, float) for value in (wins, losses, rows)))

    def excess(difference: np.ndarray) -> np.ndarray:
        linear = -wins - losses + (2 * rows - wins + losses) * difference
        constant = -losses * difference * (1 - difference)
        lost = (np.sqrt(np.maximum(linear**2 - 8 * rows * constant, 0)) - linear) / (4 * rows)
        variance = np.maximum(rows * (2 * lost + difference * (1 - difference)), 1e-300)
        return (wins - losses - rows * difference) / np.sqrt(variance)

    def end(wanted: float) -> np.ndarray:
        low, high = np.full(wins.shape, -1.0), np.full(wins.shape, 1.0)
        for _ in range(50):
            middle = (low + high) / 2
            above = excess(middle) > wanted
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return (low + high) / 2

    return end(Z), end(-Z)


def tabulate(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """The distinct rows of integer columns, and last how often each occurs, so that rows need not be resampled."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        low = column.min(initial=0)
        codes = codes * int(column.max(initial=0) - low + 1) + (column - low)
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    return (*(column[first] for column in columns), counts)


def bootstrap(counts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> list[Estimate]:
    """Statistics of a table of counts, with bias-corrected and accelerated bootstrap intervals (Efron 1987).

    Args:
        counts: [cells], how many rows there are of each kind.
        statistic: from [tables, cells] counts to [tables, statistics].
        seed: of the resamples, of which there are RESAMPLES.
    """
    rows = counts.sum()
    resampled = statistic(np.random.default_rng(seed).multinomial(rows, counts / rows, size=RESAMPLES))
    values = statistic(counts[None])[0]
    # The acceleration is found by leaving out one row of each kind.
    influence = statistic(counts[None] - np.eye(len(counts), dtype=counts.dtype))
    influence = counts @ influence / rows - influence
    cubes, squares = counts @ influence**3, counts @ influence**2
    bend = np.divide(cubes, 6 * squares**1.5, out=np.zeros_like(cubes), where=squares > 1e-18)
    below = (resampled < values).mean(0) + (resampled == values).mean(0) / 2
    normal = NormalDist()
    found = []
    for column, value, under, acceleration in zip(resampled.T, values, below, bend, strict=True):
        shift = normal.inv_cdf(min(max(float(under), 1 / RESAMPLES), 1 - 1 / RESAMPLES))
        moved = [shift + z for z in (-Z, Z)]
        at = [normal.cdf(shift + z / max(1 - float(acceleration) * z, 1e-9)) for z in moved]
        low, high = np.quantile(column, at)
        found.append(Estimate(float(value), float(low), float(high)))
    return found


def confusion(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts [true, answered]; an answer of -1, none, is counted nowhere."""
    told = answers >= 0
    return np.bincount(labels[told] * classes + answers[told], minlength=classes**2).reshape(classes, classes)


def _by_class(tables: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """Sums [tables, classes] of the cells [tables, cells] of each group; a group of -1 is left out."""
    order = np.argsort(groups, kind="stable")[np.count_nonzero(groups < 0) :]
    found = np.zeros((len(tables), classes))
    if len(order):
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        found[:, groups[order][starts]] = np.add.reduceat(tables[:, order], starts, axis=1)
    return found


class Counts(NamedTuple):
    """Of each class, [tables, classes]: rows of it, rows answered with it, and rows where both hold."""

    true: np.ndarray
    answered: np.ndarray
    both: np.ndarray

    @classmethod
    def of(cls, tables: np.ndarray, labels: np.ndarray, answers: np.ndarray, classes: int) -> Counts:
        """From counts [tables, cells] of cells with these labels and answers, [cells]."""
        right = np.where(labels == answers, labels, -1)
        return cls(*(_by_class(tables, groups, classes) for groups in (labels, answers, right)))

    def f1(self) -> np.ndarray:
        """F1 of each class, [tables, classes]; NaN for a class that neither occurs nor is answered."""
        with np.errstate(invalid="ignore"):
            return 2 * self.both / (self.true + self.answered)

    def macro_f1(self) -> np.ndarray:
        """Mean F1, [tables], over the classes that occur or are answered."""
        found = self.f1()
        return np.nansum(found, 1) / np.maximum((~np.isnan(found)).sum(1), 1)
