"""A training in miniature: a few real steps on the real rows, in a process of its own, told line by line.

Run: python -m tuneline.train.rehearsal JOB.json FACTS.jsonl

Its peak memory is its own, and if it dies of it, the lines say how far it came. It trains, measures, saves a checkpoint
and the model as train does, by the same functions; nothing of it outlives the folder that the job names. Learning rates
are zero: only what it takes is of interest.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from tuneline.artifacts import PreparedData, read_json
from tuneline.config import ModelConfig, TrainConfig
from tuneline.packing import PaddedClassifier
from tuneline.progress import Progress
from tuneline.recipe import validate
from tuneline.step import guarded
from tuneline.storage import CHECKPOINTS, LocalStore
from tuneline.threads import within_quota
from tuneline.train import low_rank, processes
from tuneline.train.best import Best
from tuneline.train.cache import States, above_the_cut
from tuneline.train.checkpoints import Checkpoints, Position
from tuneline.train.cut import above_for
from tuneline.train.group import Group
from tuneline.train.loop import Examples, measure, optimizer_for, optimizer_step
from tuneline.train.losses import Loss
from tuneline.train.meters import peak_memory_mb
from tuneline.train.passes import PassLimit, passes
from tuneline.train.pick import Chosen, held_out, measured_shapes, miniature, places, shape, take, until
from tuneline.train.precision import uses_bf16
from tuneline.train.train import Ready, make_ready, origin, save
from tuneline.train.vocabulary import bring_back

ROUNDS = 6
"""How often each of them is timed, while there is time."""
SLOW_SECONDS = 1.0
"""A step that takes so long is not much longer for what is done the first time."""
FEW = 3
"""Steps that are timed at least, however long they take."""
FORWARD = 1 / 3
"""Of a shape's kernels, those that measuring needs: the gradients' are two more for each."""
LADDER = (0.25, 0.5, 1.0)
"""Parts of the heaviest pass, the smallest first: what memory the next one takes is known before it is tried."""
WITHOUT_LIMIT = 2**31


@dataclass(frozen=True)
class Job:
    """What to rehearse.

    Attributes:
        data: folder of PreparedData, whose files may hold a sample of the rows that its manifest counts.
        out: folder for all that is written.
        model: the checkpoint.
        settings: the training.
        limit_mb: megabytes that must not be passed on a CPU; on a GPU that is what it has free.
        disk_mb: megabytes of disk for cached states.
        seconds: how long steps are timed.
        here: whether the training is to run on this machine, whose GPUs must then do.
    """

    data: Path
    out: Path
    model: ModelConfig
    settings: TrainConfig
    limit_mb: float
    disk_mb: float
    seconds: float
    here: bool

    @classmethod
    def read(cls, path: Path) -> Job:
        """From its file."""
        tree = read_json(path)
        model, settings = (
            validate(ModelConfig, tree.pop("model"), "model"),
            validate(TrainConfig, tree.pop("train"), "train"),
        )
        return cls(Path(tree.pop("data")), Path(tree.pop("out")), model, settings, **tree)


@dataclass(frozen=True)
class Notes:
    """Where facts go, a JSON object a line, each at once."""

    stream: TextIO

    def __call__(self, kind: str, **facts: Any) -> None:
        """Write one."""
        self.stream.write(json.dumps({"kind": kind, **facts}) + "\n")
        self.stream.flush()


def rehearse(job: Job, note: Notes) -> None:
    """Go through a training and note what each part takes.

    Raises:
        InputError: what would end the training with the same words.
    """
    if job.here and job.settings.distributed.nodes == 1 and job.settings.distributed.gpus_per_node > 1:
        processes.require_gpus(job.settings.distributed.gpus_per_node)
    manifest = PreparedData.load(job.data)
    ready = make_ready(job.data, manifest, job.model, job.settings)
    device = ready.network.device
    limit = job.limit_mb
    if device.type == "cuda":  # what is free, and what this process has by now
        limit = (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)) / 1e6
    _tell_start(job, ready, manifest, limit, note)
    whole = Chosen.of(ready.examples["train"], job.settings, isinstance(ready.classifier, PaddedClassifier))
    part, rows = miniature(ready.examples["train"], whole)
    splits = {"train": part, **held_out(ready.examples["validation"], job.settings.batch_size)}
    validated = measured_shapes(ready.examples["validation"], job.settings)
    settings = _states(job, ready, splits, manifest, note)
    with above_the_cut(ready.classifier, splits, settings, Group(), origin(manifest, job.model)) as (tuned, parts):
        stage = Stage(tuned, parts, settings, device, note)
        if not stage.climb(rows.heaviest, rows.shortest, limit):
            return
        stage.steps(rows, validated, job.seconds)
        stage.validation()
        stage.checkpoint(job.out / "checkpoint")
    if ready.aside:
        bring_back(ready.network, ready.aside, job.settings, len(rows.heaviest), 1)
    low_rank.merge(ready.network)
    save(ready.network, job.data, manifest, job.out / "model")
    note("model", mb=_size_mb(job.out / "model"))
    note("end", mb=peak_memory_mb(device), host_mb=peak_memory_mb(torch.device("cpu")))


def _tell_start(job: Job, ready: Ready, manifest: PreparedData, limit: float, note: Notes) -> None:
    counts = [(weight.numel(), weight.requires_grad) for weight in ready.network.parameters()]
    device, train = ready.network.device, ready.examples["train"]
    aside = ready.aside.whole[len(ready.aside.used) :].numel() if ready.aside else 0
    note(
        "start", at=time.time(), how=ready.told, parameters=aside + sum(count for count, _ in counts),
        tuned=sum(count for count, yes in counts if yes), device=device.type, limit_mb=limit,
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        threads=torch.get_num_threads(), load=os.getloadavg()[0] / (os.cpu_count() or 1),
        host_mb=peak_memory_mb(torch.device("cpu")), longest=max(train.lengths),
        pads=isinstance(ready.classifier, PaddedClassifier),
        rows={name: len(part.lengths) for name, part in ready.examples.items()},
        tokens={name: sum(part.lengths) for name, part in ready.examples.items()},
        texts={name: manifest.rows[name] for name in ready.examples},
        read={name: _texts(part) for name, part in ready.examples.items()},
    )  # fmt: skip


def _states(job: Job, ready: Ready, part: dict[str, Examples], manifest: PreparedData, note: Notes) -> TrainConfig:
    """Time what lies below the cut, computed once; gives the settings without a cache where there will be none."""
    settings = job.settings
    above = above_for(ready.classifier, settings) if settings.cache else None
    if above is None:
        if settings.cache and settings.tune in ("top_layers", "head"):
            note("states", mb=0, why="rows that are padded have no cache")
        return settings
    scale = manifest.rows["train"] / _texts(ready.examples["train"])
    size = States(above, ready.examples, settings).bytes * scale / 1e6
    room = min(settings.cache_gib * 2**30 / 1e6, job.disk_mb)
    if size > room:
        note("states", mb=0, why=f"states of {size:,.0f} MB exceed train.cache_gib or the disk ({room:,.0f} MB)")
        return settings.model_copy(update={"cache": False})
    folder = job.out / "states"
    folder.mkdir(parents=True)
    first = {name: take(rows, range(min(2, len(rows.labels)))) for name, rows in part.items()}
    States(above, first, settings).compute(folder)
    started = time.perf_counter()
    States(above, part, settings).compute(folder)
    tokens = sum(sum(rows.lengths) for rows in part.values())
    note("states", mb=size, tokens=tokens, seconds=time.perf_counter() - started, why="")
    return settings


def _texts(examples: Examples) -> int:
    return len(examples.windows) if examples.windows else len(examples.labels)


class Stage:
    """The loop's own parts, taken one by one.

    Args:
        tuned: what is trained.
        parts: the rows, as it takes them.
        settings: the training.
        device: where it is.
        note: who is told.
    """

    def __init__(
        self, tuned: nn.Module, parts: dict[str, Examples], settings: TrainConfig, device: torch.device, note: Notes
    ) -> None:
        self.tuned, self.parts, self.settings, self.device, self.note = tuned, parts, settings, device, note
        self.optimizer = optimizer_for(tuned, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        self.low = uses_bf16(settings.precision, device)
        train = parts["train"]
        self.loss_of, self.best = Loss.of(settings, train.labels, train.weights), Best.of(settings)
        self.pads = isinstance(tuned, PaddedClassifier)
        self.shapes: set[int] = set()

    def step(self, rows: list[int], limit: PassLimit) -> tuple[float, float]:
        """Seconds of an optimizer step, and those of processor time in all threads."""
        started, worked = time.perf_counter(), time.process_time()
        train, group = self.parts["train"], Group()
        self.shapes |= {shape(part, train.lengths) for part in passes(rows, train.lengths, limit.tokens)}
        optimizer_step(self.tuned, self.optimizer, train, rows, group, self.low, limit, self.loss_of)
        return time.perf_counter() - started, time.process_time() - worked

    def climb(self, heaviest: list[int], shortest: int, limit_mb: float) -> bool:
        """Passes of ever more tokens, and the memory after each; none that would pass the limit is tried.

        Returns:
            Whether it came to the top.
        """
        self.tuned.train()
        lengths = self.parts["train"].lengths
        order = sorted(heaviest, key=lambda row: -lengths[row])
        total, before = places(order, lengths, self.pads), list[tuple[int, float]]()
        self.note("heaviest", tokens=sum(lengths[row] for row in order), places=total)
        for rows in [[shortest], *(until(order, lengths, self.pads, part * total) for part in LADDER)]:
            tokens = places(rows, lengths, self.pads)
            if before and tokens <= before[-1][0]:
                continue
            if len(before) > 1 and _next(before, tokens) > limit_mb:
                return False
            self.note("try", tokens=tokens)
            limit = PassLimit(WITHOUT_LIMIT)
            took, _ = self.step(rows, limit)
            if limit.tokens < WITHOUT_LIMIT:  # it ran out of memory and went on with less
                return False
            before.append((tokens, peak_memory_mb(self.device)))
            self.note("pass", tokens=tokens, mb=before[-1][1], seconds=took)
        return True

    def steps(self, rows: Chosen, validated: set[int], seconds: float) -> None:
        """Times of batches that stand for all, in rounds of changing order; the first round is for getting warm."""
        lengths, draw, timed = self.parts["train"].lengths, random.Random(0), 0
        every = len(rows.shapes) + len(validated - rows.shapes) * FORWARD
        batches, known, before = rows.batches, set(self.shapes), peak_memory_mb(self.device)
        self.note("batches", mean=rows.mean)
        until, progress = time.perf_counter() + seconds, Progress("plan", ROUNDS * len(batches), "steps")
        for number in range(ROUNDS + 1):
            draw.shuffle(batches)
            for batch in batches:
                took, worked = self.step(batch, PassLimit(self.settings.pass_tokens))
                if number or took > SLOW_SECONDS:
                    tokens = sum(lengths[row] for row in batch)
                    self.note("step", tokens=tokens, texts=len(batch), seconds=took, cpu=worked)
                    progress.update(timed := timed + 1)
                new = len(self.shapes - known)
                self.note("shapes", all=every, seen=len(self.shapes), new=new,
                          grown_mb=peak_memory_mb(self.device) - before)  # fmt: skip
                if time.perf_counter() > until and timed >= (FEW if took > SLOW_SECONDS else len(batches) // 2 + 1):
                    return

    def validation(self) -> None:
        """Time of measuring, and its memory."""
        for name in ("longest", "some"):
            started, limit = time.perf_counter(), PassLimit(self.settings.pass_tokens)
            part, size = self.parts[name], self.settings.batch_size
            self.best.after(1, measure(self.tuned, part, size, Group(), self.low, limit=limit), self.tuned)
            took = time.perf_counter() - started
            self.note("validation", tokens=sum(part.lengths), seconds=took, mb=peak_memory_mb(self.device))

    def checkpoint(self, folder: Path) -> None:
        """Time and size of a checkpoint."""
        started = time.perf_counter()
        Checkpoints(LocalStore(folder), Group(), 0, self.best).save(Position(1), self.tuned, self.optimizer)
        took = time.perf_counter() - started
        self.note("checkpoint", seconds=took, mb=_size_mb(folder), host_mb=peak_memory_mb(torch.device("cpu")))


def _next(points: Sequence[tuple[int, float]], tokens: int) -> float:
    """Megabytes that so many tokens will take, by the last two passes."""
    (x0, y0), (x1, y1) = points[-2:]
    return y1 + (y1 - y0) / (x1 - x0) * (tokens - x1)


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Rehearse; what is refused is one line, as of every step."""
    os.environ.pop(CHECKPOINTS, None)
    job, facts = map(Path, sys.argv[1:])
    within_quota()
    with guarded(), facts.open("w", encoding="utf-8") as stream:
        rehearse(Job.read(job), Notes(stream))


if __name__ == "__main__":
    main()
