"""The seconds of a budget: every command tells the study how many it has had, and a later one counts on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneline.search.study import GRACE_SECONDS

if TYPE_CHECKING:
    import optuna

SPENT = "spent "
"""How an attribute of the study begins that holds what a command has told of its seconds."""


@dataclass
class Clock:
    """The seconds that a command may have.

    Attributes:
        study: which is told.
        owner: the command.
        budget: seconds, those before it included; None for no limit.
        started: by time.monotonic, when the command began.
        before: seconds that were spent by then.
    """

    study: optuna.Study
    owner: str
    budget: float | None
    started: float
    before: float

    @property
    def elapsed(self) -> float:
        """Seconds spent so far, those before this command included."""
        return self.before + time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds until the budget is spent."""
        return (self.budget or float("inf")) - self.elapsed

    def deadline(self, kept: float = 0.0) -> float:
        """By time.monotonic, when all but the seconds that are kept for something else are spent."""
        return time.monotonic() + self.left - kept

    def note(self, ended: bool = False) -> None:
        """Tell the study how many seconds this command has had, when it says so, and whether these were all."""
        told = {"seconds": self.elapsed - self.before, "at": time.time(), "ended": ended}
        self.study.set_user_attr(f"{SPENT}{self.owner}", told)


def spent(study: optuna.Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """What commands have told of their seconds, by owner; that of an older version told the seconds alone."""
    for key, note in study.user_attrs.items():
        if key.startswith(SPENT):
            yield key.removeprefix(SPENT), note if isinstance(note, dict) else {"seconds": note}


def of_earlier(study: optuna.Study, owner: str, lives: Callable[[str], bool]) -> float:
    """Seconds of commands that are over.

    A command of another host, such as an earlier container, is not seen to be dead. It is over where it said so as it
    ended, or has told nothing for as long as a heartbeat may be late.

    Args:
        study: what they told.
        owner: the command that asks, which is not over.
        lives: whether a command still runs, as far as can be seen from here.
    """
    return sum(note["seconds"] for whose, note in spent(study) if whose != owner and over(whose, note, lives))


def over(owner: str, note: dict[str, Any], lives: Callable[[str], bool]) -> bool:
    """Whether a command has ended, by what it told last."""
    silent = "at" in note and time.time() - note["at"] > GRACE_SECONDS
    return bool(note.get("ended")) or silent or not lives(owner)
