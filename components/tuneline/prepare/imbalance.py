"""What unequal classes ask of training: weights of the loss, or a plan of drawing rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """Rows drawn with replacement, as many an epoch as there are, so that every class is drawn equally often.

    Attributes:
        draws: expected draws of each class in an epoch.
        repeats: expected draws of one row of each class in an epoch; far above ten, it is learnt by heart.
    """

    draws: list[float]
    repeats: list[float]


@dataclass(frozen=True)
class Plan:
    """Numbers in the order of the labels; a class without rows has zeros. `dataclasses.asdict` of it is JSON-ready.

    Attributes:
        class_weights: weight of a row's loss; 1 on average over the rows, so that the learning rate keeps its meaning.
        sampling: the plan that does by drawing what the weights do in the loss; take one of them, not both.
    """

    class_weights: list[float]
    sampling: Sampling


def plan(counts: Sequence[int]) -> Plan:
    """Weights and a sampling plan that count every class alike.

    The weights are rows / (classes * rows of the class) (King and Zeng 2001), over the classes that have rows.

    Args:
        counts: training rows of each class, at least one in all.
    """
    rows = sum(counts)
    present = [count for count in counts if count]
    weights = [rows / (len(present) * count) if count else 0.0 for count in counts]
    sampling = Sampling(
        draws=[rows / len(present) if count else 0.0 for count in counts],
        repeats=weights,
    )
    return Plan(weights, sampling)
