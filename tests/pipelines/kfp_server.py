"""A stand-in for Kubeflow Pipelines: real HTTP on the loopback, bodies held against KFP's own typed models and protos.

It keeps pipelines, versions, experiments, runs and schedules, answers with KFP's status codes and forms, and fails when
told to. It runs nothing: a run goes through the states that `frames` lists, one for each look at it.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import UUID

import kfp_server_api as kfp
from kfp_server_api import models
from tests.pipelines.kfp_checks import RefusedError, arguments, cron, pipeline_spec, plugins, selected, strict
from tests.pipelines.kfp_nodes import EPOCH, Frame, nodes, succeeding

WORDS = {400: "InvalidInputError", 401: "Unauthenticated", 404: "ResourceNotFoundError", 409: "AlreadyExistsError"}


@dataclass
class Fault:
    """How requests of a method and path fail.

    Attributes:
        method: of the requests.
        path: a regular expression for their whole path.
        status: the answer's; 0 breaks the connection.
        times: how many of them.
        after: the request is carried out first; "late": it is carried out just before the next of its kind.
        headers: of the answer.
        body: of the answer, KFP's form of an error where there is none.
    """

    method: str
    path: str
    status: int
    times: int = 1
    after: bool | str = False
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass
class Call:
    """A request that came in."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


