"""MLflow runs: one parent a pipeline run, one child a step.

The parent's id reaches the steps by the environment (TUNELINE_PARENT_RUN_ID), never as an argument, which would defeat
KFP's cache. In a cluster, where nothing makes a parent beforehand, the steps of one KFP run meet in one by KFP's id of
it (KFP_RUN_ID, which a profile puts into each pod). Where KFP's own MLflow plugin injects MLFLOW_RUN_ID, that run is
joined instead. The explicit client is used throughout, because a fluent run left open by a killed process would stay
RUNNING.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import SPLITS, STEPS, PreparedData
from tuneline.errors import InputError, ServiceError, without_credentials
from tuneline.outbox import Outbox
from tuneline.progress import say
from tuneline.provenance import environment, installed
from tuneline.sqlite_store import make_store
from tuneline.stopping import unstoppable
from tuneline.trouble import told_of, trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "TUNELINE_PARENT_RUN_ID"
EXPERIMENT = "TUNELINE_EXPERIMENT"
KFP_RUN = "KFP_RUN_ID"
_KFP_TAG = "tuneline.kfp_run_id"
_HEADLINES: dict[str, tuple[str, ...]] = {"train": ("train_", "validation_"), "evaluate": ("",)}
"""How the metrics of a step begin that stand on its parent too."""
_QUICK, _PATIENT = 4, 7
"""Retries of a request: half a minute for a person who waits, four (MLflow's own) for a step."""
_BUSY_SECONDS = 30
"""What a server that takes connections may need to say that it is there: many may ask it at once."""
_LAST_SECONDS = 5
"""What a request may take, and once more, that tells how the work ended."""
# MLflow's own tag for what an experiment is for; without it the UI guesses from what it finds there.
_EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}


def with_driver(url: str) -> str:
    """A database's address, PostgreSQL's with psycopg 2, which comes with tuneline: SQLAlchemy looks for psycopg 3."""
    return re.sub("^postgres(ql)?://", "postgresql+psycopg2://", url)


def client() -> MlflowClient:
    """The client on MLFLOW_TRACKING_URI; quiet, and without telemetry."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for one JSON object, or predictions
    import logging

    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    make_store(os.environ.get("MLFLOW_TRACKING_URI", ""))
    return MlflowClient()


def _retry(times: int) -> None:
    """Let this process retry its requests that often, where MLFLOW_HTTP_REQUEST_MAX_RETRIES says nothing else."""
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES

    MLFLOW_HTTP_REQUEST_MAX_RETRIES.default = times  # not by the environment, which the steps of a command inherit


@contextmanager
def last_word() -> Iterator[None]:
    """While this lasts, requests give up within seconds, and signals are ignored: to tell how the work ended."""
    with unstoppable():
        from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

        patience = {MLFLOW_HTTP_REQUEST_MAX_RETRIES: 1, MLFLOW_HTTP_REQUEST_TIMEOUT: _LAST_SECONDS}
        before = {variable: variable.default for variable in patience}
        try:
            for variable, least in patience.items():
                variable.default = least
            yield
        finally:
            for variable, earlier in before.items():
                variable.default = earlier


def check_server() -> None:
    """For a command: see at once, before anything is made, that the server of MLFLOW_TRACKING_URI is there.

    Raises:
        ServiceError: it does not answer.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith(("http://", "https://")):
        return
    import requests

    _retry(_QUICK)
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=(10, _BUSY_SECONDS))
    except requests.exceptions.SSLError:
        return  # MLflow's own settings may trust the certificate
    except requests.exceptions.RequestException as error:
        silent = isinstance(error, requests.exceptions.ReadTimeout)
        why = f"no answer in {_BUSY_SECONDS} seconds" if silent else "no connection"
        raise ServiceError(
            f"MLflow at {without_credentials(uri)}: not to be reached ({why}); start it, or check MLFLOW_TRACKING_URI"
        ) from None


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
    """A run that a step writes to. Metrics wait in an outbox, and are sent while its context lasts, or by `flush`."""

    def __init__(self, api: MlflowClient, run_id: str, parent: str | None = None, name: str = "") -> None:
        self.api, self.run_id, self.parent, self.name = api, run_id, parent, name
        self.outbox = Outbox(lambda metrics: api.log_batch(run_id, metrics=metrics), self._tell)

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Record values at a step."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.outbox.put([Metric(name, value, now, step) for name, value in values.items()])

    def flush(self) -> None:
        """Send the waiting metrics."""
        self.outbox.flush()

    def _tell(self, error: Exception | None) -> None:
        if error:
            say(f"[{self.name}] metrics are kept until they can be sent: {trouble(error) or type(error).__name__}")
        else:
            say(f"[{self.name}] metrics are sent again")

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
    """A step's run: a child of the pipeline's, or the injected one; ended FAILED or KILLED where the step is.

    Args:
        step: the step's name.
        params: its configuration.
    """
    api = client()
    _retry(_PATIENT)
    given, injected = os.environ.get(PARENT), os.environ.get("MLFLOW_RUN_ID")
    shared = None if given or injected else _kfp_parent(api, step, params)
    run = _open_step(api, step, given or shared, injected)
    owned = run.run_id != injected
    try:
        run.params(params)
        run.tags({"tuneline.step": step, **environment()})
        with run.outbox:
            yield run
        run.flush()
        if owned:
            _end_step(run, "FINISHED", shared)
    except BaseException as error:
        with last_word():
            with suppress(Exception):
                run.outbox.flush(patience=2)
            if owned:
                with suppress(Exception):
                    run.tags({"tuneline.error": told_of(error)})
                # A broken pipe is the first that a step hears of a command that was killed outright.
                killed = isinstance(error, KeyboardInterrupt | SystemExit | BrokenPipeError)
                with suppress(Exception):  # of the two errors the first one tells more
                    _end_step(run, "KILLED" if killed else "FAILED", shared)
        raise


