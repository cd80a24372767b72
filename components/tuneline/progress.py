"""How a step tells how far it is: one line that a person reads in a log and the CLI turns into a bar.

[train] 120/375 steps | loss 0.412 | ETA 0:42
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

ERROR_MARK = "tuneline: error: "
"""Before bad input."""
FAILED_MARK = "tuneline: failed: "
"""Before what a server that the step depends on did not do."""


class Progress:
    """Prints at most two lines a second, the first and the last always.

    Args:
        step: the step's name.
        total: how many units there are.
        unit: what is counted, in the plural.
    """

    def __init__(self, step: str, total: int, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.step, self.total, self.unit, self.clock = step, total, unit, clock
        self.first: tuple[float, int] | None = None
        self.told = float("-inf")

    def update(self, done: int, **facts: float) -> None:
        """Tell that `done` of the total are done; facts are shown with three significant digits."""
        now = self.clock()
        self.first = self.first or (now, done)
        if now - self.told < 0.5 and done < self.total:
            return
        self.told = now
        shown = "".join(f" | {name.replace('_', ' ')} {_short(value)}" for name, value in facts.items())
        say(f"[{self.step}] {done}/{self.total} {self.unit}{shown} | ETA {self._left(now, done)}")

    def _left(self, now: float, done: int) -> str:
        """Minutes and seconds at the pace since the first update, which carries the warm-up and is left out."""
        started, before = self.first or (now, done)
        if done >= self.total:
            return "0:00"
        if done <= before:
            return "?"
        return left(now - started, done - before, self.total - done)


def left(seconds: float, done: int, rest: int) -> str:
    """Minutes and seconds that the rest takes at the pace of `done` in `seconds`."""
    whole = int(seconds / done * rest)
    return f"{whole // 60}:{whole % 60:02d}"


def _short(value: float) -> str:
    """Three significant digits, without an exponent from 100 on."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def say(line: str) -> None:
    """Print a line at once (kfp's runners buffer otherwise)."""
    sys.stdout.write(f"{line}\n")  # one write: another thread may speak too
    sys.stdout.flush()


def silence(stream: TextIO) -> None:
    """Lose what a stream that failed still holds, and all to come: Python would try that again, at its end too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Lasting:
    """A standard stream that stops no work: where it takes no more, as a terminal that is gone or a full disk, what is
    written is lost.

    Args:
        stream: gives the one of the moment, which may be none.
    """

    def __init__(self, stream: Callable[[], TextIO | None]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream() or io.StringIO(), name)

    def write(self, text: str) -> int:
        """Take text as a stream does."""
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write it through."""
        self._try(lambda stream: stream.flush())

    def _try(self, do: Callable[[TextIO], object]) -> None:
        if not (stream := self._stream()):
            return
        try:
            do(stream)
        except OSError:
            silence(stream)
