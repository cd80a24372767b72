"""A search in MLflow: a run for the whole, a child run for each trial, so that the UI's charts compare the trials.

The command that runs the trials writes all of it: a trial's own process knows nothing of MLflow. A metric that cannot
be sent waits in the outbox, and stops no trial.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tuneline import tracking
from tuneline.config import Recipe
from tuneline.search.job import Interrupted, Interval, OutOfTime, Pruned
from tuneline.tracking import StepRun
from tuneline.trouble import told_of

Numbers = dict[str, float]


@dataclass
class Child:
    """The run of one trial."""

    step: StepRun
    epochs: int = 0
    curves: set[str] = field(default_factory=set)
    """Metrics that each epoch had."""

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.step.run_id

    def epoch(self, number: int, values: Numbers) -> None:
        """The metrics of an epoch."""
        self.epochs = number
        self.curves |= values.keys()
        self.step.metrics(values, number)

    def note(self, numbers: Numbers, metrics: dict[str, Interval], seconds: float, peak_memory_mib: float) -> None:
        """What the trial measured; intervals stand beside their values.

        The end of a curve is told at the last epoch: a run is shown by its highest step, and at 0 it would begin the
        curve. The rest is at 0: MLflow draws what has no other step as a bar a run, and anything else as a curve.
        """
        values = {name: number for name, number in numbers.items() if name.startswith("train_")}
        for name, (value, low, high) in metrics.items():
            values |= {f"validation_{name}": value, f"validation_{name}_low": low, f"validation_{name}_high": high}
        values |= {"seconds": seconds, "peak_memory_mib": peak_memory_mib}
        self.step.metrics({name: value for name, value in values.items() if name in self.curves}, self.epochs)
        self.step.metrics({name: value for name, value in values.items() if name not in self.curves})


class SearchRun:
    """The run of a search.

    Args:
        run_id: its id.
        owned: whether it is ours to end.
    """

    def __init__(self, run_id: str, owned: bool = True) -> None:
        self.api, self.run_id, self.owned = tracking.client(), run_id, owned
        self.experiment = self.api.get_run(run_id).info.experiment_id

    @classmethod
    def open(
        cls, kind: str, recipe: Recipe, params: dict[str, Any], artifacts: str | None, owner: str, known: str = "",
        lives: Callable[[str], bool] = lambda _owner: False, experiment: str = "",
    ) -> SearchRun:  # fmt: skip
        """A new run, or the one of an earlier command that is taken up again.

        Args:
            kind: sweep, imbalance or choose.
            recipe: what the trials start from.
            params: of the search.
            artifacts: where a new experiment keeps its files.
            owner: the process that will close it.
            known: the earlier command's run; one that is gone is made anew.
            lives: whether a process still runs: a run whose owner does is joined, and left to it.
            experiment: where a new run goes, and no run is injected; empty takes register.name.
        """
        if known and (run := _known(known)):
            theirs = run.data.tags.get("tuneline.owner", "")
            if run.info.status == "RUNNING" and theirs != owner and lives(theirs):
                return cls(known, owned=False)
            api = tracking.client()
            api.update_run(known, status="RUNNING")
            StepRun(api, known).tags({"tuneline.owner": owner})
            return cls(known)
        text = yaml.safe_dump(recipe.model_dump(by_alias=True, mode="json"), sort_keys=False)
        flat = recipe.flat() | params
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.yaml"
            path.write_text(text, encoding="utf-8")
            name = experiment or recipe.register_.name
            return cls(*tracking.open_pipeline_run(name, artifacts, flat, path, owner, kind, join=not experiment))

    @contextmanager
    def child(self, name: str, params: dict[str, Any], tags: dict[str, Any]) -> Iterator[Child]:
        """The run of a trial, ended as the trial ends.

        Args:
            name: of the run.
            params: recipe key -> value, called as the pipeline's steps call them: MLflow sets both in one column.
            tags: more of them.
        """
        given = {"mlflow.parentRunId": self.run_id, "tuneline.step": "trial"}
        made = self.api.create_run(self.experiment, run_name=name, tags=given | {k: str(v) for k, v in tags.items()})
        step = StepRun(self.api, made.info.run_id, self.run_id, name)
        status = "FINISHED"
        try:
            step.params({key.replace(".", "_"): value for key, value in params.items()})
            with step.outbox:
                yield Child(step)
        except Pruned:
            step.tags({"tuneline.pruned": "true"})
            raise
        except (Interrupted, OutOfTime, KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        except BaseException as error:
            status = "FAILED"
            with suppress(Exception):
                step.tags({"tuneline.error": told_of(error)})
            raise
        finally:
            with suppress(Exception):  # a server that is away stops no search
                step.outbox.flush(patience=2)
            with suppress(Exception):
                self.api.set_terminated(made.info.run_id, status)

    def artifacts(self, *paths: Path) -> None:
        """Store files."""
        for path in paths:
            self.api.log_artifact(self.run_id, str(path))

    def headline(self, values: Numbers) -> None:
        """Metrics of the search as a whole."""
        run = StepRun(self.api, self.run_id)
        run.metrics(values)
        run.flush()

    def fail(self, why: BaseException) -> None:
        """End it as one that failed, and leave the trials of others alone, which may take it up again."""
        killed = isinstance(why, KeyboardInterrupt | SystemExit)
        with tracking.last_word(), suppress(Exception):
            StepRun(self.api, self.run_id).tags({"tuneline.error": told_of(why)})
            self.api.set_terminated(self.run_id, "KILLED" if killed else "FAILED")

    def close(self, status: str) -> None:
        """End it, and the runs of trials that did not get to it; another command's run is left alone."""
        if self.owned:
            tracking.close_pipeline_run(self.run_id, status, owned=True)


def _known(run_id: str) -> Any:
    """The run of an earlier command; None where the store is another one, or has lost it."""
    try:
        found = tracking.client().get_run(run_id)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return found if found.info.lifecycle_stage == "active" else None