def _open_step(api: MlflowClient, step: str, parent: str | None, injected: str | None) -> StepRun:
    if parent:
        experiment = api.get_run(parent).info.experiment_id
        run_id = api.create_run(experiment, run_name=step, tags={"mlflow.parentRunId": parent}).info.run_id
    elif injected:
        run_id = injected
    else:
        experiment = experiment_id(api, os.environ.get(EXPERIMENT, "tuneline"))
        run_id = api.create_run(experiment, run_name=step).info.run_id
    return StepRun(api, run_id, parent, step)


def _end_step(run: StepRun, status: str, shared: str | None) -> None:
    """End a step's run, and the parent in a cluster, where nobody else will: after the last step, or a failed one."""
    run.api.set_terminated(run.run_id, status)
    if shared and (status != "FINISHED" or run.name == STEPS[-1]):
        close_pipeline_run(shared, status, owned=True, metrics=_headlines(run.api, shared))


def _kfp_parent(api: MlflowClient, step: str, params: dict[str, Any]) -> str | None:
    """The run that the steps of one KFP run share, found by KFP's id of it or made; open, whatever a retry finds."""
    kfp_run = os.environ.get(KFP_RUN)
    if not kfp_run or step not in STEPS:
        return None
    experiment = experiment_id(api, os.environ.get(EXPERIMENT, "tuneline"))
    query = f"tags.`{_KFP_TAG}` = '{kfp_run}'"
    found = api.search_runs([experiment], query, order_by=["attributes.start_time ASC"])
    if not found:
        tags = {"tuneline.pipeline": "finetune", _KFP_TAG: kfp_run, **environment()}
        found = [api.create_run(experiment, tags=tags)]
    parent = found[0].info.run_id
    if found[0].info.status != "RUNNING":
        api.update_run(parent, status="RUNNING")
    for earlier in _children(api, parent, f"attributes.run_name = '{step}' and attributes.status = 'RUNNING'"):
        api.set_terminated(earlier.info.run_id, "FAILED")  # an attempt whose pod was killed outright
    above = StepRun(api, parent)
    above.params(params)
    above.tags(_seeds(params))
    return parent


def _children(api: MlflowClient, parent: str, query: str) -> list[Run]:
    experiment = api.get_run(parent).info.experiment_id
    return list(api.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}' and {query}"))


def _headlines(api: MlflowClient, parent: str) -> dict[str, float]:
    """What the finished steps measured as a whole, such as accuracy, and not at each step of training."""
    newest_first = _children(api, parent, "attributes.status = 'FINISHED'")
    return {
        name: value
        for run in reversed(newest_first)
        for name, value in run.data.metrics.items()
        if name.startswith(_HEADLINES.get(run.data.tags.get("tuneline.step", ""), ()))
    }


def _seeds(params: dict[str, Any]) -> dict[str, Any]:
    return {f"tuneline.{key}": value for key, value in params.items() if key.endswith("_seed")}


def open_pipeline_run(
    name: str, artifacts: str | None, params: dict[str, Any], recipe: Path, owner: str | None, kind: str = "finetune",
    join: bool = True,
) -> tuple[str, bool]:  # fmt: skip
    """The parent run: the one that the environment names, else a new one.

    Args:
        name: the experiment's name.
        artifacts: where a new experiment keeps its artifacts; None leaves it to the server.
        params: the flat recipe.
        recipe: the resolved recipe as a file, stored as an artifact.
        owner: names the process that will close the run, for close_abandoned.
        kind: what it is a run of; `recent_runs` lists those of finetune.
        join: whether to take the environment's.

    Returns:
        Its id, and whether it is ours to end.
    """
    api = client()
    injected = os.environ.get("MLFLOW_RUN_ID") if join else None
    tags = {"tuneline.pipeline": kind, "tuneline.owner": "" if injected else owner or ""}
    run_id = injected or api.create_run(experiment_id(api, name, artifacts), tags=tags).info.run_id
    run = StepRun(api, run_id)
    try:
        run.params(params)
        run.tags(tags | environment() | _seeds(params))
        run.artifact(recipe, "configuration")
        api.log_text(run_id, "\n".join(installed()) + "\n", "configuration/requirements.txt")
    except BaseException:
        if not injected:
            with last_word(), suppress(Exception):  # close_abandoned will end it
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
    for child in _children(api, run_id, "attributes.status = 'RUNNING'"):
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
    query = "tags.`tuneline.pipeline` LIKE '%' and attributes.status = 'RUNNING'"  # of every kind
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
