"""Two models on the same test rows: the paired difference, its intervals and its exact test.

Like tuneline.statistics, on which it stands, it counts kinds of rows and needs numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from tuneline.statistics import (
    ALPHA,
    RESAMPLES,
    Counts,
    Estimate,
    Z,
    bootstrap,
    mcnemar,
    score_interval,
    share,
    tabulate,
    widened,
)


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
        accuracy_bootstrap=difference,
        macro_f1_difference=widened(macro_difference, unseen_macro_f1(labels, counts), -1.0, 1.0),
        p_better=better, p_worse=worse, p_value=min(2 * min(better, worse), 1.0),
        p_better_macro_f1=randomized(labels, first, second, counts, classes, seed),
    )  # fmt: skip
