"""What every step does around its work: an MLflow run, and bad input told as one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tuneline.errors import InputError
from tuneline.progress import ERROR_MARK, say
from tuneline.tracking import StepRun, step_run


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
def step(name: str, params: dict[str, Any]) -> Iterator[StepRun]:
    """Run a step's work inside its MLflow run; exits with status 2 and one line where its input is bad.

    SIGTERM, by which a cluster or the command on a laptop stops a step, ends it as an exception would.
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        with step_run(name, params) as run:
            yield run
    except InputError as error:
        say(f"{ERROR_MARK}{error}")
        sys.exit(2)
