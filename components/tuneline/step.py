"""What every step does around its work: an MLflow run, and bad input or a server's trouble told as one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tuneline.errors import InputError
from tuneline.progress import ERROR_MARK, FAILED_MARK, say
from tuneline.stopping import handled
from tuneline.tracking import StepRun, step_run
from tuneline.trouble import trouble

OWNER_PID = "TUNELINE_OWNER_PID"
"""Environment variable: the command on this machine that a step belongs to; without that command it ends."""


def _follow(owner: int) -> None:
    """End this process as SIGTERM does once the owner is gone: a command killed outright cannot stop its steps."""
    while True:
        time.sleep(1)
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            signal.raise_signal(signal.SIGTERM)
            return


class Artifact(Protocol):
    """An artifact as KFP hands it to a component: a path to write to, metadata that its UI shows."""

    @property
    def path(self) -> str:
        """Where it lies, or is to be written."""
        ...

    metadata: dict[str, Any]


class Metrics(Artifact, Protocol):
    """KFP's Metrics."""

    def log_metric(self, metric: str, value: float) -> None:
        """Show a number."""


class ClassificationMetrics(Artifact, Protocol):
    """KFP's ClassificationMetrics."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Show a confusion matrix, rows true."""


@contextmanager
def guarded() -> Iterator[None]:
    """Run a step's work; bad input exits with status 2 and one line, a server's trouble with 1.

    SIGTERM, by which a cluster or the command on a laptop stops a step, ends it as an exception would, and so do Ctrl-C
    and a closed terminal.
    """
    if owner := os.environ.get(OWNER_PID):
        threading.Thread(target=_follow, args=(int(owner),), daemon=True).start()
    try:
        with handled(lambda number, _frame: sys.exit(128 + number)):
            yield
    except InputError as error:
        say(f"{ERROR_MARK}{error}")
        sys.exit(2)
    except Exception as error:
        told = trouble(error)
        if told is None:
            raise
        say(f"{FAILED_MARK}{told}")
        sys.exit(1)


@contextmanager
def step(name: str, params: dict[str, Any]) -> Iterator[StepRun]:
    """Run a step's work, guarded, inside its MLflow run."""
    with guarded(), step_run(name, params) as run:
        yield run
