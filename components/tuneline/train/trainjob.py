"""Training on several machines: the train step asks Kubeflow Trainer for a TrainJob and waits for it.

The step's own pod only looks on. It puts the prepared data on a claim that the job's pods share, and they run the same
code as everywhere, `python -m tuneline.train DATA OUT CONFIG.json` under torchrun. Their first pod's lines are shown as
the step's own, their numbers go to the step's MLflow run, and the model comes back by the claim.

The job's name is made of what it does (job_manifest.py), so that a step that is started again finds the job that runs
already.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuneline.artifacts import PreparedData, sha256_file
from tuneline.config import ModelConfig, TrainConfig
from tuneline.errors import InputError
from tuneline.progress import say
from tuneline.train.job_manifest import JobSettings, job_name, manifest, settings_here
from tuneline.train.kube import Kube, Object
from tuneline.train.record import Follower, JobFailed, Listener, Numbers, Recorder, write_config


def fit(data: Path, model: ModelConfig, settings: TrainConfig, out: Path, recorder: Recorder | None = None) -> Numbers:
    """Train in a TrainJob; arguments and result as of train.train.

    A job of the same name that runs is joined, one that has finished is taken, one that has failed is replaced. A step
    that is stopped (SIGTERM) deletes the job; one that is killed leaves it to the step's next try, and without one the
    job's processes end when the lease does.

    Raises:
        InputError: bad input that a process found, or a cluster that lacks what the job needs.
        JobFailed: the job ended without a model.
    """
    job = settings_here()
    name = job_name(PreparedData.load(data), model, settings, job.image)
    folder = _share(data, job, name)
    record, config = folder / "record.jsonl", folder / "config.json"
    write_config(config, model, settings, record, folder / "lease")
    kube = Kube(job.namespace, min(1.0, job.poll_seconds), job.patience_seconds)
    wanted = manifest(name, job, settings, [str(folder / "data"), str(folder / "model"), str(config)])
    follower = Follower(record, recorder)
    with _deleted_when_useless(kube, name):
        _obtain(kube, wanted, follower, folder, job)
        Watch(kube, name, job, follower, folder / "lease").to_the_end()
        metrics = _finish(follower, folder / "model")
    shutil.copytree(folder / "model", out, dirs_exist_ok=True)
    if not job.keep:
        kube.delete(name)
        shutil.rmtree(folder, ignore_errors=True)
    return metrics


def _finish(follower: Follower, model: Path) -> Numbers:
    try:
        return follower.finish(model)
    except JobFailed as error:
        raise Useless(str(error)) from None


def _share(data: Path, job: JobSettings, name: str) -> Path:
    """Put the prepared data on the claim, whole or not at all; what an earlier try put there is checked and kept."""
    mount = Path(job.mount_path)
    folder = mount / "tuneline" / name
    part = folder / f".data-{uuid.uuid4().hex}"
    try:
        if not mount.is_dir():
            raise InputError(f"profile.trainjob.mount_path: {mount}: no folder there; is {job.claim} mounted?")
        if _files(folder / "data") == _files(data):
            return folder
        shutil.copytree(data, part)
        if _files(part) != _files(data):
            raise InputError(f"profile.trainjob.claim: {part}: does not read back as it was written")
        shutil.rmtree(folder / "data", ignore_errors=True)
        part.rename(folder / "data")
    except (OSError, shutil.Error) as error:
        raise InputError(f"profile.trainjob.claim: {job.claim}: cannot write to {folder}: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


class Useless(JobFailed):
    """The job will not give the model, and would be in the way of the step's next try."""


@contextmanager
def _deleted_when_useless(kube: Kube, name: str) -> Iterator[None]:
    """Delete the job where the step is stopped or cannot use it; one that failed is left for a person to look at."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt, Useless):
        say(f"[train] deleting TrainJob {name}")
        with suppress(Exception):
            kube.delete(name)
        raise


def _obtain(kube: Kube, wanted: Object, follower: Follower, folder: Path, job: JobSettings) -> None:
    """See to it that the job exists: it does already, or it is created, where need be in an old one's place.

    Raises:
        JobFailed: an old one that is being deleted does not go.
    """
    name, until, waits = wanted["metadata"]["name"], time.monotonic() + job.start_timeout_seconds, False
    while True:
        found = kube.get(name)
        if found is None:
            (folder / "record.jsonl").unlink(missing_ok=True)  # an old result must not pass for the new job's
            shutil.rmtree(folder / "model", ignore_errors=True)
            if kube.create(wanted):
                say(f"[train] created TrainJob {kube.namespace}/{name}")
                return
        elif "deletionTimestamp" not in found["metadata"]:
            why = _useless(found, follower)
            if not why:
                say(f"[train] joined TrainJob {kube.namespace}/{name}, which an earlier try of this step created")
                return
            say(f"[train] TrainJob {kube.namespace}/{name} {why}; another takes its place")
            kube.delete(name)
        elif not waits:
            waits = True
            say(f"[train] an older TrainJob {kube.namespace}/{name} is being deleted; waiting for that")
        elif time.monotonic() > until:
            stuck = ", ".join(found["metadata"].get("finalizers", [])) or "nothing that it names"
            raise JobFailed(f"TrainJob {name} is being deleted and does not go; what holds it: {stuck}")
        time.sleep(job.poll_seconds)


def _useless(found: Object, follower: Follower) -> str:
    """Why a job that exists already cannot give the model; empty where it can."""
    if failed := condition(found, "Failed"):
        return f"failed earlier ({_reason(failed)})"
    if condition(found, "Complete"):
        follower.read()
        return "" if follower.result else "finished earlier, and its result is gone"
    return ""


def condition(job: Object, kind: str) -> Object | None:
    """A condition that holds, or None."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((held for held in conditions if held["type"] == kind and held["status"] == "True"), None)


