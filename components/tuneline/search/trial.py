"""A trial: the pipeline's own training, and its answers on the validation split scored. Runs in a process of its own.

The process that asked hears of every epoch, and says after each whether to go on. It may be killed at any time, and so
may the trial, without harm to the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from tuneline.artifacts import PreparedData, read_split
from tuneline.config import ModelConfig, TrainConfig
from tuneline.evaluate.metrics import measure
from tuneline.search.child import Stopped, answer
from tuneline.search.job import Job, Measured
from tuneline.train.train import train

Numbers = dict[str, float]


@dataclass
class _Epochs:
    """Tells the one that asked of each epoch, and ends the training when the answer is no."""

    pipe: Connection
    told: list[Numbers] = field(default_factory=list)

    def metrics(self, values: Numbers, step: int = 0) -> None:
        """As train's recorder: steps' metrics are passed over."""
        if "validation_loss" not in values:
            return
        self.told.append(values)
        self.pipe.send(("epoch", step, values))
        if not self.pipe.recv():
            raise Stopped


def main(pipe: Connection, job: Job) -> None:
    """The process: sends ("epoch", number, metrics) and takes a bool, then sends how it ended and a value."""
    torch.set_num_threads(job.threads)
    answer(pipe, lambda: run(job, pipe), job.log)


def run(job: Job, pipe: Connection) -> Measured:
    """Train and score.

    Raises:
        InputError: as of train.
    """
    data, found = Path(job.data), list[np.ndarray]()
    model, settings = ModelConfig.model_validate(job.model), TrainConfig.model_validate(job.train)
    started = time.monotonic()
    numbers = train(data, model, settings, None, _Epochs(pipe), found.append)
    seconds = time.monotonic() - started
    labels = read_split(data, "validation").column("label").to_numpy()
    np.savez_compressed(job.answers, probabilities=found[0].astype(np.float32), labels=labels)
    metrics = {name: tuple(estimate) for name, estimate in measure(labels, found[0]).items()}
    rows = PreparedData.load(data).rows["train"]
    return Measured(metrics, numbers, seconds, numbers["train_peak_memory_mb"] * 1e6 / 2**20, rows)
