"""A run on a cluster as a person sees it: its steps, their states and their logs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tuneline_pipelines.remote import Remote
from tuneline_pipelines.watch import Tell
from tuneline_pipelines.wire import NotThereError, RemoteError, Run, UnreachableError

FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
EVERY = 5.0
"""Seconds between two looks at a run."""
PATIENCE = 900.0
"""Seconds without an answer after which following a run is given up; the run goes on."""
_INNER = ("executor", "for-loop-", "iteration-")
"""How the names of nodes begin that are no steps: a step's attempts, a loop, and what makes its rounds."""


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        name: its name in the pipeline; where several of a loop share one, with a number after it.
        task: its name in the pipeline.
        state: KFP's word, such as RUNNING.
        started: when, or None.
        ended: when, or None.
        error: what the server says of a failure.
        pods: the pods of its attempts, the first attempt first.
        reused: its outputs came from KFP's cache.
    """

    name: str
    task: str
    state: str
    started: datetime | None
    ended: datetime | None
    error: str
    pods: tuple[str, ...]
    reused: bool

    @property
    def seconds(self) -> float | None:
        """How long it ran."""
        return _seconds(self.started, self.ended)


def steps(run: Run) -> list[Step]:
    """The steps of a run in the order of their start.

    KFP lists the nodes of the workflow engine: the workflow itself, `root`, a driver for each step, each step, and
    below it an `executor`, once for each attempt. Children are named by the engine's node id, which shares only its
    last part with the pod's name.
    """
    details = (run.run_details.task_details if run.run_details else None) or []
    by_node = {_node(detail.pod_name): detail for detail in details if detail.pod_name}
    found = [_step(detail, by_node) for detail in details if _is_step(detail)]
    found.sort(key=lambda step: (step.started is None, step.started or datetime.min, step.name, step.pods))
    return list(_numbered(found))


def _numbered(found: list[Step]) -> Iterator[Step]:
    """The steps, those that share a name numbered in the order of their start."""
    shared, seen = Counter(step.task for step in found), Counter[str]()
    for step in found:
        seen[step.task] += 1
        yield replace(step, name=f"{step.task}-{seen[step.task]}") if shared[step.task] > 1 else step


def _is_step(detail: Any) -> bool:
    name = detail.display_name or ""
    inner = name in ("", "root") or name.endswith("-driver") or name.startswith(_INNER)
    return not inner and name != detail.pod_name  # the workflow's own node is named as it is


def _step(detail: Any, by_node: dict[str, Any]) -> Step:
    attempts = list(_attempts(detail, by_node))
    attempts.sort(key=lambda below: (_time(below.start_time) is None, below.start_time or datetime.min))
    ran = [below for below in attempts if below.state != "SKIPPED"]
    errors = [_error(below) for below in (detail, *attempts) if _error(below)]
    return Step(
        name=detail.display_name, task=detail.display_name, state=detail.state or "PENDING",
        started=_time(detail.start_time), ended=_time(detail.end_time),
        error=errors[-1] if errors and detail.state == "FAILED" else "",
        pods=tuple(below.pod_name for below in ran) or ((detail.pod_name,) if detail.pod_name and not attempts else ()),
        reused=bool(attempts) and not ran,
    )  # fmt: skip


def _node(pod: str) -> str:
    return pod.rpartition("-")[2]


def _attempts(detail: Any, by_node: dict[str, Any]) -> Iterator[Any]:
    """The innermost executors below a step; what follows the step in the graph hangs below them too, and is not one."""
    for child in detail.child_tasks or []:
        below = by_node.get(_node(child.pod_name or ""))
        if below is not None and (below.display_name or "").startswith("executor"):
            inner = list(_attempts(below, by_node))
            yield from inner or [below]


def _error(detail: Any) -> str:
    return " ".join((detail.error.message or "").split()) if detail.error else ""


def _time(value: datetime | None) -> datetime | None:
    """None for the zero time that the server sends of what has not happened."""
    return value if value is not None and value.year > 1970 else None


def follow(remote: Remote, run_id: str, tell: Tell) -> Run:
    """Wait for a run's end, and tell of every change: of the run, of a step, of its attempts.

    Raises:
        RemoteError: the server refuses, or does not answer for PATIENCE seconds.
    """
    told: dict[str, str] = {}
    heard = time.monotonic()
    while True:
        try:
            run = remote.run(run_id)
        except UnreachableError:
            if time.monotonic() - heard > PATIENCE:
                raise
            continue
        heard = time.monotonic()
        lines = {step.name: _told(step) for step in steps(run)}
        if run.state not in FINAL:
            lines = {"run": (run.state or "PENDING").lower(), **lines}
        for name, line in lines.items():
            if told.get(name) != line:
                told[name] = line
                tell(name, 0, 0, line)
        if run.state in FINAL:
            return run
        remote.pause(EVERY)


def follow_or_cancel(remote: Remote, run_id: str, tell: Tell, cancel: Callable[[], bool]) -> Run | None:
    """Wait for a run's end; at an interruption, cancel it where `cancel` says so and wait for that.

    Args:
        remote: its server.
        run_id: the run.
        tell: hears of its steps.
        cancel: called at the first interruption; False leaves the run to itself.

    Returns:
        The ended run; None where it was left to itself.
    """
    try:
        return follow(remote, run_id, tell)
    except KeyboardInterrupt:
        if not cancel():
            return None
    remote.cancel(run_id)
    tell("run", 0, 0, "cancelling; another interruption ends this command, not the cancelling")
    try:
        return follow(remote, run_id, tell)
    except KeyboardInterrupt:
        return None


def summary(run: Run) -> dict[str, Any]:
    """A run as a JSON object."""
    return {
        "run_id": run.run_id, "name": run.display_name, "state": run.state,
        "started": run.created_at.isoformat() if run.created_at else None,
        "seconds": _seconds(_time(run.created_at), _time(run.finished_at)),
        "error": _error(run),
        "steps": [
            {"step": one.name, "state": one.state, "seconds": one.seconds, "reused": one.reused, "error": one.error}
            for one in steps(run)
        ],
    }  # fmt: skip


def outcome(run: Run | None) -> dict[str, Any]:
    """How a followed run ended: succeeded, failed, cancelled, or running where it was left to itself."""
    if run is None:
        return {"status": "running"}
    words = {"SUCCEEDED": "succeeded", "CANCELED": "cancelled"}
    return {"status": words.get(run.state, "failed"), **summary(run)}


def logs(remote: Remote, name: str, step: str | None) -> Iterator[tuple[str, int, str]]:
    """The logs of a run's steps: step, attempt, text; a step whose log is gone is told and passed over.

    Args:
        remote: its server.
        name: the run's name or id.
        step: only this one, or all that share this name; a log must be there.

    Raises:
        RemoteError: no such run or step, or no log at all.
    """
    run = remote.named(name)
    started = [found for found in steps(run) if found.pods and step in (None, found.name, found.task)]
    if not started:
        names = ", ".join(found.name for found in steps(run)) or "none yet"
        raise NotThereError(f"{name}: no pod{f' of step {step!r}' if step else ''}; its steps: {names}")
    given, missing = 0, []
    for found in started:
        for attempt, pod in enumerate(found.pods, start=1):
            try:
                text = log(remote, run, pod)
            except RemoteError as error:
                missing.append(error)
                continue
            given += 1
            yield found.name, attempt, text
    if missing and not given:
        raise missing[-1]
    for error in missing:
        remote.note(str(error))


def _seconds(started: datetime | None, ended: datetime | None) -> float | None:
    return (ended - started).total_seconds() if started and ended else None


def _told(step: Step) -> str:
    if step.reused:
        return "reused from an earlier run with the same input"
    attempt = f", attempt {len(step.pods)}" if len(step.pods) > 1 else ""
    seconds = f" after {step.seconds:.0f} s" if step.seconds is not None else ""
    return f"{step.state.lower()}{attempt}{seconds}{f': {step.error}' if step.error else ''}"


def log(remote: Remote, run: Run, pod: str) -> str:
    """A pod's log, from the first of these that has it: the API server, the UI's server, Kubernetes itself.

    Raises:
        RemoteError: none of them; says what each answered.
    """
    answers: list[str] = []
    query = {"runid": run.run_id, "podname": pod, "podnamespace": remote.server.namespace or ""}
    ways = [
        lambda: remote.text("/apis/v1alpha1/runs/{run}/nodes/{pod}/log", run=run.run_id, pod=pod),
        lambda: remote.text("/k8s/pod/logs", base=remote.server.ui, query=query),
        lambda: _kubernetes_log(remote.server.namespace or "kubeflow", pod),
    ]
    for way in ways:
        try:
            return way()
        except RemoteError as error:
            answers.append(str(error))
    raise NotThereError(f"no log of pod {pod}, which may have been removed: {'; '.join(dict.fromkeys(answers))}")


def _kubernetes_log(namespace: str, pod: str) -> str:
    """The log as `kubectl logs` gives it, by this machine's or this pod's own access to the cluster."""
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    try:
        try:
            config.load_incluster_config()
        except config.ConfigException:
            config.load_kube_config()
        core: Any = client.CoreV1Api()
        answer = core.read_namespaced_pod_log(
            pod, namespace, container="main", _request_timeout=(10, 90), _preload_content=False
        )  # unread, because the client would take a log that looks like JSON for such
        return answer.data.decode("utf-8", errors="replace")
    except config.ConfigException:
        raise RemoteError("Kubernetes: this machine has no kubeconfig") from None
    except client.ApiException as error:
        raise RemoteError(f"Kubernetes, namespace {namespace}: {error.reason} ({error.status})") from None
    except (HTTPError, OSError) as error:
        raise RemoteError(f"Kubernetes: no answer ({type(error).__name__})") from None