def _reason(held: Object) -> str:
    return f"{held.get('reason', '')}: {held.get('message', '')}".strip(": ")


class Watch:
    """Looks at a job until it ends, and tells what changes.

    Args:
        kube: the cluster.
        name: the job.
        job: how often, and how long.
        follower: gets the job's numbers.
        lease: the file to renew.
    """

    def __init__(self, kube: Kube, name: str, job: JobSettings, follower: Follower, lease: Path) -> None:
        self._kube, self._name, self._job, self._follower, self._lease = kube, name, job, follower, lease
        self._listener = Listener()
        self._state, self._pod = ("", ""), ""
        self._waiting_since = time.monotonic()
        self._shown: set[str] = set()
        self._looked: float | None = None

    def to_the_end(self) -> None:
        """Wait for the job.

        Raises:
            InputError: a process found bad input.
            JobFailed: the job failed, was deleted by someone else, or did not start in time.
        """
        uid = None
        while True:
            self._lease.write_text(uuid.uuid4().hex, encoding="utf-8")
            found = self._kube.get(self._name)
            if found is None or uid not in (None, found["metadata"]["uid"]):
                raise JobFailed(f"TrainJob {self._name} was deleted while it was waited for; run the step again")
            uid = found["metadata"]["uid"]
            pod = self._kube.first_pod(self._name)
            if pod:
                self._read_log(pod)
            self._follower.read()
            if condition(found, "Complete"):
                return
            if failed := condition(found, "Failed"):
                self._fail(_reason(failed))
            self._tell(found, pod)
            time.sleep(self._job.poll_seconds)

    def _fail(self, why: str) -> None:
        if self._listener.error:
            raise InputError(self._listener.error)
        look = f"kubectl -n {self._kube.namespace} describe trainjob {self._name}"
        raise JobFailed(f"TrainJob {self._name} failed ({why}); its pods' logs tell more: {look}")

    def _tell(self, found: Object, pod: Object | None) -> None:
        state, note = _state_of(found, pod)
        if state != "starting":
            self._waiting_since = time.monotonic()
        elif time.monotonic() - self._waiting_since > self._job.start_timeout_seconds:
            raise Useless(
                f"TrainJob {self._name}: no pod runs after {self._job.start_timeout_seconds} s "
                f"({note or 'none was made'}); see profile.trainjob.start_timeout_seconds"
            )
        if (state, note) != self._state:
            say(f"[train] TrainJob is {state}" + (f": {note}" if note else ""))
        self._state = state, note

    def _read_log(self, pod: Object) -> None:
        """Show what is new in the first pod's log.

        Each look asks for a little more than the time since the last one; what that one saw is not shown again.
        """
        name, now = pod["metadata"]["name"], time.monotonic()
        if self._pod != name:
            if self._pod:
                say(f"[train] the first pod was replaced ({self._pod} by {name}): training starts again")
            self._pod, self._shown, self._looked = name, set(), None
        since = None if self._looked is None else int(now - self._looked) + 5
        lines = self._kube.log(name, since)
        for line in lines:
            if line not in self._shown:
                self._listener.line(line.partition(" ")[2])
        self._shown, self._looked = set(lines), now


def _state_of(found: Object, pod: Object | None) -> tuple[str, str]:
    if held := condition(found, "Suspended"):
        return "suspended", f"it waits for a queue or a person ({_reason(held)})"
    if pod is None:
        return "starting", ""
    status = pod.get("status", {})
    if status.get("phase") != "Pending":
        return "running", ""
    waiting = [held["state"].get("waiting", {}) for held in status.get("containerStatuses", []) if "state" in held]
    blocked = [held for held in status.get("conditions", []) if held["status"] == "False" and held.get("message")]
    return "starting", next((_reason(held) for held in [*waiting, *blocked] if held), "")
