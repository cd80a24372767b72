"""What `tuneline submit`, `runs --remote`, `logs` and `cancel` ask of a Kubeflow Pipelines server.

KFP's API has no key that makes a create safe to repeat. So what is created here carries a name of its own, and after an
answer that leaves open whether it was carried out (a 503, a broken connection) the name is looked up before it is asked
for again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kfp_server_api
from kfp_server_api import V2beta1Experiment, V2beta1Pipeline

from tuneline_pipelines.server import Server
from tuneline_pipelines.wire import NotThereError, RemoteError, Run, Wire


class Remote(Wire):
    """A server's pipelines, experiments, runs and schedules."""

    def __init__(
        self, server: Server, note: Callable[[str], None] = lambda _: None, pause: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(server, note, pause)
        self._within: dict[str, Any] = {"namespace": server.namespace} if server.namespace else {}
        self._runs = kfp_server_api.RunServiceApi(self.api)
        self._pipelines = kfp_server_api.PipelineServiceApi(self.api)
        self._upload = kfp_server_api.PipelineUploadServiceApi(self.api)
        self._experiments = kfp_server_api.ExperimentServiceApi(self.api)
        self._schedules = kfp_server_api.RecurringRunServiceApi(self.api)

    def health(self) -> dict[str, Any]:
        """What the server says of itself: multi_user, tag_name (its version), pipeline_store."""
        self.call(kfp_server_api.HealthzServiceApi(self.api).healthz_service_get_healthz)
        return json.loads(self.api.last_response.data)

    def pipeline(self, name: str) -> Any:
        """The pipeline (V2beta1Pipeline) of that name, made where there is none."""

        def there() -> Any:
            try:
                return self.call(self._pipelines.pipeline_service_get_pipeline_by_name, name, **self._within)
            except NotThereError:
                return None

        new = V2beta1Pipeline(name=name, display_name=name, **self._within)
        return there() or self.call(self._pipelines.pipeline_service_create_pipeline, new, found=there)

    def version(self, pipeline_id: str, name: str, file: Path) -> tuple[Any, bool]:
        """The pipeline's version of that name, uploaded where there is none.

        Returns:
            The V2beta1PipelineVersion, and whether it was there before.
        """

        def there() -> Any:
            answer = self.call(
                self._pipelines.pipeline_service_list_pipeline_versions, pipeline_id, filter=_where("name", name)
            )
            return next(iter(answer.pipeline_versions or []), None)

        if version := there():
            return version, True
        made = self.call(
            self._upload.upload_pipeline_version, str(file), name=name, display_name=name, pipelineid=pipeline_id,
            found=there,
        )  # fmt: skip
        return made, False

    def experiment(self, name: str, make: bool = True) -> Any:
        """The experiment (V2beta1Experiment) of that name, made where there is none.

        Args:
            name: its name.
            make: False refuses a name that is not there.

        Raises:
            RemoteError: it is archived, or not there.
        """

        def there() -> Any:
            listed = self._experiments.experiment_service_list_experiments
            return next(iter(self.call(listed, filter=_where("name", name), **self._within).experiments or []), None)

        found = there()
        if found is None and not make:
            raise NotThereError(f"{self}: no experiment {name!r}")
        new = V2beta1Experiment(display_name=name, **self._within)
        found = found or self.call(self._experiments.experiment_service_create_experiment, new, found=there)
        if make and found.storage_state == "ARCHIVED":
            raise RemoteError(f"{self}: the experiment {name!r} is archived; restore it there or use another name")
        return found

    def create_run(self, run: Run) -> Run:
        """Start a run, once, whatever happens to the request; its name must be its own.

        Where a late answer made a second run all the same, the oldest stays and the others are cancelled.
        """

        def there() -> Any:
            return next(iter(self._named(run.display_name, run.experiment_id)), None)

        before = self.again
        made = self.call(self._runs.run_service_create_run, run, found=there)
        if self.again == before:
            return made
        first, *others = self._named(run.display_name, run.experiment_id) or [made]
        for other in others:
            self.note(f"cancelling {other.run_id}, a second run that a repeated request made")
            self.cancel(other.run_id)
        return first

    def schedule(self, schedule: Any) -> tuple[Any, bool]:
        """Make a recurring run (V2beta1RecurringRun), unless one of that name is there; that one is enabled.

        Returns:
            It, and whether it was there before.
        """

        def there() -> Any:
            named = (
                old for old in self._scheduled(schedule.experiment_id) if old.display_name == schedule.display_name
            )
            return next(named, None)

        found = there()
        if found and found.status == "DISABLED":
            self.call(self._schedules.recurring_run_service_enable_recurring_run, found.recurring_run_id)
        made = found or self.call(self._schedules.recurring_run_service_create_recurring_run, schedule, found=there)
        for other in self._scheduled(schedule.experiment_id):
            if other.recurring_run_id != made.recurring_run_id and other.status == "ENABLED":
                self.note(f"{other.display_name} is scheduled in this experiment too; disable it if this replaces it")
        return made, found is not None

    def _scheduled(self, experiment_id: str) -> list[Any]:
        """The newest hundred recurring runs of an experiment."""
        listed = self._schedules.recurring_run_service_list_recurring_runs
        answer = self.call(listed, experiment_id=experiment_id, page_size=100, sort_by="created_at desc")
        return answer.recurring_runs or []

    def run(self, run_id: str) -> Run:
        """A run with its tasks."""
        return self.call(self._runs.run_service_get_run, run_id)

    def runs(self, limit: int, experiment: str | None = None) -> list[Run]:
        """Runs that are not archived, the newest first."""
        if experiment:
            within: dict[str, Any] = {"experiment_id": self.experiment(experiment, make=False).experiment_id}
        else:
            within = self._within
        kept = _where("storage_state", "ARCHIVED", "NOT_EQUALS")
        listed: list[Run] = []
        token = ""
        while len(listed) < limit:
            answer = self.call(
                self._runs.run_service_list_runs, page_size=min(100, limit - len(listed)), page_token=token,
                sort_by="created_at desc", filter=kept, **within,
            )  # fmt: skip
            listed += answer.runs or []
            token = answer.next_page_token
            if not token:
                break
        return listed

    def named(self, name: str) -> Run:
        """The run of that name or id.

        Raises:
            RemoteError: there is none.
        """
        try:
            return self.run(name)
        except NotThereError:
            found = self._named(name)
        if not found:
            raise NotThereError(f"{self}: no run {name!r}; `tuneline runs --remote` lists them")
        return self.run(found[-1].run_id)

    def _named(self, name: str, experiment_id: str | None = None) -> list[Run]:
        if experiment_id:
            within: dict[str, Any] = {"experiment_id": experiment_id}
        else:
            within = self._within
        answer = self.call(
            self._runs.run_service_list_runs, filter=_where("name", name), sort_by="created_at asc", page_size=10,
            **within,
        )  # fmt: skip
        return answer.runs or []

    def cancel(self, run_id: str) -> None:
        """Ask the server to stop a run; its steps end with SIGTERM."""
        self.call(self._runs.run_service_terminate_run, run_id)


def _where(key: str, value: str, operation: str = "EQUALS") -> str:
    """KFP's filter for one field, as JSON."""
    return json.dumps({"predicates": [{"operation": operation, "key": key, "string_value": value}]})
