"""MLflow runs: one parent a pipeline run, one child a step.

The parent's id reaches the steps by the environment (TUNELINE_PARENT_RUN_ID), never as an argument, which would defeat
KFP's cache. Where KFP's own MLflow plugin injects MLFLOW_RUN_ID, that run is joined instead. The explicit client is
used throughout, because a fluent run left open by a killed process would stay RUNNING.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline import __version__
from tuneline.artifacts import SPLITS, PreparedData
from tuneline.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "TUNELINE_PARENT_RUN_ID"
EXPERIMENT = "TUNELINE_EXPERIMENT"
_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "mlflow",
    "mlflow-skinny",
    "kfp",
    "scikit-learn",
    "numpy",
)
_BATCH = 200
# MLflow's own tag for what an experiment is for; without it the UI guesses from what it finds there.
_EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}


def client() -> MlflowClient:
    """The client on MLFLOW_TRACKING_URI; quiet, and without telemetry."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for one JSON object, or predictions
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # half a minute, where the default is several
    import logging

    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient()


def experiment_id(api: MlflowClient, name: str, artifacts: str | None = None) -> str:
    """The experiment of that name, made where there is none.

    Raises:
        InputError: it was deleted.
    """
    found = api.get_experiment_by_name(name)
    if found is None:
        from mlflow.exceptions import MlflowException

        try:
            return api.create_experiment(name, artifact_location=artifacts, tags=_EXPERIMENT_KIND)
        except MlflowException as error:
            found = api.get_experiment_by_name(name)  # another run may have made it in between
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
    if found.lifecycle_stage != "active":
        raise InputError(f"register.name: the MLflow experiment {name!r} is deleted; restore it or use another name")
    return found.experiment_id


class StepRun:
    """A run that a step writes to. Metrics are sent in batches; `flush` sends what waits."""

    def __init__(self, api: MlflowClient, run_id: str, parent: str | None = None) -> None:
        self.api, self.run_id, self.parent = api, run_id, parent
        self._waiting: list[Any] = []

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Record values at a step."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]
        if len(self._waiting) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Send the waiting metrics."""
        if self._waiting:
            self.api.log_batch(self.run_id, metrics=self._waiting)
            self._waiting = []

    def params(self, values: dict[str, Any]) -> None:
        """Record parameters."""
        from mlflow.entities import Param

        self.api.log_batch(self.run_id, params=[Param(name, str(value)) for name, value in values.items()])

    def tags(self, values: dict[str, Any]) -> None:
        """Record tags."""
        from mlflow.entities import RunTag

        self.api.log_batch(self.run_id, tags=[RunTag(name, str(value)) for name, value in values.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file."""
        self.api.log_artifact(self.run_id, str(path), folder)

    def dataset(self, manifest: PreparedData) -> None:
        """Log the splits as MLflow dataset inputs, here and on the parent, with their full-content SHA-256."""
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        for split in SPLITS:
            profile = json.dumps({"num_rows": manifest.rows[split], "sha256": manifest.sha256[split]})
            source = json.dumps({"uri": manifest.sources[split] or manifest.sources["train"]})
            # MLflow's digest column holds 36 characters; the profile carries the whole hash.
            digest = manifest.sha256[split][:36]
            data = Dataset(split, digest, "tuneline", source, profile=profile)
            for run_id in filter(None, (self.run_id, self.parent)):
                self.api.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", split)])])


@contextmanager
def step_run(step: str, params: dict[str, Any]) -> Iterator[StepRun]:
    """A step's run: a child of the pipeline's, or the injected one; ended FAILED where the step fails.

    Args:
        step: the step's name.
        params: its configuration.
    """
    api = client()
    parent, injected = os.environ.get(PARENT), os.environ.get("MLFLOW_RUN_ID")
    if parent:
        experiment = api.get_run(parent).info.experiment_id
        run_id = api.create_run(experiment, run_name=step, tags={"mlflow.parentRunId": parent}).info.run_id
    elif injected:
        run_id = injected
    else:
        experiment = experiment_id(api, os.environ.get(EXPERIMENT, "tuneline"))
        run_id = api.create_run(experiment, run_name=step).info.run_id
    run = StepRun(api, run_id, parent)
    owned = bool(parent) or not injected
    try:
        run.params(params)
        run.tags({"tuneline.step": step, **environment()})
        yield run
        run.flush()
    except BaseException as error:
        with suppress(Exception):
            run.flush()
        if owned:
            with suppress(Exception):
                run.tags({"tuneline.error": str(error) if isinstance(error, InputError) else type(error).__name__})
            # A broken pipe is the first that a step hears of a command that was killed outright.
            killed = isinstance(error, KeyboardInterrupt | SystemExit | BrokenPipeError)
            api.set_terminated(run_id, "KILLED" if killed else "FAILED")
        raise
    if owned:
        api.set_terminated(run_id, "FINISHED")


def open_pipeline_run(
    name: str, artifacts: str | None, params: dict[str, Any], recipe: Path, owner: str | None
) -> tuple[str, bool]:
    """The parent run: the one that the environment names, else a new one.

    Args:
        name: the experiment's name.
        artifacts: where a new experiment keeps its artifacts; None leaves it to the server.
        params: the flat recipe.
        recipe: the resolved recipe as a file, stored as an artifact.
        owner: names the process that will close the run, for close_abandoned.

    Returns:
        Its id, and whether it is ours to end.
    """
    api = client()
    injected = os.environ.get("MLFLOW_RUN_ID")
    tags = {"tuneline.pipeline": "finetune", "tuneline.owner": "" if injected else owner or ""}
    run_id = injected or api.create_run(experiment_id(api, name, artifacts), tags=tags).info.run_id
    run = StepRun(api, run_id)
    try:
        run.params(params)
        seeds = {f"tuneline.{key}": value for key, value in params.items() if key.endswith("_seed")}
        run.tags(tags | environment() | seeds)
        run.artifact(recipe, "configuration")
        api.log_text(run_id, "\n".join(installed()) + "\n", "configuration/requirements.txt")
    except BaseException:
        if not injected:
            api.set_terminated(run_id, "FAILED")
        raise
    return run_id, injected is None


def close_pipeline_run(run_id: str, status: str, owned: bool, metrics: dict[str, float] | None = None) -> None:
    """End the parent, and every child that a killed step left RUNNING.

    Args:
        run_id: the parent.
        status: FINISHED, FAILED or KILLED.
        owned: whether the parent is ours to end.
        metrics: what to show on the parent.
    """
    api = client()
    experiment = api.get_run(run_id).info.experiment_id
    children = api.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'"
    )
    for child in children:
        api.set_terminated(child.info.run_id, "KILLED" if status == "KILLED" else "FAILED")
    run = StepRun(api, run_id)
    run.metrics(metrics or {})
    run.flush()
    if owned:
        api.set_terminated(run_id, status)


def close_abandoned(lives: Callable[[str], bool]) -> None:
    """End the pipeline runs that a process killed outright (SIGKILL, a power cut) left RUNNING.

    Args:
        lives: tells whether the owner that open_pipeline_run was given still runs.
    """
    api = client()
    experiments = [found.experiment_id for found in api.search_experiments()]
    query = "tags.`tuneline.pipeline` = 'finetune' and attributes.status = 'RUNNING'"
    for run in api.search_runs(experiments, query) if experiments else []:
        owner = run.data.tags.get("tuneline.owner")
        if owner and not lives(owner):
            close_pipeline_run(run.info.run_id, "KILLED", owned=True)


def recent_runs(limit: int, name: str | None) -> list[dict[str, Any]]:
    """Pipeline runs, the newest first: run_id, experiment, status, started (ms), metrics, params."""
    api = client()
    experiments = [found for found in api.search_experiments() if name in (None, found.name)]
    names = {found.experiment_id: found.name for found in experiments}
    if not names:
        return []
    runs = api.search_runs(
        list(names), "tags.`tuneline.pipeline` = 'finetune'", max_results=limit, order_by=["attributes.start_time DESC"]
    )
    return [
        {
            "run_id": run.info.run_id, "experiment": names[run.info.experiment_id], "status": run.info.status,
            "started": run.info.start_time, "metrics": dict(run.data.metrics), "params": dict(run.data.params),
        }
        for run in runs
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """Versions, platform and git commit, as tags."""
    tags = {"tuneline.version": __version__, "tuneline.python": platform.python_version()}
    tags |= {f"tuneline.version.{name}": version for name in _PACKAGES if (version := _version(name))}
    if commit := git_commit():
        tags["mlflow.source.git.commit"] = commit
    tags["mlflow.source.name"] = Path(sys.argv[0]).name
    return tags


def installed() -> list[str]:
    """Every installed distribution as NAME==VERSION, sorted."""
    return sorted({f"{found.name}=={found.version}" for found in metadata.distributions()}, key=str.lower)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the working directory, or what the image was built from (TUNELINE_COMMIT)."""
    if commit := os.environ.get("TUNELINE_COMMIT"):
        return commit
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
