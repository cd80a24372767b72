"""Which texts make an optimizer step, and in which order."""

from __future__ import annotations

import random
from collections.abc import Sequence

BUCKET_BATCHES = 20


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of each batch of one epoch: shuffled, then grouped by length within stretches of 20 batches.

    Grouping keeps padding low, for a model that pads, while the order of batches stays random. Deterministic in seed
    and epoch.

    Args:
        lengths: tokens of each text.
        batch_size: texts a batch; the last one may hold fewer.
        seed: the run's seed.
        epoch: from 0.
    """
    draw = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    draw.shuffle(order)
    stretch = batch_size * BUCKET_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), stretch):
        part = sorted(order[start : start + stretch], key=lambda index: lengths[index])
        batches += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
    draw.shuffle(batches)
    return batches
