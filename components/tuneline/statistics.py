"""Intervals and tests that evaluation, the gate and comparisons share. numpy only, as is the image that registers.

Whatever is resampled is a table of counts, one for each distinct kind of row, and never the rows: a bootstrap is one
draw from a multinomial distribution, and an answer about 25,000 rows takes a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


def unseen_macro_f1(labels: np.ndarray, counts: np.ndarray) -> float:
    """How far two macro F1 may be apart by rows that the test set happens to lack.

    Where few rows differ, the bootstrap resamples little else than rows that do not. Of the rarest class, the rows of
    which move macro F1 most, a share of its F1 may still be lost: the end of the score interval of n rows none of which
    differs (Tango's and Wilson's are one there), and of macro F1 that divided by the classes.

    Args:
        labels: [cells] true classes.
        counts: [cells] how often each occurs.
    """
    rows = np.bincount(labels, counts)
    rows = rows[rows > 0]
    return float(Z**2 / (rows.min() + Z**2) / len(rows))


def _widened(found: Estimate, unseen: float) -> Estimate:
    """The interval of what was seen and of what was not, which are independent: their arms add as squares do."""
    value, low, high = found
    low, high = value - np.hypot(value - low, unseen), value + np.hypot(high - value, unseen)
    return Estimate(value, max(float(low), -1.0), min(float(high), 1.0))


def randomized(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, counts: np.ndarray, classes: int, seed: int = 0
) -> float:
    """The one-sided p-value that the first's macro F1 is no better, by exchanging the answers of rows (Yeh 2000).

    Of accuracy this test is McNemar's. The arguments are those of compare_counts.
    """
    differ = np.flatnonzero(first != second)
    exchanged = np.random.default_rng(seed).binomial(counts[differ], 0.5, size=(RESAMPLES, len(differ)))
    exchanged = np.concatenate([np.zeros_like(exchanged[:1]), exchanged])  # first of all, the answers as they are
    tables = np.concatenate([np.tile(counts, (len(exchanged), 1)), exchanged], 1)
    tables[:, differ] -= exchanged
    labels = np.concatenate([labels, labels[differ]])
    one = Counts.of(tables, labels, np.concatenate([first, second[differ]]), classes).macro_f1()
    two = Counts.of(tables, labels, np.concatenate([second, first[differ]]), classes).macro_f1()
    return float((one - two >= one[0] - two[0] - 1e-12).mean())


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows, differences the first minus the second.

    Attributes:
        rows: how many.
        wins: rows that only the first has right.
        losses: rows that only the second has right.
        accuracy: of each, Wilson intervals.
        macro_f1: of each, bootstrap intervals.
        accuracy_difference: score interval (Tango 1998).
        accuracy_bootstrap: the same by the paired bootstrap.
        macro_f1_difference: by the paired bootstrap, and by what so few rows cannot show (unseen_macro_f1).
        p_better: exact one-sided McNemar p-value that the first is no better.
        p_worse: that it is no worse.
        p_value: two-sided.
        p_better_macro_f1: randomization p-value that the first's macro F1 is no better (randomized).
    """

    rows: int
    wins: int
    losses: int
    accuracy: tuple[Estimate, Estimate]
    macro_f1: tuple[Estimate, Estimate]
    accuracy_difference: Estimate
    accuracy_bootstrap: Estimate
    macro_f1_difference: Estimate
    p_better: float
    p_worse: float
    p_value: float
    p_better_macro_f1: float

    @classmethod
    def load(cls, stored: dict[str, Any]) -> Comparison:
        """From what JSON has kept of it."""

        def estimates(value: Any) -> Any:
            if not isinstance(value, list):
                return value
            return tuple(map(estimates, value)) if isinstance(value[0], list) else Estimate(*value)

        return cls(**{name: estimates(value) for name, value in stored.items()})

    def difference(self, metric: str = "accuracy") -> Estimate:
        """The difference with the interval that decides: of accuracy as far as either of the two intervals goes."""
        if metric == "macro_f1":
            return self.macro_f1_difference
        one, two = self.accuracy_difference, self.accuracy_bootstrap
        return Estimate(one.value, min(one.low, two.low), max(one.high, two.high))

    def better(self, metric: str = "accuracy") -> bool:
        """Whether the first is better beyond chance: both the test and the interval say so.

        A model that is no better passes in at most ALPHA of all cases.
        """
        p = self.p_better_macro_f1 if metric == "macro_f1" else self.p_better
        return p <= ALPHA and self.difference(metric).low > 0

    def worse(self) -> bool:
        """Whether the second is more often right beyond chance."""
        return self.p_worse <= ALPHA and self.difference().high < 0

    def not_worse(self, margin: float, metric: str = "accuracy") -> bool:
        """Whether the first is shown to be less than `margin` below the second."""
        return self.difference(metric).low > -margin

    def needed(self, margin: float) -> int:
        """Rows that would show, in four of five tries, that an equally good model is at most `margin` below."""
        unequal = max(self.wins + self.losses, 1) / self.rows
        return int(np.ceil(unequal * ((Z + NormalDist().inv_cdf(0.8)) / margin) ** 2))


def compare(labels: np.ndarray, first: np.ndarray, second: np.ndarray, classes: int, seed: int = 0) -> Comparison:
    """Compare the answers of two models on the same rows.

    Args:
        labels: [rows] true classes.
        first: [rows] answered classes, -1 for none.
        second: the same of the other model.
        classes: how many there are.
        seed: of the bootstrap.
    """
    return compare_counts(*tabulate(labels, first, second), classes=classes, seed=seed)


def compare_counts(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, counts: np.ndarray, classes: int, seed: int = 0
) -> Comparison:
    """The same from the distinct kinds of rows, [cells], and how often each occurs (tabulate)."""
    win, loss = (first == labels) & (second != labels), (first != labels) & (second == labels)
    rows, wins, losses = int(counts.sum()), int(counts @ win), int(counts @ loss)

    def statistics(tables: np.ndarray) -> np.ndarray:
        one, two = (Counts.of(tables, labels, answers, classes).macro_f1() for answers in (first, second))
        return np.stack([one, two, one - two, tables @ (win.astype(float) - loss) / rows], 1)

    macro, other_macro, macro_difference, difference = bootstrap(counts, statistics, seed)
    low, high = score_interval(wins, losses, rows)
    better, worse = mcnemar(wins, losses), mcnemar(losses, wins)
    return Comparison(
        rows, wins, losses,
        accuracy=(share(int(counts @ (first == labels)), rows), share(int(counts @ (second == labels)), rows)),
        macro_f1=(macro, other_macro),
        accuracy_difference=Estimate((wins - losses) / rows, float(low), float(high)),
        accuracy_bootstrap=difference, macro_f1_difference=_widened(macro_difference, unseen_macro_f1(labels, counts)),
        p_better=better, p_worse=worse, p_value=min(2 * min(better, worse), 1.0),
        p_better_macro_f1=randomized(labels, first, second, counts, classes, seed),
    )  # fmt: skip
