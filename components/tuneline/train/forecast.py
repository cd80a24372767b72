"""What a training will take, from the notes of a rehearsal: memory, time, cost and disk, each with what is doubtful.

Reads numbers only; torch is not needed to look ahead.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneline.config import TrainConfig
from tuneline.train.estimate import Line, Memory, Range, checkpoints_in, memory_of

KEPT = 3
"""Checkpoints on the disk at a time: two that are kept, and the one being written (checkpoints.KEEP)."""
STEP_MB = 190.0
"""What a step of the pipeline has loaded beside the training: MLflow's client and KFP (measured, with SQLite)."""
UNREAD_BYTES = 40
"""What a token takes of a row that is not read here: a number of Python, and its place in a list."""
ARRAY_BYTES, ROW_BYTES = 8, 112
"""What a token, and a row, take as the array that training makes of each row when its turn comes."""
BUSY = 1.0
"""Processes a core that want it, above which the machine is not this training's alone."""
Note = dict[str, Any]


@dataclass(frozen=True)
class Forecast:
    """What is known after a rehearsal, whether it came to its end or not.

    Attributes:
        notes: what it told, in order.
        settings: of the training.
        began: when its process was started, as time.time() gives it.
    """

    notes: Sequence[Note]
    settings: TrainConfig
    began: float

    def all(self, kind: str) -> list[Note]:
        """The notes of a kind."""
        return [note for note in self.notes if note["kind"] == kind]

    def last(self, kind: str) -> Note:
        """The last note of a kind; empty where there is none."""
        return next((note for note in reversed(self.notes) if note["kind"] == kind), {})

    @property
    def whole(self) -> bool:
        """Whether the rehearsal came to its end."""
        return bool(self.last("end"))

    @property
    def on_gpu(self) -> bool:
        """Whether it was on a GPU."""
        return self.last("start").get("device") == "cuda"

    @property
    def busy(self) -> bool:
        """Whether other processes wanted the processor too."""
        return not self.on_gpu and self.last("start")["load"] > BUSY

    @property
    def scale(self) -> float:
        """All training texts over those that were read."""
        start = self.last("start")
        return start["texts"]["train"] / start["read"]["train"]

    @property
    def rows(self) -> int:
        """Training rows: texts, or their windows."""
        return round(self.last("start")["rows"]["train"] * self.scale)

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of each split."""
        start = self.last("start")
        return {
            name: round(count * start["texts"][name] / start["read"][name]) for name, count in start["tokens"].items()
        }

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.settings.epochs * -(-self.rows // self.settings.batch_size)

    @property
    def memory(self) -> Memory | None:
        """Of one process; None where it died before the first pass was through."""
        passes = [(note["tokens"], note["mb"]) for note in self.all("pass")]
        if not passes:
            return None
        start, heaviest = self.last("start"), self.last("heaviest")
        found = memory_of(passes, 0.0, heaviest["places"], start["longest"])
        later = max(self.last("end").get("mb", 0.0) - passes[-1][1], 0.0)
        line = Line(found.line.base + later + self._beside(start), found.line.slope)
        return replace(found, line=line, floor=line.base)

    def _beside(self, start: Note) -> float:
        """What the rehearsal had no part of."""
        grouped = self.settings.distributed.processes > 1
        found = 4 * start["tuned"] / 1e6 if grouped else 0.0  # DDP keeps a second copy of the gradients
        if self.on_gpu:
            return found
        shapes = self.last("shapes")
        if shapes.get("new") and not start["pads"]:  # kernels that oneDNN makes for lengths not met here, and keeps
            found += max(0, shapes["all"] - shapes["seen"]) * max(0.0, shapes["grown_mb"]) / shapes["new"]
        tokens = sum(self.tokens.values())
        lists = (tokens - sum(start["tokens"].values())) * UNREAD_BYTES
        arrays = tokens * ARRAY_BYTES + self.rows * ROW_BYTES
        return found + (lists + arrays) / 1e6 + (0.0 if grouped else STEP_MB)

    def pass_tokens(self, limit: float) -> int | None:
        """The largest train.pass_tokens that stays below the limit, as far as this tells; None where nothing does."""
        memory, heaviest = self.memory, self.last("heaviest")
        places = memory.fitting(limit) if memory else None
        if places is None:
            return None
        return max(self.last("start")["longest"], int(places * heaviest["tokens"] / heaviest["places"]))

    def seconds(self) -> dict[str, Range]:
        """Of a rehearsal that came to its end: start, states, steps, validation, checkpoints, and total."""
        points = [(note["tokens"], note["seconds"]) for note in self.all("step")]
        line = Line.through(points)
        first = self.all("pass")[0]
        once = max(0.0, first["seconds"] - line.at(first["tokens"]))  # what is compiled when it is first used
        steps = Range.around(line.at(self.last("batches")["mean"]) * self.steps, line, points).plus(once)
        if self.busy:
            steps = replace(steps, low=min(steps.low, steps.expected * self.cpu_share))
        spread = steps.times(1 / steps.expected)
        held_out, checkpoint, states = self.last("validation"), self.last("checkpoint"), self.last("states")
        times = self.settings.epochs + (self.settings.early_stopping > 0)
        validation = held_out["seconds"] / held_out["tokens"] * self.tokens["validation"] * times
        below = states["seconds"] / states["tokens"] * sum(self.tokens.values()) if states.get("mb") else 0.0
        count = checkpoints_in(steps.expected + validation, self.steps, self.settings.checkpoint_minutes)
        start, saving = self.last("start")["at"] - self.began, count * checkpoint["seconds"]
        found = {
            "start": Range(start, start, start), "states": spread.times(below), "steps": steps,
            "validation": spread.times(validation), "checkpoints": Range(saving, saving, saving),
        }  # fmt: skip
        return found | {"total": Range(*(sum(each) for each in zip(*map(_parts, found.values()), strict=True)))}

    @property
    def cpu_share(self) -> float:
        """The part of its time that a step's threads have worked, in the middle of those that were measured."""
        threads = self.last("start")["threads"]
        return statistics.median(note["cpu"] / threads / note["seconds"] for note in self.all("step"))

    def cost(self) -> Range | None:
        """By train.price_per_hour, of what the training's own meter counts; None without a price."""
        if not self.settings.price_per_hour:
            return None
        seconds = self.seconds()
        counted = [_parts(seconds[name]) for name in ("steps", "validation", "checkpoints")]
        return Range(*(sum(each) for each in zip(*counted, strict=True))).times(self.settings.price_per_hour / 3600)

    def disk_mb(self) -> dict[str, float]:
        """Megabytes of checkpoints, of cached states, and of the model."""
        return {
            "checkpoints": KEPT * self.last("checkpoint")["mb"], "states": self.last("states").get("mb", 0.0),
            "model": self.last("model")["mb"],
        }  # fmt: skip


def _parts(value: Range) -> tuple[float, float, float]:
    return value.low, value.expected, value.high
