"""Does the jobs that a results file lacks, each in a process of its own, and appends a line for each.

Two at a time with a core each, by default: a training of short texts makes little of a second core (batches of 16 texts
of AG News kept 1.2 of two cores busy).
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from tests.benchmarks.results.job import Line, main, recipe_of
from tests.benchmarks.results.plan import LINEAR, Job, Treatments
from tests.benchmarks.seed_tables import known
from tuneline.progress import left

SERVER = ["tests.benchmarks.results.job", "tuneline.train.train", "tuneline.serve.model", "tuneline.evaluate.metrics"]
"""What the processes that train are forked from has imported."""

Keyed = TypeVar("Keyed", Job, Treatments)


def missing(jobs: Sequence[Keyed], path: Path) -> list[Keyed]:
    """The jobs that have no line in the file."""
    done = {(line["part"], line["mode"], line["command"]) for line in known(path)}
    return [job for job in jobs if job.key not in done]


def work(jobs: Sequence[Job], path: Path, workers: int) -> list[str]:
    """Do them, so many at a time; gives what failed, in words.

    Raises:
        KeyboardInterrupt: stopped; the jobs that were under way are lost, no other.
    """
    started, total, ended = time.monotonic(), sum(job.seconds() for job in jobs), list[Job]()
    failed: list[str] = []

    def one(job: Job, processes: Processes) -> None:
        kind, found = processes.do(job)
        if processes.ended:
            return
        with processes.lock:
            ended.append(job)
            done = sum(job.seconds() for job in ended)
            eta = left(time.monotonic() - started, done, total - done)
            told = f"[{len(ended)}/{len(jobs)}, ETA {eta}] {job.part} {job.scenario} {job.mode} seed {job.seed}"
            if kind == "done":
                keep(path, found)
                print(f"{told}: {shown(found)}", flush=True)
            else:
                failed.append(f"{job.scenario} {job.mode} seed {job.seed}: {found.splitlines()[0]}")
                print(f"{told}: FAILED\n{found}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="results-") as folder, ThreadPoolExecutor(workers) as pool:
        processes = Processes(Path(folder))
        waiting = [pool.submit(one, job, processes) for job in jobs]
        try:
            for task in waiting:
                while not task.done():
                    time.sleep(0.1)  # a signal is heard between two of them
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise
    return failed


def shown(line: Line) -> str:
    """A line for the one who waits."""
    accuracy = line["metrics"]["accuracy"][0] if "metrics" in line else line["validation_accuracy"]
    return f"{accuracy:.4f} on {'test' if 'metrics' in line else 'validation'} rows, trained {line['seconds']:.1f} s"


@dataclass
class Processes:
    """Jobs in processes of their own.

    Attributes:
        folder: for prepared data and frozen states, which jobs share.
        lock: held by one thread at a time.
        running: what is under way.
        ended: whether no more may start.
    """

    folder: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    running: list[Any] = field(default_factory=list)
    ended: bool = False

    def do(self, job: Job) -> tuple[str, Any]:
        """How it ended, done or failed, and its line or what happened.

        The baseline's process imports no torch, so that its memory is its own; others are forked from one that has.
        """
        context = multiprocessing.get_context("spawn" if job.mode == LINEAR else "forkserver")
        if job.mode != LINEAR:
            context.set_forkserver_preload(SERVER)
        here, there = context.Pipe()
        try:
            with self.lock:
                if self.ended:
                    return "failed", "stopped"
                data = prepared(job, self.folder)
                process = context.Process(target=_quiet, args=(there, job, data, self.folder / "states"), daemon=True)
                process.start()
                self.running.append(process)
        except Exception as error:
            return "failed", f"{type(error).__name__}: {error}"
        there.close()
        try:
            return here.recv()
        except EOFError:
            process.join()
            return "failed", f"its process ended early (status {process.exitcode})"
        finally:
            process.kill()
            process.join()
            here.close()
            self.running.remove(process)

    def end(self) -> None:
        """Kill what is under way, and start no more."""
        with self.lock:
            self.ended = True
            for process in self.running:
                process.kill()


def _quiet(pipe: Connection, job: Job, data: Path, states: Path) -> None:
    """The job's process: what its steps print is not what the one who waits wants to read."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        main(pipe, job, data, states)


def prepared(job: Job, folder: Path) -> Path:
    """The job's PreparedData; jobs of the same data and tokenizer settings share it."""
    from tuneline.artifacts import address
    from tuneline.prepare.prepare import prepare

    recipe = recipe_of(job.words)
    place = folder / address(data=recipe.data.model_dump(), model=recipe.model.model_dump())
    if not (place / "manifest.json").is_file():
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            # The list of wrong labels is a page for people; it changes no row.
            prepare(recipe.data.model_copy(update={"label_errors": False}), recipe.model, place)
    return place


def keep(path: Path, line: Line) -> None:
    """Append a line to the file, with the machine that it is from."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | {"machine": machine()}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def machine() -> str:
    """The processor and its cores."""
    facts = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if ":" in line
    )
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    name = facts.get("model name", platform.machine()).replace("(R)", "").replace("(TM)", "")
    name = name.split(" CPU")[0].split(" Processor")[0].split("-Core")[0]
    has = facts.get("flags", "").split()
    amx = " with AMX" if "amx_bf16" in has else " with AVX-512 bf16" if "avx512_bf16" in has else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}{amx}, {cores} cores"
