"""Reads what KFP's local runner and the steps print: progress and seconds a step, and all of it for a log."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tuneline.artifacts import STEPS
from tuneline.errors import without_credentials
from tuneline.progress import ERROR_MARK, FAILED_MARK

Tell = Callable[[str, int, int, str], None]
"""Called with a step, how much is done, the total and a note; total 0 marks a plain line."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PROGRESS = re.compile(r"^\[(\w+)\] (\d+)/(\d+) (.*)$")
_REMARK = re.compile(rf"^\[({'|'.join(STEPS)})\] (.*)$")
_STARTED = re.compile(r"INFO - Executing task '(\w+)'$")
_ENDED = re.compile(r"INFO - Task '(\w+)' finished with status")
_EXCEPTION = re.compile(r"^[\w.]*(Error|Exception): ")


@dataclass
class Watcher:
    """A text stream to put in place of stdout while the pipeline runs.

    Attributes:
        log: where every line goes.
        tell: hears of progress.
        error: the last bad-input line that a step printed.
        step: the step that runs, or ran last.
        exception: what it says of a server's failure, or the last line of the last traceback that it printed.
        seconds: wall seconds of each finished step, its process's start included.
    """

    log: TextIO
    tell: Tell
    error: str = ""
    step: str = ""
    exception: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    _started: float = 0.0
    _rest: str = ""

    def write(self, text: str) -> int:
        """Take text as a stream does."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(without_credentials(_COLOUR.sub("", line)))
        return len(text)

    def isatty(self) -> bool:
        """No: libraries ask before they print colours."""
        return False

    def flush(self) -> None:
        """Write the log through."""
        self.log.flush()

    def _line(self, line: str) -> None:
        self.log.write(line + "\n")
        line = line.strip()  # kfp indents what a step prints
        if line.startswith(ERROR_MARK):
            self.error = line.removeprefix(ERROR_MARK)
        elif line.startswith(FAILED_MARK):
            self.exception = line.removeprefix(FAILED_MARK)
        elif _EXCEPTION.match(line):
            self.exception = line
        elif match := _PROGRESS.match(line):
            step, done, total, note = match.groups()
            self.tell(step, int(done), int(total), note)
        elif match := _REMARK.match(line):
            self.tell(match[1], 0, 0, match[2])
        elif match := _STARTED.search(line):
            self._begin(match[1])
        elif match := _ENDED.search(line):
            self.seconds[match[1]] = round(time.monotonic() - self._started, 2)

    def _begin(self, step: str) -> None:
        for before in STEPS[: STEPS.index(step)]:
            if before not in self.seconds:  # KFP's runner is silent about a step whose outputs it takes from its cache
                self.seconds[before] = 0.0
                self.tell(before, 0, 0, "reused from an earlier run with the same input")
        self._started = time.monotonic()
        self.step, self.exception = step, ""
        self.tell(step, 0, 0, "started")


@contextmanager
def heard(tell: Tell) -> Iterator[None]:
    """While this lasts, what a step's work prints in this process is told, and not printed."""
    with Path(os.devnull).open("w", encoding="utf-8") as log, redirect_stdout(Watcher(log, tell)):
        yield
