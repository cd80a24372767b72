"""From what a few steps took to what a training will take: lines through measured points, and the spread around them.

Plain arithmetic on numbers, so that it can be tested without a model. rehearsal.py measures; tuneline plan asks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
"""Tokens, and what they took: seconds of a step, or megabytes at its end."""

MARGIN = 0.95
"""Share of a memory limit that a proposal fills: what was measured in seconds has not seen a training's hours."""


@dataclass(frozen=True)
class Line:
    """y = base + slope * tokens."""

    base: float
    slope: float

    @classmethod
    def through(cls, points: Sequence[Point]) -> Line:
        """The least squares of relative errors; neither base nor slope is negative, since neither memory nor time is.

        Args:
            points: at least one; with x and y above zero.
        """
        weights = [1 / y**2 for _, y in points]
        total = sum(weights)
        x_mean = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
        y_mean = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
        across = sum(w * (x - x_mean) ** 2 for w, (x, _) in zip(weights, points, strict=True))
        along = sum(w * (x - x_mean) * (y - y_mean) for w, (x, y) in zip(weights, points, strict=True))
        slope = along / across if across > 0 else 0.0
        if slope < 0 or (across == 0 and x_mean == 0):
            return cls(y_mean, 0.0)
        if across == 0 or y_mean - slope * x_mean < 0:
            return cls(0.0, y_mean / x_mean)
        return cls(y_mean - slope * x_mean, slope)

    def at(self, tokens: float) -> float:
        """What so many tokens take."""
        return self.base + self.slope * tokens


@dataclass(frozen=True)
class Range:
    """What is expected, and between what it lies for eight of ten steps that were measured."""

    low: float
    expected: float
    high: float

    @classmethod
    def around(cls, expected: float, line: Line, points: Sequence[Point]) -> Range:
        """The expected value, as far up and down as the measured points lie from their line."""
        ratios = sorted(y / line.at(x) for x, y in points)
        low, high = _quantile(ratios, 0.1), _quantile(ratios, 0.9)
        return cls(expected * min(low, 1.0), expected, expected * max(high, 1.0))

    def plus(self, fixed: float) -> Range:
        """With something that does not vary."""
        return Range(self.low + fixed, self.expected + fixed, self.high + fixed)

    def times(self, factor: float) -> Range:
        """All of it so many times."""
        return Range(self.low * factor, self.expected * factor, self.high * factor)

    def told(self) -> dict[str, float]:
        """For JSON."""
        return {"low": self.low, "expected": self.expected, "high": self.high}


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def spread_over(values: Sequence[int], count: int) -> list[int]:
    """Indices of at most `count` values that stand for all: the middles of as many equal parts of them, in order.

    Args:
        values: such as tokens of each batch.
        count: how many.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    if len(order) <= count:
        return order
    return [order[int((number + 0.5) * len(order) / count)] for number in range(count)]


@dataclass(frozen=True)
class Memory:
    """What training takes of a memory by the tokens that go through the model at once.

    Attributes:
        line: megabytes of the process by tokens of a pass.
        floor: megabytes that it takes at some other time, whatever the tokens: loading, saving.
        heaviest: tokens of the heaviest pass, of all batches.
        longest: tokens of the longest text, which cannot be parted.
    """

    line: Line
    floor: float
    heaviest: int
    longest: int

    def peak(self, tokens: int) -> float:
        """Megabytes at most with so many tokens at once."""
        return max(self.floor, self.line.at(max(self.longest, tokens)))

    def fitting(self, limit: float) -> int | None:
        """The most tokens at once that stay below the limit, less a margin; None where not even one text does."""
        room = limit * MARGIN
        if self.peak(self.longest) > room:
            return None
        if self.line.slope <= 0:
            return 2**24
        return min(2**24, max(self.longest, int((room - self.line.base) / self.line.slope)))


def memory_of(passes: Sequence[Point], floor: float, heaviest: int, longest: int) -> Memory:
    """Of measured passes: the line through the two with the most tokens, where what does not grow has the least share.

    Args:
        passes: (tokens, megabytes of the process so far), in the order in which they were measured, ever more tokens.
        floor: megabytes at other times.
        heaviest: tokens of the heaviest pass.
        longest: tokens of the longest text.
    """
    last = list(passes)[-2:]
    if len(last) == 2 and last[1][0] > last[0][0]:
        slope = max(0.0, (last[1][1] - last[0][1]) / (last[1][0] - last[0][0]))
        line = Line(max(0.0, last[1][1] - slope * last[1][0]), slope)
    else:
        line = Line(last[-1][1], 0.0)
    return Memory(line, max(floor, line.base), heaviest, longest)


def checkpoints_in(seconds: float, steps: int, every_minutes: float) -> int:
    """How many checkpoints a training of so many seconds and steps saves; the last step's always."""
    if every_minutes <= 0:
        return steps
    return min(steps, 1 + int(seconds // (every_minutes * 60)))
