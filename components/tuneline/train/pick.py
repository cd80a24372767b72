"""Which rows stand for all when a training is rehearsed: some batches, the heaviest pass, some to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneline.config import TrainConfig
from tuneline.fused import FILL
from tuneline.train.estimate import spread_over
from tuneline.train.loop import Examples, batches_of
from tuneline.train.passes import passes, shares

BATCHES = 10
"""Batches that stand for all."""
EPOCHS = 3
"""Epochs whose batches are looked through for the heaviest."""
HELD_OUT_TOKENS = 8192
"""Tokens on which validation is timed."""


@dataclass(frozen=True)
class Chosen:
    """The rows that are rehearsed.

    Attributes:
        heaviest: those of the pass with the most tokens, or padded places, of all batches.
        batches: one process's part of some batches, which stand for all.
        mean: tokens of such a part, over all batches.
        shortest: the shortest row.
        shapes: what kernels are made for, by `shape`, of all training passes.
    """

    heaviest: list[int]
    batches: list[list[int]]
    mean: float
    shortest: int
    shapes: frozenset[int]

    @classmethod
    def of(cls, train: Examples, settings: TrainConfig, pads: bool) -> Chosen:
        """Choose among the training rows."""
        lengths, size = train.lengths, settings.distributed.processes
        heaviest: list[int] = []
        firsts: list[list[int]] = []
        shapes: set[int] = set()
        for epoch in range(min(settings.epochs, EPOCHS)):
            parts = [shares(batch, lengths, size)[0] for batch in batches_of(train, settings, epoch)]
            firsts = firsts or parts
            each = [part for share in parts for part in passes(share, lengths, settings.pass_tokens)]
            heaviest = max(heaviest, *each, key=lambda part: places(part, lengths, pads))
            shapes |= {shape(part, lengths) for part in each}
        tokens = [sum(lengths[index] for index in part) for part in firsts]
        batches = [firsts[index] for index in spread_over(tokens, BATCHES)]
        shortest = min(range(len(lengths)), key=lengths.__getitem__)
        return cls(heaviest, batches, sum(tokens) / len(tokens), shortest, frozenset(shapes))


def places(rows: Sequence[int], lengths: Sequence[int], pads: bool) -> int:
    """Tokens of the rows, with those that fill them up."""
    if not rows:
        return 0
    return len(rows) * max(lengths[index] for index in rows) if pads else sum(lengths[index] for index in rows)


def shape(rows: Sequence[int], lengths: Sequence[int]) -> int:
    """What decides for which length oneDNN makes kernels, which it keeps (fused.FILL)."""
    return -(-sum(lengths[index] for index in rows) // FILL)


def measured_shapes(examples: Examples, settings: TrainConfig) -> set[int]:
    """The shapes of the passes in which validation rows are measured (loop.measure)."""
    order, size = spread_over(examples.lengths, len(examples.lengths)), 2 * settings.batch_size
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    parts = (part for batch in batches for part in passes(batch, examples.lengths, settings.pass_tokens))
    return {shape(part, examples.lengths) for part in parts}


def held_out(examples: Examples, batch_size: int) -> dict[str, Examples]:
    """A batch of the longest validation rows, and some that stand for all."""
    order = spread_over(examples.lengths, len(examples.lengths))
    count = max(2 * batch_size, int(HELD_OUT_TOKENS * len(order) / sum(examples.lengths)))
    chosen = {"longest": order[-2 * batch_size :], "some": spread_over(examples.lengths, count)}
    return {name: take(examples, rows) for name, rows in chosen.items()}


def miniature(train: Examples, chosen: Chosen) -> tuple[Examples, Chosen]:
    """The chosen rows alone, and where among them each is."""
    wanted = sorted({*chosen.heaviest, chosen.shortest, *(row for batch in chosen.batches for row in batch)})
    place = {row: number for number, row in enumerate(wanted)}
    batches = [[place[row] for row in batch] for batch in chosen.batches]
    there = Chosen([place[row] for row in chosen.heaviest], batches, chosen.mean, place[chosen.shortest], chosen.shapes)
    return take(train, wanted), there


def take(examples: Examples, rows: Sequence[int]) -> Examples:
    """Some rows, each as a text of its own."""
    return Examples(
        [examples.input_ids[row] for row in rows], [examples.labels[row] for row in rows],
        examples.pair_at and [examples.pair_at[row] for row in rows],
        examples.weights and [examples.weights[row] for row in rows],
    )  # fmt: skip


def until(rows: Sequence[int], lengths: Sequence[int], pads: bool, wanted: float) -> list[int]:
    """The first rows, as few as have so many places together."""
    for count in range(1, len(rows)):
        if places(rows[:count], lengths, pads) >= wanted:
            return list(rows[:count])
    return list(rows)
