"""A trial: the pipeline's own training, and its answers on the validation split scored. Runs in a process of its own.

The process that asked hears of every epoch, and says after each whether to go on. It may be killed at any time, and so
may the trial, without harm to the other.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from tuneline.artifacts import PreparedData, read_split
from tuneline.config import ModelConfig, TrainConfig
from tuneline.errors import InputError
from tuneline.evaluate.metrics import measure
from tuneline.search.job import Job, Measured
from tuneline.train.train import train
from tuneline.trouble import told_of

Numbers = dict[str, float]


class _Stopped(Exception):  # noqa: N818 - an outcome: the one that asked wants no more epochs
    """The trial is not worth its next epoch."""


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
            raise _Stopped


def main(pipe: Connection, job: Job) -> None:
    """The process: sends ("epoch", number, metrics) and takes a bool, then sends how it ended and a value."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(job.threads)
    with Path(job.log).open("a", encoding="utf-8", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        try:
            pipe.send(("done", run(job, pipe)))
        except _Stopped:
            pipe.send(("stopped", None))
        except InputError as error:
            pipe.send(("refused", str(error)))
        except (EOFError, BrokenPipeError):
            sys.exit(1)
        except Exception as error:
            traceback.print_exc()
            pipe.send(("failed", told_of(error)))  # the log has all of it


def end_with_parent() -> None:
    """End this process with the one that asked, however that ended."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def run(job: Job, pipe: Connection) -> Measured:
    """Train and score.

    Raises:
        InputError: as of train.
    """
    data, found = Path(job.data), list[np.ndarray]()
    model, settings = ModelConfig.model_validate(job.model), TrainConfig.model_validate(job.train)
    started = time.monotonic()
    numbers = train(data, model, settings, Path(job.keep) if job.keep else None, _Epochs(pipe), found.append)
    seconds = time.monotonic() - started
    labels = read_split(data, "validation").column("label").to_numpy()
    np.savez_compressed(job.answers, probabilities=found[0].astype(np.float32), labels=labels)
    metrics = {name: tuple(estimate) for name, estimate in measure(labels, found[0]).items()}
    rows = PreparedData.load(data).rows["train"]
    return Measured(metrics, numbers, seconds, _peak_mib(), rows)


def _peak_mib() -> float:
    """The most memory this process had: the GPU's where one trains, else its own."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