class KfpServer:
    """The server's state and its answers.

    Attributes:
        calls: every request, in order.
        faults: how the next requests fail.
        token: a bearer token that is asked for.
        cookie: a session cookie that is asked for, as a login proxy does: it redirects.
        multi_user: whether namespaces are asked for.
        version: of the server; before 2.17 it knows no plugins_input.
        plugin: whether its MLflow plugin is set up.
        frames: the states that a new run goes through.
        logs: pod -> text; where they are served, by `log_ways`.
        log_ways: of "api", "ui", "kubernetes".
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.token = self.cookie = ""
        self.multi_user, self.version, self.plugin = False, "2.17.0", False
        self.frames = succeeding()
        self.logs: dict[str, str] = {}
        self.log_ways = {"api"}
        self.pipelines: dict[str, Any] = {}
        self.versions: dict[str, Any] = {}
        self.specs: dict[str, Any] = {}
        self.experiments: dict[str, Any] = {}
        self.runs: dict[str, Any] = {}
        self.schedules: dict[str, Any] = {}
        self.attempts: dict[str, int] = {}
        self._looks: dict[str, list[Frame]] = {}
        self._late: list[tuple[str, str, Callable[[], Any]]] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        """Stop it."""
        self._http.shutdown()
        self._http.server_close()

    def told(self) -> list[str]:
        """METHOD PATH of every request, ids left out."""
        ids = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
        return [f"{call.method} {ids.sub('ID', call.path).removeprefix('/apis/v2beta1/')}" for call in self.calls]

    # What it answers. Each takes the path's parts, the query and the body.

    def answer(self, call: Call) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers for a request."""
        with self._lock:
            self.calls.append(call)
            self._login(call)
            run = self._route(call)
            for late in [late for late in self._late if late[:2] == (call.method, call.path)]:
                self._late.remove(late)
                late[2]()
            fault = next((one for one in self.faults if one.method == call.method
                          and re.fullmatch(one.path, call.path) and one.times), None)  # fmt: skip
            if fault is None:
                return 200, run(), {}
            fault.times -= 1
            if fault.after == "late":
                self._late.append((call.method, call.path, run))
            elif fault.after:
                run()
            body = {"error": "told to fail", "code": 14, "message": "told to fail", "details": []}
            return fault.status, fault.body if fault.body is not None else body, fault.headers

    def _login(self, call: Call) -> None:
        if self.token and call.headers.get("authorization") != f"Bearer {self.token}":
            raise RefusedError(f"token {call.headers.get('authorization', '')} is expired", 401)
        if self.cookie and call.headers.get("cookie") != self.cookie:
            raise RefusedError("https://dex.example.com/auth", 302)

    def _route(self, call: Call) -> Callable[[], Any]:
        routes = [
            ("GET", r"/apis/v2beta1/healthz", self._health),
            ("GET", r"/apis/v2beta1/pipelines/names/([^/]+)", self._pipeline_by_name),
            ("POST", r"/apis/v2beta1/pipelines", self._create_pipeline),
            ("POST", r"/apis/v2beta1/pipelines/upload_version", self._upload_version),
            ("GET", r"/apis/v2beta1/pipelines/([^/]+)/versions", self._list_versions),
            ("GET", r"/apis/v2beta1/experiments", self._list_experiments),
            ("POST", r"/apis/v2beta1/experiments", self._create_experiment),
            ("POST", r"/apis/v2beta1/runs", self._create_run),
            ("GET", r"/apis/v2beta1/runs", self._list_runs),
            ("GET", r"/apis/v2beta1/runs/([^/:]+)", self._get_run),
            ("POST", r"/apis/v2beta1/runs/([^/:]+):terminate", self._terminate),
            ("POST", r"/apis/v2beta1/recurringruns", self._create_schedule),
            ("GET", r"/apis/v2beta1/recurringruns", self._list_schedules),
            ("POST", r"/apis/v2beta1/recurringruns/([^/:]+):enable", self._enable_schedule),
            ("GET", r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", self._api_log),
            ("GET", r"/k8s/pod/logs", self._ui_log),
            ("GET", r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/log", self._kubernetes_log),
        ]
        for method, path, action in routes:
            if method == call.method and (match := re.fullmatch(path, call.path)):
                return lambda: action(call, *match.groups())
        raise RefusedError(f"{call.method} {call.path}: Not Found", 404)

    def _new(self, model: Any, key: str, **more: Any) -> Any:
        number = next(self._numbers)
        setattr(model, key, str(UUID(int=number << 64 | number)))
        model.created_at = EPOCH + timedelta(seconds=number)
        for name, value in more.items():
            setattr(model, name, value)
        return model

    def _namespace(self, value: str | None) -> str | None:
        if self.multi_user and not value:
            raise RefusedError("Namespace is empty in multi-user mode")
        if not self.multi_user and value:
            raise RefusedError("In single-user mode, namespace cannot be specified")
        return value

    def _health(self, _call: Call) -> Any:
        return {"commit_sha": "0" * 40, "tag_name": self.version, "multi_user": self.multi_user}

    def _pipeline_by_name(self, call: Call, name: str) -> Any:
        space = self._namespace(call.query.get("namespace"))
        for pipeline in self.pipelines.values():
            if (pipeline.name, pipeline.namespace) == (name, space):
                return pipeline
        raise RefusedError(f"Pipeline {name} not found", 404)

    def _create_pipeline(self, call: Call) -> Any:
        pipeline = strict(call.body, "V2beta1Pipeline")
        space = self._namespace(pipeline.namespace)
        if any((old.name, old.namespace) == (pipeline.name, space) for old in self.pipelines.values()):
            raise RefusedError("The name already exists", 409)
        self._new(pipeline, "pipeline_id")
        return self.pipelines.setdefault(pipeline.pipeline_id, pipeline)

    def _upload_version(self, call: Call) -> Any:
        if unknown := set(call.query) - {"name", "display_name", "pipelineid", "description", "tags"}:
            raise RefusedError(f"unknown query {unknown}")
        pipeline = call.query.get("pipelineid", "")
        if pipeline not in self.pipelines:
            raise RefusedError("Failed to create a pipeline version")
        spec = pipeline_spec(call.body)
        name = call.query["name"]
        if any((old.pipeline_id, old.name) == (pipeline, name) for old in self.versions.values()):
            raise RefusedError("Failed to create a pipeline version", 409)
        version = models.V2beta1PipelineVersion(
            pipeline_id=pipeline, name=name, display_name=call.query["display_name"]
        )
        self._new(version, "pipeline_version_id")
        self.specs[version.pipeline_version_id] = spec
        return self.versions.setdefault(version.pipeline_version_id, version)

    def _list_versions(self, call: Call, pipeline: str) -> Any:
        rows = [version for version in self.versions.values() if version.pipeline_id == pipeline]
        return _listed("pipeline_versions", selected(rows, call.query))

    def _list_experiments(self, call: Call) -> Any:
        space = self._namespace(call.query.get("namespace"))
        rows = [found for found in self.experiments.values() if found.namespace == space]
        return _listed("experiments", selected(rows, call.query))

    def _create_experiment(self, call: Call) -> Any:
        experiment = strict(call.body, "V2beta1Experiment")
        space = self._namespace(experiment.namespace)
        if any((old.display_name, old.namespace) == (experiment.display_name, space)
               for old in self.experiments.values()):  # fmt: skip
            raise RefusedError("The name already exists", 409)
        self._new(experiment, "experiment_id", storage_state="AVAILABLE")
        return self.experiments.setdefault(experiment.experiment_id, experiment)

    def _startable(self, started: Any) -> None:
        """What holds for a run and for a schedule."""
        if started.experiment_id not in self.experiments:
            raise RefusedError(f"Experiment {started.experiment_id} not found", 404)
        reference = started.pipeline_version_reference
        version = self.versions.get(reference.pipeline_version_id) if reference else None
        if version is None or version.pipeline_id != reference.pipeline_id:
            raise RefusedError("Pipeline version not found", 404)
        arguments(self.specs[version.pipeline_version_id], started.runtime_config.parameters or {})
        plugins(started.plugins_input, known=self.version >= "2.17")
        if not started.display_name:
            raise RefusedError("The run name is empty. Please specify a valid name")

    def _create_run(self, call: Call) -> Any:
        run = strict(call.body, "V2beta1Run")
        self._startable(run)
        self._new(run, "run_id", state="PENDING", storage_state="AVAILABLE")
        if self.plugin:
            entry = {"run_url": models.V2beta1MetadataValue(value=f"https://mlflow.example.com/#/runs/{run.run_id}")}
            run.plugins_output = {"mlflow": models.V2beta1PluginOutput(entries=entry, state="PLUGIN_SUCCEEDED")}
        self._looks[run.run_id] = list(self.frames)
        return self.runs.setdefault(run.run_id, run)

    def _list_runs(self, call: Call) -> Any:
        experiment = call.query.get("experiment_id")
        if not experiment:
            self._namespace(call.query.get("namespace"))
        rows = [run for run in self.runs.values() if experiment in (None, run.experiment_id)]
        rows = selected(rows, call.query)
        start, size = int(call.query.get("page_token") or 0), int(call.query.get("page_size", 10))
        more = {"next_page_token": str(start + size)} if start + size < len(rows) else {}
        return _listed("runs", rows[start : start + size]) | more

    def _get_run(self, _call: Call, run_id: str) -> Any:
        if run_id not in self.runs:
            raise RefusedError(f"Run {run_id} not found", 404)
        run, looks = self.runs[run_id], self._looks[run_id]
        run.state, steps = looks.pop(0) if len(looks) > 1 else looks[0]
        if run.state in ("SUCCEEDED", "FAILED", "CANCELED"):
            run.finished_at = run.created_at + timedelta(minutes=5)
        run.run_details = models.V2beta1RunDetails(task_details=nodes(steps, self.attempts))
        return run

    def _terminate(self, _call: Call, run_id: str) -> Any:
        if run_id not in self.runs:
            raise RefusedError(f"Run {run_id} not found", 404)
        steps = self._looks[run_id][0][1]
        ended = {step: "FAILED" if state == "RUNNING" else state for step, state in steps.items()}
        self._looks[run_id] = [("CANCELING", steps), ("CANCELED", ended)]
        self.runs[run_id].state = "CANCELING"
        return {}

    def _create_schedule(self, call: Call) -> Any:
        schedule = strict(call.body, "V2beta1RecurringRun")
        self._startable(schedule)
        cron(schedule.trigger.cron_schedule.cron)
        if not 1 <= int(schedule.max_concurrency or 0) <= 10:
            raise RefusedError("The max concurrency of the recurring run is out of range. Support 1-10")
        self._new(schedule, "recurring_run_id", status="ENABLED")
        return self.schedules.setdefault(schedule.recurring_run_id, schedule)

    def _list_schedules(self, call: Call) -> Any:
        rows = [one for one in self.schedules.values() if one.experiment_id == call.query.get("experiment_id")]
        return _listed("recurringRuns", selected(rows, call.query))

    def _enable_schedule(self, _call: Call, schedule: str) -> Any:
        if schedule not in self.schedules:
            raise RefusedError(f"Recurring run {schedule} not found", 404)
        self.schedules[schedule].status = "ENABLED"
        return {}

    def _log(self, way: str, pod: str) -> str:
        if way not in self.log_ways or pod not in self.logs:
            raise RefusedError(f"{way}: no log of {pod}", 404 if way not in self.log_ways else 500)
        return self.logs[pod]

    def _api_log(self, _call: Call, _run: str, pod: str) -> str:
        return self._log("api", pod)

    def _ui_log(self, call: Call) -> str:
        self._namespace(call.query.get("podnamespace"))
        return self._log("ui", call.query["podname"])

    def _kubernetes_log(self, call: Call, _namespace: str, pod: str) -> str:
        if call.query.get("container") != "main":
            raise RefusedError("a container name must be specified")
        return self._log("kubernetes", pod)


def _listed(key: str, rows: list[Any]) -> dict[str, Any]:
    """As protojson writes it: an empty list is left out."""
    return {key: rows, "total_size": len(rows)} if rows else {}


def _handler(server: KfpServer) -> type[BaseHTTPRequestHandler]:
    plain = kfp.ApiClient()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, unquote(parts.path), dict(parse_qsl(parts.query)), None, headers)
            try:
                call.body = self._body(raw)
                status, body, more = server.answer(call)
            except RefusedError as error:
                status, more = error.status, {"Location": str(error)} if error.status == 302 else {}
                body = {"error": str(error), "code": 3, "message": f"{WORDS.get(status, '')}: {error}", "details": []}
            if status == 0:
                self.close_connection = True
                return
            self._send(status, body, more)

        def _body(self, raw: bytes) -> Any:
            kind = self.headers.get("content-type", "")
            if kind.startswith("multipart/form-data"):
                (part,) = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw).get_payload()
                assert part.get_param("name", header="content-disposition") == "uploadfile"
                return part.get_payload(decode=True)
            return json.loads(raw) if raw else None

        def _send(self, status: int, body: Any, more: dict[str, str]) -> None:
            text = isinstance(body, str)
            content = body if text else json.dumps(plain.sanitize_for_serialization(body))
            self.send_response(status)
            page = text and content.startswith("<")
            kind = "text/html" if page else "text/plain" if text else "application/json"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content.encode())), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content.encode())

    return Handler
