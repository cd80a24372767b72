"""Which texts make an optimizer step, and in which order; in a balanced epoch, which texts at all."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Sequence

BUCKET_BATCHES = 20


def epoch_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int, rows: Sequence[int] | None = None
) -> list[list[int]]:
    """Indices of each batch of one epoch: shuffled, then grouped by length within stretches of 20 batches.

    Grouping keeps padding low, for a model that pads, while the order of batches stays random. Deterministic in seed
    and epoch.

    Args:
        lengths: tokens of each text.
        batch_size: texts a batch; the last one may hold fewer.
        seed: the run's seed.
        epoch: from 0.
        rows: the epoch's texts; None takes each once.
    """
    draw = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)) if rows is None else rows)
    draw.shuffle(order)
    stretch = batch_size * BUCKET_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), stretch):
        part = sorted(order[start : start + stretch], key=lambda index: lengths[index])
        batches += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
    draw.shuffle(batches)
    return batches


def balanced(labels: Sequence[int], weights: Sequence[float] | None, seed: int, epoch: int) -> list[int]:
    """Indices of an epoch's rows, as many as there are rows, in which every class weighs the same.

    A class takes its rows in turn, in a new order each time round, and goes on in the next epoch where it stopped, so
    that all rows of a frequent class are seen. Deterministic in seed and epoch.

    Args:
        labels: of each row.
        weights: of each row; None weighs all alike.
        seed: the run's seed.
        epoch: from 0.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    classes, each = sorted(members.items()), weights or [1.0] * len(labels)
    quotas = _quotas([len(rows) / sum(each[index] for index in rows) for _, rows in classes], len(labels))
    chosen: list[int] = []
    for (label, rows), quota in zip(classes, quotas, strict=True):
        chosen += [_in_turn(rows, f"{seed}/{label}", epoch * quota + number) for number in range(quota)]
    return chosen


def _quotas(parts: Sequence[float], total: int) -> list[int]:
    """Whole numbers in the proportion of `parts` that add up to `total` (largest remainders)."""
    exact = [total * part / sum(parts) for part in parts]
    found = [int(one) for one in exact]
    by_rest = sorted(range(len(parts)), key=lambda place: (found[place] - exact[place], place))
    for place in by_rest[: total - sum(found)]:
        found[place] += 1
    return found


@functools.lru_cache(maxsize=4096)
def _round(count: int, key: str) -> list[int]:
    order = list(range(count))
    random.Random(key).shuffle(order)
    return order


def _in_turn(rows: Sequence[int], key: str, number: int) -> int:
    """The number-th of an endless row of `rows`, shuffled anew each time round."""
    turn, place = divmod(number, len(rows))
    return rows[_round(len(rows), f"{key}/{turn}")[place]]
