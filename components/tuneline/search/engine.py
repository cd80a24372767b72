"""Trains trials, each in a process of its own, and keeps what they measured.

A trial that is killed, or out of memory, is lost alone; and one whose settings, data, weights and code an earlier
command has trained to its end is not trained again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tuneline.artifacts import read_json, write_json
from tuneline.config import Recipe
from tuneline.dimensions import BALANCE
from tuneline.machine import threads_each
from tuneline.recipe import validate
from tuneline.search.job import Job, Measured, Pruned, Result, key_of
from tuneline.search.origins import Origins
from tuneline.search.processes import POLL_SECONDS, Numbers, call
from tuneline.search.record import SearchRun

T = TypeVar("T")


def configured(recipe: Recipe, overrides: dict[str, Any]) -> Recipe:
    """The recipe with other values of some keys; `balance` stands for those that it names.

    Raises:
        InputError: the values do not go together.
    """
    tree = recipe.model_dump(by_alias=True, mode="json")
    for key, value in spelled_out(overrides).items():
        section, _, name = key.partition(".")
        tree[section][name] = value
    return validate(Recipe, tree)


def spelled_out(overrides: dict[str, Any]) -> dict[str, Any]:
    """Keys of the recipe alone: `balance` replaced by what it stands for."""
    rest = {key: value for key, value in overrides.items() if key != "balance"}
    return rest | BALANCE.get(overrides.get("balance", ""), {})


@dataclass
class Engine:
    """Trains trials of one search.

    Attributes:
        folder: of the search: answers, logs, results.
        run: the MLflow run of the search.
        workers: trials at a time.
        stop: set when the command is to end.
        origins: what results come from.
    """

    folder: Path
    run: SearchRun
    workers: int = 1
    stop: threading.Event = field(default_factory=threading.Event)
    origins: Origins = field(default_factory=Origins)

    def __post_init__(self) -> None:
        for name in ("answers", "logs", "results"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    @property
    def threads(self) -> int:
        """Of each trial's arithmetic."""
        return threads_each(self.workers)

    def trial(
        self,
        recipe: Recipe,
        overrides: dict[str, Any],
        data: Path,
        name: str,
        *,
        tags: dict[str, Any] | None = None,
        on_epoch: Callable[[int, Numbers], bool] | None = None,
        deadline: float = float("inf"),
    ) -> Result:
        """Train the recipe with these overrides, as a child run of the search.

        Args:
            recipe: what all trials share.
            overrides: what this one has of its own.
            data: its prepared data.
            name: of its MLflow run.
            tags: of its MLflow run.
            on_epoch: hears of the number and the metrics of each epoch, and says whether to go on.
            deadline: by time.monotonic, when to give it up.

        Raises:
            InputError: settings or data that cannot be trained.
            Pruned: on_epoch said no.
            OutOfTime, Interrupted, TrialLost: it was not trained to its end.
        """
        own = configured(recipe, overrides)
        job = self._job(own, data)
        params = {**{key: str(value) for key, value in overrides.items()}, "train.seed": own.train.seed}
        score = f"validation_{own.sweep.metric}"
        with self.run.child(name, params, tags or {}) as child:
            if known := self._known(job):
                child.note(known.numbers, known.metrics, known.seconds, known.peak_memory_mib)
                return self._result(own, overrides, job, known, child.run_id, reused=True)

            def told(epoch: int, numbers: Numbers) -> bool:
                child.epoch(epoch, {score: numbers[score], **numbers})  # the UI's parallel coordinates take the first
                return on_epoch(epoch, numbers) if on_epoch else True

            measured = self._train(job, told, deadline)
            child.note(measured.numbers, measured.metrics, measured.seconds, measured.peak_memory_mib)
            write_json(self._place(job), measured.__dict__)
            return self._result(own, overrides, job, measured, child.run_id)

    def _job(self, recipe: Recipe, data: Path) -> Job:
        model, train = recipe.model.model_dump(mode="json"), recipe.train.model_dump(mode="json")
        key = key_of(Job(str(data), model, train, "", ""), self.origins.of(data, recipe.model))
        answers, log = self.folder / "answers" / f"{key}.npz", self.folder / "logs" / f"{key}.log"
        return Job(str(data), model, train, str(answers), str(log), self.threads)

    def _place(self, job: Job) -> Path:
        return self.folder / "results" / f"{Path(job.answers).stem}.json"

    def _known(self, job: Job) -> Measured | None:
        place = self._place(job)
        if not (place.is_file() and Path(job.answers).is_file()):
            return None
        with suppress(ValueError, TypeError, KeyError):  # half written when the machine went down
            known = read_json(place)
            metrics = {name: tuple(ends) for name, ends in known["metrics"].items()}
            return Measured(**known | {"metrics": metrics})
        return None

    def _result(
        self, recipe: Recipe, overrides: dict[str, Any], job: Job, measured: Measured, run_id: str, reused: bool = False
    ) -> Result:
        return Result(
            overrides, recipe.train.seed, measured.seconds, measured.metrics, measured.peak_memory_mib, measured.rows,
            measured.numbers["train_seconds"], job.answers, run_id, reused, measured.numbers,
        )  # fmt: skip

    def _train(self, job: Job, on_epoch: Callable[[int, Numbers], bool], deadline: float) -> Measured:
        kind, value = self.call("tuneline.search.trial", job, on_epoch, deadline, log=job.log)
        if kind == "stopped":
            raise Pruned
        return value

    def call(
        self,
        module: str,
        job: Any,
        on_epoch: Callable[[int, Numbers], bool] | None = None,
        deadline: float = float("inf"),
        log: str = "",
    ) -> tuple[str, Any]:
        """Have `main(pipe, job)` of a module run in a process of its own; gives how it ended, and its value."""
        return call(module, job, self.stop, on_epoch, deadline, log)

    def each(self, work: Callable[[T], None], items: Iterable[T]) -> None:
        """Do the work for every item, as many at a time as there are workers; the first error ends it."""
        with ThreadPoolExecutor(self.workers) as pool:
            waiting = [pool.submit(work, item) for item in items]
            try:
                while not all(task.done() for task in waiting):
                    time.sleep(POLL_SECONDS / 5)  # a signal is heard between two of them
                    if failed := next((task for task in waiting if task.done() and task.exception()), None):
                        failed.result()
                for task in waiting:
                    task.result()
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise
