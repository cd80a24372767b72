"""What every search does around its work: where it prints, what its trials find, and how it is stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

from tuneline.config import Recipe
from tuneline.progress import left
from tuneline.search.engine import Engine
from tuneline.search.record import SearchRun
from tuneline.storage import CHECKPOINTS
from tuneline.tracking import last_word
from tuneline_pipelines.local import stopped_by_signals
from tuneline_pipelines.state import State, close_abandoned, note_open, owner
from tuneline_pipelines.watch import Tell, Watcher


@contextmanager
def searching(state: State, tell: Tell, name: str) -> Iterator[None]:
    """Run a search: what it prints goes to a log, its runs are noted; Ctrl-C, SIGTERM and a closed terminal stop it.

    From the first signal on, others are ignored until its trials and runs are ended.
    """
    os.environ.setdefault(CHECKPOINTS, str(state.checkpoints))  # states of frozen layers are shared by trials
    state.logs.mkdir(parents=True, exist_ok=True)
    close_abandoned(state)
    note = note_open(state)
    with (state.logs / f"{name}.log").open("a", encoding="utf-8", buffering=1) as log:
        stream: Any = Watcher(log, tell)  # only a stream's write and flush are used
        with stopped_by_signals(), redirect_stdout(stream):
            yield
    note.unlink(missing_ok=True)


@contextmanager
def opened(kind: str, recipe: Recipe, state: State, workers: int, params: dict[str, Any]) -> Iterator[Engine]:
    """An engine within an MLflow run of its own, which ends as the work does.

    What a training measured is kept, so that the same command, stopped, goes on. The data are prepared before: input
    that is refused then leaves no failed run.
    """
    run = SearchRun.open(kind, recipe, params, state.artifacts, owner())
    engine = Engine(state.home / "search" / "trials", run, workers)
    with closing(run, engine):
        yield engine


@contextmanager
def closing(run: SearchRun, engine: Engine) -> Iterator[None]:
    """End the run as the search ends."""
    try:
        yield
        run.close("FINISHED")
    except BaseException as error:
        engine.stop.set()
        with last_word(), suppress(Exception):  # the first error tells more; the next command closes the run
            run.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


def counter(tell: Tell, step: str, unit: str) -> Callable[[int, int], None]:
    """Tells how many are done, and when the rest will be."""
    started = time.monotonic()

    def told(done: int, total: int) -> None:
        eta = left(time.monotonic() - started, done, total - done) if done else "0:00"
        tell(step, done, total, f"{unit} | ETA {eta}")

    return told
