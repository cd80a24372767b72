"""Models drawn by chance whose true accuracy is known: what tests and the benchmark hold the statistics against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tuneline.comparison import Comparison, compare_counts
from tuneline.statistics import ALPHA, Counts, mcnemar, score_interval, wilson

PAIRS = 1000


@dataclass(frozen=True)
class World:
    """The truth about two models: how probable each kind of row is, so that every figure of theirs is known.

    Attributes:
        labels, first, second: [cells] the true class and both answers of each kind of row.
        chances: [cells] its probability.
        classes: how many there are.
    """

    labels: np.ndarray
    first: np.ndarray
    second: np.ndarray
    chances: np.ndarray
    classes: int

    @property
    def wins(self) -> np.ndarray:
        """Kinds of rows that only the first has right, as numbers."""
        return ((self.first == self.labels) & (self.second != self.labels)).astype(int)

    @property
    def losses(self) -> np.ndarray:
        """Kinds of rows that only the second has right."""
        return ((self.first != self.labels) & (self.second == self.labels)).astype(int)

    @property
    def difference(self) -> float:
        """The first's true accuracy minus the second's."""
        return float(self.chances @ (self.wins - self.losses))

    @property
    def accuracy(self) -> float:
        """The first's true accuracy."""
        return float(self.chances @ (self.first == self.labels))

    @property
    def macro_f1(self) -> float:
        """The first's true macro F1."""
        return self.macro_f1_of(self.first)

    def macro_f1_of(self, answers: np.ndarray) -> float:
        """The true macro F1 of `first` or `second`."""
        return float(Counts.of(self.chances[None], self.labels, answers, self.classes).macro_f1()[0])

    def draw(self, rows: int, pairs: int = PAIRS, seed: int = 0) -> np.ndarray:
        """Counts [pairs, cells] of test sets of that many rows."""
        return np.random.default_rng(seed).multinomial(rows, self.chances, size=pairs)


def world(first: float, second: float, unequal: float, classes: int = 2, seed: int = 0) -> World:
    """Two models of these accuracies, of which exactly one is right in a share `unequal` of the rows.

    Classes are of different size and difficulty; an error goes to one of up to four other classes.
    """
    draw = np.random.default_rng(seed)
    prior = draw.dirichlet(np.full(classes, 20.0))
    hard = draw.uniform(0.5, 1.5, classes)
    hard /= prior @ hard
    only_first, only_second = (unequal + first - second) / 2, (unequal + second - first) / 2
    neither = 1 - first - only_second
    cells: dict[tuple[int, int, int], float] = {}
    for label in range(classes):
        wrong = draw.choice(np.delete(np.arange(classes), label), min(4, classes - 1), replace=False)
        to = draw.dirichlet(np.ones(len(wrong)))
        chance = prior[label] * hard[label]
        cells[label, label, label] = prior[label] - chance * (only_first + only_second + neither)
        for place, share in zip(wrong.tolist(), to, strict=True):
            cells[label, label, place] = chance * only_first * share
            cells[label, place, label] = chance * only_second * share
            cells[label, place, place] = chance * neither * share
    labels, one, two = np.array(list(cells)).T
    return World(labels, one, two, np.array(list(cells.values())), classes)


def below(prior: np.ndarray, only_second: float, only_first: float = 0.0, neither: float = 0.1) -> World:
    """Two models of which, in every class alike, one alone is right in these shares of the rows.

    Args:
        prior: [classes] how frequent each class is.
        only_second, only_first: shares of the rows that one of them has right and the other not.
        neither: share of the rows that both have wrong.
    """
    classes, cells = len(prior), {}
    for label, chance in enumerate(prior.tolist()):
        cells[label, label, label] = chance * (1 - only_second - only_first - neither)
        for wrong in np.delete(np.arange(classes), label).tolist():
            share = chance / (classes - 1)
            cells[label, label, wrong] = share * only_first
            cells[label, wrong, label] = share * only_second
            cells[label, wrong, wrong] = share * neither
    labels, first, second = np.array(list(cells)).T
    return World(labels, first, second, np.array(list(cells.values())), classes)


def compared(truth: World, rows: int, pairs: int, seed: int = 0) -> list[Comparison]:
    """Comparisons on that many test sets, each resampled with a seed of its own."""
    found = []
    for number, counts in enumerate(truth.draw(rows, pairs, seed)):
        held = counts > 0
        cells = truth.labels[held], truth.first[held], truth.second[held], counts[held]
        found.append(compare_counts(*cells, classes=truth.classes, seed=number))
    return found


def declared_better(truth: World, rows: int, pairs: int = PAIRS, seed: int = 0) -> float:
    """Share of test sets on which the gate's rule calls the first model better."""
    drawn = truth.draw(rows, pairs, seed)
    passed = mcnemar(drawn @ truth.wins, drawn @ truth.losses) <= ALPHA  # the rest is refused by the rule's first half
    return sum(_better(truth, counts) for counts in drawn[passed]) / pairs


def _better(truth: World, counts: np.ndarray) -> bool:
    held = counts > 0
    cells = truth.labels[held], truth.first[held], truth.second[held], counts[held]
    return compare_counts(*cells, classes=truth.classes).better()


class Coverage(NamedTuple):
    """Shares of test sets whose 95% interval holds the truth."""

    accuracy: float
    macro_f1: float
    difference: float
    difference_bootstrap: float


def coverage(truth: World, rows: int, pairs: int = PAIRS, seed: int = 0) -> Coverage:
    """How often the intervals of the first model's accuracy and macro F1, and of the paired difference, are right."""
    drawn = truth.draw(rows, pairs, seed)
    accuracy = wilson(drawn @ (truth.first == truth.labels), rows)
    difference = score_interval(drawn @ truth.wins, drawn @ truth.losses, rows)
    macro, bootstrapped = np.array(list(_bootstrapped(truth, drawn))).mean(0)
    return Coverage(
        accuracy=_share(accuracy, truth.accuracy),
        macro_f1=float(macro),
        difference=_share(difference, truth.difference),
        difference_bootstrap=float(bootstrapped),
    )


def _share(interval: tuple[np.ndarray, np.ndarray], truth: float) -> float:
    low, high = interval
    return float(((low <= truth) & (truth <= high)).mean())


def _bootstrapped(truth: World, drawn: np.ndarray) -> Iterator[tuple[bool, bool]]:
    for seed, counts in enumerate(drawn):  # one seed for all would let the same luck of the resamples count each time
        held = counts > 0
        cells = truth.labels[held], truth.first[held], truth.second[held], counts[held]
        found = compare_counts(*cells, classes=truth.classes, seed=seed)
        macro, difference = found.macro_f1[0], found.accuracy_bootstrap
        yield macro.low <= truth.macro_f1 <= macro.high, difference.low <= truth.difference <= difference.high
