"""Real trainings, each in a process of its own, that are killed and whose checkpoints are harmed.

Shared by the tests, which kill ten times, and by tests/benchmarks/kills.py.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneline.artifacts import sha256_file
from tuneline.config import ModelConfig, TrainConfig
from tuneline.storage import CHECKPOINTS

HARMS = ("truncated", "deleted", "flipped")
SAVING, STARTING, BETWEEN = "in the middle of saving", "anywhere from the start on", "after a save"
LONGEST_SAVE, LONGEST_START, LONGEST_PAUSE = 0.004, 1.0, 0.3
"""Seconds from what is waited for to the kill, at most."""


@dataclass(frozen=True)
class Course:
    """A training that may be started again and again, and its checkpoints.

    Attributes:
        data: folder of PreparedData.
        model: the checkpoint.
        settings: how to train.
        places: what $TUNELINE_CHECKPOINTS is; None saves nothing.
        out: the folder for the model.
    """

    data: Path
    model: ModelConfig
    settings: TrainConfig
    places: Path | None
    out: Path

    def start(self) -> Any:
        """A process that trains; forked off one that has imported torch already."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tuneline.train.train"])
        process = context.Process(target=_train, args=(self,))
        process.start()
        return process

    def finish(self) -> str:
        """Train to the end, from where the checkpoints are; gives the SHA-256 of the weights."""
        process = self.start()
        process.join()
        assert process.exitcode == 0, self.log()
        return sha256_file(self.out / "model.safetensors")

    def log(self) -> str:
        """What the processes have told."""
        return self._log.read_text()

    @property
    def _log(self) -> Path:
        return self.out.with_suffix(".log")

    def states(self) -> list[Path]:
        """The folders of checkpoints, oldest first."""
        return sorted(self.places.glob("*/step-*")) if self.places else []

    def unfinished(self) -> set[Path]:
        """Folders that are being written, or were when their process was killed."""
        return set(self.places.glob("*/.step-*")) if self.places else set()

    def elsewhere(self, folder: Path) -> Course:
        """The same training with other checkpoints and another result, both in this folder."""
        return replace(self, places=folder / "checkpoints", out=folder / "model")

    def apart(self) -> Course:
        """The same training, which saves nothing."""
        return replace(self, places=None, out=self.out.with_name("whole"))


def _train(course: Course) -> None:
    import torch

    from tuneline.train.train import train

    torch.set_num_threads(1)
    log = os.open(course._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.pop(CHECKPOINTS, None)
    if course.places:
        os.environ[CHECKPOINTS] = str(course.places)
    train(course.data, course.model, course.settings, course.out)


def kill_often(course: Course, count: int, draw: random.Random, told: Callable[[str], Any] = print) -> Counter[str]:
    """Start the training and kill it, `count` times; every second time in the middle of saving.

    Args:
        course: long enough not to end before.
        count: of kills.
        draw: of the moments.
        told: called after each kill.

    Returns:
        How many kills there were by what the training was at; a save counts where it left a half-written folder.
    """
    found: Counter[str] = Counter()
    for number in range(count):
        aim = draw.choice([STARTING, BETWEEN]) if found[SAVING] * 2 >= number + 1 else SAVING
        process, before = course.start(), course.unfinished()
        _wait(course, process, aim, draw)
        process.kill()
        process.join()
        assert process.exitcode < 0, f"ended after {number} kills, so that it takes more epochs:\n{course.log()}"
        hit = SAVING if course.unfinished() - before else BETWEEN if aim == SAVING else aim
        found[hit] += 1
        newest = course.states()[-1].name if course.states() else "no checkpoint"
        told(f"kill {number + 1} of {count}: {hit}; {newest}")
    return found


def _wait(course: Course, process: Any, aim: str, draw: random.Random) -> None:
    """Until the moment that the kill is for."""
    if aim == STARTING:
        process.join(timeout=draw.uniform(0, LONGEST_START))
        return
    known = course.states()
    while process.is_alive() and course.states() == known:  # every process gets somewhere
        time.sleep(0.005)
    if aim == BETWEEN:
        process.join(timeout=draw.uniform(0, LONGEST_PAUSE))
        return
    before = course.unfinished()
    while process.is_alive() and not course.unfinished() - before:
        pass
    time.sleep(draw.uniform(0, LONGEST_SAVE))


def harm(path: Path, how: str) -> None:
    """Truncate a file to its half, delete it, or flip a bit in its middle."""
    content = path.read_bytes()
    middle = len(content) // 2
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[:middle])
    else:
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
