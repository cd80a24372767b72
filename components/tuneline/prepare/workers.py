"""Processes that share a step's work: tasks go out as they come, results come back in the tasks' order.

They are started by command and speak over a socket pair, because multiprocessing's own pools would import the step's
main module (kfp) into each, and their processes outlive a parent that was killed outright: here a closed socket ends
them. What a task gives depends on the task alone, so that the number of processes changes no result.

A worker: python -P -m tuneline.prepare.workers DESCRIPTOR
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, TypeVar

from tuneline.errors import InputError, ServiceError
from tuneline.machine import usable_cores

Task = TypeVar("Task")
Result = TypeVar("Result")

FEW = 4
"""Tasks up to which no process is worth its start."""
AHEAD = 2
"""Tasks that a worker holds: one at work, one that waits."""
_GONE = (EOFError, ConnectionError, OSError)


class Pool:
    """Worker processes, started when there is work for them; a context, at whose end none is left.

    Args:
        processes: at most so many; 0 takes one for each usable core, 1 works in this process.
    """

    def __init__(self, processes: int = 0) -> None:
        self.processes = processes or usable_cores()
        self.workers: list[_Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.stop()
        self.workers = []

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The results of the tasks, in their order; tasks are drawn as fast as they are worked off.

        Args:
            work: can be pickled, and gives the same wherever it is called.
            tasks: can be pickled.

        Raises:
            ServiceError: a process was killed.
            InputError: what `work` found.
            RuntimeError: what else it raised in another process, with its traceback.
        """
        rest = iter(tasks)
        first = list(islice(rest, FEW + 1))
        if self.processes == 1 or (len(first) <= FEW and not self.workers):
            return map(work, chain(first, rest))
        return self._spread(work, chain(first, rest))

    def _spread(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        for worker in self.workers:
            worker.send(work)
        numbered, done, due = enumerate(tasks), {}, 0
        upcoming = next(numbered, None)
        while upcoming or self._held():
            while upcoming and self._held() + len(done) < 2 * AHEAD * self.processes and (worker := self._free(work)):
                worker.take(upcoming)
                upcoming = next(numbered, None)
            for worker in self._heard():
                number, result = worker.result()
                done[number] = result
            while due in done:
                yield done.pop(due)
                due += 1

    def _held(self) -> int:
        """Tasks that are out."""
        return sum(worker.held for worker in self.workers)

    def _heard(self) -> list[_Worker]:
        """The workers that have something to say, once there is one."""
        ready = wait([worker.connection for worker in self.workers if worker.held])
        return [worker for worker in self.workers if worker.connection in ready]

    def _free(self, work: Callable[..., Any]) -> _Worker | None:
        """The worker with the least to do; a new one while all are busy and more are allowed."""
        idle = min(self.workers, key=lambda worker: worker.held, default=None)
        if (idle is None or idle.held) and len(self.workers) < self.processes:
            idle = _Worker(self.processes)
            self.workers.append(idle)
            idle.send(work)
        return idle if idle is not None and idle.held < AHEAD else None


class _Worker:
    """One process, as its parent sees it."""

    def __init__(self, processes: int) -> None:
        self.processes, self.held = processes, 0
        self.connection, theirs = Pipe()
        path = os.pathsep.join(filter(None, sys.path))
        # one thread each: the cores are shared out among the processes
        one = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tuneline.prepare.workers", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=os.environ | one | {"PYTHONPATH": path},
        )  # fmt: skip
        theirs.close()

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except _GONE:
            raise self._lost() from None

    def take(self, task: tuple[int, Any]) -> None:
        self.send(task)
        self.held += 1

    def result(self) -> tuple[int, Any]:
        try:
            number, result, wrong = self.connection.recv()
        except _GONE:
            raise self._lost() from None
        self.held -= 1
        if isinstance(wrong, InputError):
            raise wrong
        if wrong:
            raise RuntimeError(wrong.splitlines()[-1]) from RuntimeError(f"in a worker process:\n{wrong}")
        return number, result

    def _lost(self) -> ServiceError:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        if code == -signal.SIGKILL:
            how = "was killed, most likely for lack of memory"
        else:
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return ServiceError(
            f"prepare: one of its worker processes {how}; give the step more memory, or fewer processes by "
            f"data.workers (now {self.processes})"
        )

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main(descriptor: int) -> None:
    """Work off what comes: a callable first, then (number, task) after (number, task), until another callable."""
    for number in (signal.SIGINT, signal.SIGHUP):  # they reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(descriptor)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    work: Any = None
    while True:
        message = inbox.get()
        if callable(message):
            work = message
            continue
        try:
            connection.send(_answer(work, *message))
        except _GONE:
            return


def _listen(connection: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    """Take in all that is sent, so that the parent never waits for a worker that waits for it; end with the parent."""
    try:
        while True:
            inbox.put(connection.recv())
    except BaseException as error:
        if not isinstance(error, _GONE):
            traceback.print_exc()
        os._exit(0 if isinstance(error, _GONE) else 1)


def _answer(work: Callable[[Any], Any], number: int, task: Any) -> tuple[int, Any, InputError | str | None]:
    """The result, or what went wrong: bad input as it is, else the traceback, since not every error can be pickled."""
    try:
        return number, work(task), None
    except InputError as error:
        return number, None, error
    except Exception:
        return number, None, traceback.format_exc()


if __name__ == "__main__":
    main(int(sys.argv[1]))
