"""How a step tells how far it is: one line that a person reads in a log and the CLI turns into a bar.

[train] 120/375 steps | loss 0.412 | ETA 0:42
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

ERROR_MARK = "tuneline: error: "


class Progress:
    """Prints at most two lines a second, the first and the last always.

    Args:
        step: the step's name.
        total: how many units there are.
        unit: what is counted, in the plural.
    """

    def __init__(self, step: str, total: int, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.step, self.total, self.unit, self.clock = step, total, unit, clock
        self.started = clock()
        self.told = float("-inf")

    def update(self, done: int, **facts: float) -> None:
        """Tell that `done` of the total are done; facts are shown with three significant digits."""
        now = self.clock()
        if now - self.told < 0.5 and done < self.total:
            return
        self.told = now
        left = (now - self.started) / done * (self.total - done) if done else 0.0
        shown = "".join(f" | {name.replace('_', ' ')} {value:.3g}" for name, value in facts.items())
        say(f"[{self.step}] {done}/{self.total} {self.unit}{shown} | ETA {int(left // 60)}:{int(left % 60):02d}")


def say(line: str) -> None:
    """Print a line at once (kfp's runners buffer otherwise)."""
    print(line, file=sys.stdout, flush=True)
