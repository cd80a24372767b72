"""A stand-in for the Kubernetes API server, over real HTTP on the loopback interface.

It checks tokens, validates what is created against the TrainJob's CRD schema, and serves TrainJobs, pods and logs. What
becomes of a job is a script: each look at it plays the next scene. Or it runs the job's pods as processes, with the
variables that Trainer's torch policy sets.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from jsonschema import Draft202012Validator

from tests.conftest import ROOT, free_port

CRD = ROOT / "tests/infra/crds/trainer.kubeflow.org_trainjobs.yaml"
TOKEN = "the-token-of-the-step"
JOBS = re.compile(r"^/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/([^/]+)/trainjobs(?:/([^/]+))?$")
PODS = re.compile(r"^/api/v1/namespaces/([^/]+)/pods$")
LOG = re.compile(r"^/api/v1/namespaces/([^/]+)/pods/([^/]+)/log$")

Job = dict[str, Any]
Scene = Callable[["Cluster", Job], None]


@cache
def validator() -> Draft202012Validator:
    """Of a TrainJob."""
    crd = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    return Draft202012Validator(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


class Cluster:
    """The state of the cluster.

    Attributes:
        jobs: by name.
        scenes: what happens at the next looks at a job.
        faults: method, part of the path, status or "drop", headers; each is used once.
        calls: the methods of the requests that change something.
        runs_pods: run a created job's command.
        refused: called when a token is not accepted.
        lingers: looks that a deleted job is still there for.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.pods: list[Job] = []
        self.logs: dict[str, list[tuple[float, str]]] = {}
        self.scenes: list[Scene] = []
        self.faults: list[tuple[str, str, int | str, dict[str, str]]] = []
        self.calls: list[str] = []
        self.runs_pods = False
        self.refused: Callable[[], Any] = lambda: None
        self.lingers = 0
        self.processes: list[subprocess.Popen[str]] = []
        self._validator = validator()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving, and the pods."""
        for process in self.processes:
            process.terminate()
            process.wait()
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, path: Path, token: str = TOKEN) -> Path:
        """Write a kubeconfig that leads here."""
        tree = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(tree))
        return path

    def put(self, name: str, spec: Job, namespace: str = "team") -> Job:
        """A new job."""
        now = datetime.datetime.now(datetime.UTC).isoformat()
        meta = {"name": name, "namespace": namespace, "uid": uuid.uuid4().hex, "creationTimestamp": now}
        self.jobs[name] = {"metadata": meta, "spec": spec, "status": {"conditions": []}}
        return self.jobs[name]

    def create(self, namespace: str, body: Job) -> tuple[int, Any]:
        """POST."""
        if problems := [f"{error.json_path}: {error.message}" for error in self._validator.iter_errors(body)]:
            return 422, {"message": f"TrainJob is invalid: {problems[0]}"}
        name = body["metadata"]["name"]
        if name in self.jobs:
            return 409, {"message": f'trainjobs "{name}" already exists'}
        job = self.put(name, body["spec"], namespace)
        if self.runs_pods:
            threading.Thread(target=self._run, args=(name, job), daemon=True).start()
        return 201, job

    def look(self, name: str) -> tuple[int, Any]:
        """GET of a job."""
        job = self.jobs.get(name)
        if job and "deletionTimestamp" in job["metadata"]:
            self.lingers -= 1
            if self.lingers < 0:
                del self.jobs[name]
                job = None
        elif job and self.scenes:
            self.scenes.pop(0)(self, job)
            job = self.jobs.get(name)
        return (200, job) if job else (404, {"message": f'trainjobs "{name}" not found'})

    def delete(self, name: str) -> tuple[int, Any]:
        """DELETE of a job: marked first, gone after `lingers` looks."""
        if name not in self.jobs:
            return 404, {"message": "not found"}
        self.jobs[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return 200, self.jobs[name]

    def pod(self, job: str, index: int = 0, phase: str = "Running", **status: Any) -> Job:
        """A new pod of a job's node."""
        labels = {
            "jobset.sigs.k8s.io/jobset-name": job, "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": str(index),
        }  # fmt: skip
        name = f"{job}-node-0-{index}-{len(self.pods):05d}"
        stamp = f"2026-01-01T00:00:{len(self.pods):02d}Z"
        metadata = {"name": name, "labels": labels, "creationTimestamp": stamp}
        self.pods.append({"metadata": metadata, "status": {"phase": phase, **status}})
        self.logs[name] = []
        return self.pods[-1]

    def print(self, pod: str, *lines: str) -> None:
        """Append to a pod's log."""
        self.logs[pod] += [(time.time(), line) for line in lines]

    def selected(self, selector: str) -> list[Job]:
        """Pods by labels."""
        wanted = dict(part.split("=", 1) for part in selector.split(","))
        return [pod for pod in self.pods if wanted.items() <= pod["metadata"]["labels"].items()]

    def log(self, name: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        """The log of a pod, with times."""
        assert query["container"] == ["node"]
        assert query["timestamps"] in (["True"], ["true"])
        pod = next((found for found in self.pods if found["metadata"]["name"] == name), None)
        if pod is None:
            return 404, {"message": f'pods "{name}" not found'}
        if pod["status"]["phase"] == "Pending":
            return 400, {"message": f'container "node" in pod "{name}" is waiting to start'}
        since = time.time() - float(query["sinceSeconds"][0]) if "sinceSeconds" in query else 0.0
        lines = [(when, line) for when, line in self.logs[name] if when >= since]
        stamped = [f"{datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat()} {line}" for when, line in lines]
        return 200, "".join(f"{line}\n" for line in stamped).encode()

    def _run(self, name: str, job: Job) -> None:
        trainer, port = job["spec"]["trainer"], str(free_port())
        held = {entry["name"]: entry["value"] for entry in trainer.get("env", []) if "value" in entry}
        held["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        )  # as in the image
        readers = []
        for index in range(trainer["numNodes"]):
            injected = {
                "PET_NNODES": str(trainer["numNodes"]), "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(index), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port,
            }  # fmt: skip
            pod = self.pod(name, index)["metadata"]["name"]
            process = subprocess.Popen(
                [*trainer["command"], *trainer["args"]], env=os.environ | held | injected, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            self.processes.append(process)
            readers.append(threading.Thread(target=self._read, args=(pod, process), daemon=True))
            readers[-1].start()
        for reader in readers:
            reader.join()
        good = all(process.wait() == 0 for process in self.processes)
        holds(job, "Complete" if good else "Failed", "JobsCompleted" if good else "JobsFailed")

    def _read(self, pod: str, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self.print(pod, line.rstrip("\n"))


def holds(job: Job, kind: str, reason: str, status: str = "True", message: str = "") -> None:
    """Set a condition of a job."""
    others = [held for held in job["status"]["conditions"] if held["type"] != kind]
    held = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01"}
    job["status"]["conditions"] = [*others, held]


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_DELETE(self) -> None:
            self._answer("DELETE")

        def _answer(self, method: str) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            for number, (of, part, status, headers) in enumerate(cluster.faults):
                if of == method and part in self.path:
                    del cluster.faults[number]
                    if isinstance(status, str):
                        self.connection.close()
                        return
                    self._send(status, {"message": headers.pop("message", "planted")}, headers)
                    return
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                cluster.refused()
                self._send(401, {"message": "Unauthorized"})
                return
            self._send(*self._route(method, url.path, parse_qs(url.query), body))

        def _route(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
            if match := LOG.match(path):
                return cluster.log(match[2], query)
            if PODS.match(path):
                return 200, {"items": cluster.selected(query["labelSelector"][0])}
            match = JOBS.match(path)
            assert match, path
            if method == "GET":
                return cluster.look(match[2])
            cluster.calls.append(method)
            return cluster.create(match[1], json.loads(body)) if method == "POST" else cluster.delete(match[2])

        def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(body, bytes) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler
