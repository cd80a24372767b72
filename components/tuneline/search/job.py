"""What a trial is asked for, and what comes of it. Plain values: they cross between processes and stand in JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tuneline.artifacts import address
from tuneline.errors import ServiceError

Interval = tuple[float, ...]
"""A value and the ends of its 95% interval."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        data: folder of prepared data (data.prepared).
        model: the recipe's section.
        train: the recipe's section.
        answers: file to write the validation rows' probabilities and labels to (.npz).
        log: file for what the training prints.
        threads: of its arithmetic.
    """

    data: str
    model: dict[str, Any]
    train: dict[str, Any]
    answers: str
    log: str
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """What a trial measured.

    Attributes:
        metrics: of the validation split, each with its interval.
        numbers: what training says: validation_loss, train_seconds, train_steps and more.
        seconds: wall seconds of training, its measurements included.
        peak_memory_mib: the most memory it had.
        rows: training rows.
    """

    metrics: dict[str, Interval]
    numbers: dict[str, float]
    seconds: float
    peak_memory_mib: float
    rows: int


@dataclass(frozen=True)
class Result:
    """A finished trial, as a row.

    Attributes:
        overrides: keys of the recipe that it had of its own.
        seed: train.seed.
        seconds, metrics, peak_memory_mib, rows, numbers: as Measured has them.
        train_seconds: of the optimizer's steps alone.
        answers: file of the validation rows' probabilities and labels, where the search ran.
        run_id: its MLflow run.
        reused: whether an earlier command trained it.
    """

    overrides: dict[str, Any]
    seed: int
    seconds: float
    metrics: dict[str, Interval]
    peak_memory_mib: float
    rows: int
    train_seconds: float
    answers: str
    run_id: str = ""
    reused: bool = False
    numbers: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, row: dict[str, Any]) -> Result:
        """From JSON."""
        metrics = {name: tuple(ends) for name, ends in row["metrics"].items()}
        return cls(**{**row, "metrics": metrics})

    def value(self, metric: str) -> Interval:
        """A metric of the validation split; loss is the log loss."""
        return self.metrics["log_loss" if metric == "loss" else metric]


class Interrupted(Exception):  # noqa: N818 - an outcome
    """The command was asked to end."""


class OutOfTime(Exception):  # noqa: N818
    """The budget's time has come."""


class Pruned(Exception):  # noqa: N818
    """The one that asked wanted no more epochs."""


class TrialLost(ServiceError):  # noqa: N818
    """The trial's process was killed, or failed; the message says how. Told in one line where nothing goes on."""


def key_of(job: Job, origin: dict[str, Any]) -> str:
    """The name of a training's result: the same data, settings, weights and code have the same."""
    return address(data=job.data.rsplit("/", 1)[-1], model=job.model, train=job.train, origin=origin)
