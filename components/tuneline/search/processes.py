"""Has a module do one job in a process of its own, which may be killed at any time and then is lost alone.

The processes are forked from one that has imported torch already (multiprocessing's forkserver), which spares each of
them the seconds that its imports take, and the process that asks torch altogether.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from tuneline import stopping
from tuneline.errors import DivergedError, InputError
from tuneline.search.job import Interrupted, OutOfTime, TrialLost

POLL_SECONDS = 0.25
Numbers = dict[str, float]


def call(
    module: str,
    job: Any,
    stop: threading.Event,
    on_epoch: Callable[[int, Numbers], bool] | None = None,
    deadline: float = float("inf"),
    log: str = "",
) -> tuple[str, Any]:
    """Have `main(pipe, job)` of a module run in a process of its own; gives how it ended, and its value.

    Raises:
        InputError: it refused the job.
        OutOfTime, Interrupted, TrialLost: it did not come to its end.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tuneline.search.trial"])
    here, there = processes.Pipe()
    process = processes.Process(target=_start, args=(module, there, job), daemon=True)
    with _quiet_main():
        process.start()
    there.close()
    try:
        return _listen(here, process, stop, on_epoch, deadline, log)
    finally:
        process.kill()
        process.join()
        here.close()


def _listen(
    pipe: Any,
    process: Any,
    stop: threading.Event,
    on_epoch: Callable[[int, Numbers], bool] | None,
    deadline: float,
    log: str,
) -> tuple[str, Any]:
    while True:
        if stop.is_set():
            raise Interrupted
        if time.monotonic() >= deadline:
            raise OutOfTime
        if not pipe.poll(POLL_SECONDS):
            continue
        try:
            kind, *values = pipe.recv()
            if kind == "epoch":
                pipe.send(on_epoch(*values) if on_epoch else True)
                continue
        except (EOFError, ConnectionError):
            process.join()
            raise TrialLost(f"its process was killed or ended early (status {process.exitcode})") from None
        if kind == "diverged":
            raise DivergedError(values[0])
        if kind == "refused":
            raise InputError(values[0])
        if kind == "failed":
            raise TrialLost(f"{values[0]}{f'; log: {log}' if log else ''}")
        return kind, values[0]


def _start(module: str, pipe: Connection, job: Any) -> None:
    """In the new process: signals that a whole group gets are the command's affair, which kills it; then the main."""
    import importlib

    stopping.ignore()
    importlib.import_module(module).main(pipe, job)


@contextmanager
def _quiet_main() -> Iterator[None]:
    """Let a new process not import the command itself again, as multiprocessing would to find functions there."""
    import sys

    main = sys.modules["__main__"]
    with _ONE_STARTS:
        known = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
        try:
            for name in known:
                setattr(main, name, None)
            yield
        finally:
            for name, value in known.items():
                setattr(main, name, value)


_ONE_STARTS = threading.Lock()
