"""The few calls that trainjob.py makes to Kubernetes, with patience: what passes by itself is tried again.

Errors end as one line that says what to do. Throttling (429), server errors and a broken connection are tried again
with growing pauses; a refusal (403) or a bad manifest (422) is not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tuneline.errors import InputError, how_to_install
from tuneline.progress import say
from tuneline.train.record import JobFailed

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
CONTAINER = "node"  # Trainer's name for the training container and for its replicated job
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT = 30
_LONGEST_PAUSE = 30.0
_LOG_BYTES = 4 * 2**20

T = TypeVar("T")
Object = dict[str, Any]


class Kube:
    """TrainJobs and their first pod's log, in one namespace.

    Args:
        namespace: empty takes the one that this pod runs in.
        pause: seconds before the first further try; each pause is twice the one before, up to half a minute.
        patience: seconds after which a server that does not answer is given up.

    Raises:
        InputError: no Kubernetes client is installed, or there is no cluster to speak to.
    """

    def __init__(self, namespace: str = "", pause: float = 1.0, patience: float = 300.0) -> None:
        self._pause, self._patience = pause, patience
        self._connect()
        self.namespace = namespace or _own_namespace()

    def _connect(self) -> None:
        try:
            from kubernetes import client, config
        except ImportError:
            raise InputError(
                f"train.distributed.nodes: more than one needs {how_to_install('distributed')}; the train image has it"
            ) from None
        settings = client.Configuration()
        try:
            config.load_incluster_config(settings)
        except config.ConfigException:
            try:
                config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=settings)
            except config.ConfigException as error:
                raise InputError(f"train.distributed.nodes: no Kubernetes cluster to speak to: {error}") from None
        settings.retries = False  # pyright: ignore[reportAttributeAccessIssue] - the pauses are ours
        api = client.ApiClient(settings)
        self._jobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def get(self, name: str) -> Object | None:
        """A TrainJob, or None where there is none."""

        def ask() -> Any:
            return self._jobs.get_namespaced_custom_object(*self._place, name, _request_timeout=_TIMEOUT)

        return self._call("get", ask, missing=None)

    def create(self, manifest: Object) -> bool:
        """Create a TrainJob; False where one of that name has come to be in the meantime."""

        def send() -> bool:
            self._jobs.create_namespaced_custom_object(*self._place, manifest, _request_timeout=_TIMEOUT)
            return True

        return self._call("create", send, exists=False)

    def delete(self, name: str) -> None:
        """Delete a TrainJob with its pods; nothing where there is none. It takes a while to be gone."""
        self._call(
            "delete",
            lambda: self._jobs.delete_namespaced_custom_object(
                *self._place, name, propagation_policy="Foreground", _request_timeout=_TIMEOUT
            ),
            missing=None,
        )

    def first_pod(self, job: str) -> Object | None:
        """The newest pod of rank 0: a restart makes another one."""
        chosen = f"jobset.sigs.k8s.io/jobset-name={job},jobset.sigs.k8s.io/replicatedjob-name={CONTAINER}"
        selector = f"{chosen},batch.kubernetes.io/job-completion-index=0"

        def ask() -> list[Object]:
            answer = self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=_TIMEOUT, _preload_content=False
            )
            return json.loads(answer.data)["items"]

        pods = self._call("list pods", ask)
        return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)

    def log(self, pod: str, since_seconds: int | None) -> list[str]:
        """Lines with their times of a pod that has started, or nothing before."""

        def ask() -> list[str]:
            since = {} if since_seconds is None else {"since_seconds": since_seconds}
            answer = self._core.read_namespaced_pod_log(
                pod, self.namespace, container=CONTAINER, timestamps=True, limit_bytes=_LOG_BYTES,
                _request_timeout=_TIMEOUT, _preload_content=False, **since,
            )  # fmt: skip
            return answer.data.decode("utf-8", errors="replace").splitlines()

        return self._call("read the log", ask, missing=[], waiting=[])

    @property
    def _place(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    def _call(self, what: str, send: Callable[[], T], **answers: Any) -> T:
        """Send, again while it may help; `answers` to 404 (missing), 409 (exists) and 400 (waiting) are no errors."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        began, pause, renewed = time.monotonic(), self._pause, False
        while True:
            try:
                return send()
            except ApiException as error:
                kind = {404: "missing", 409: "exists", 400: "waiting"}.get(error.status or 0, "")
                if kind in answers:
                    return answers[kind]
                if error.status == 401 and not renewed:
                    renewed = True
                    self._connect()  # the token of a pod is renewed in its file
                    continue
                why = _explain(error, what, self.namespace)
                if error.status not in (408, 429, 500, 502, 503, 504):
                    raise InputError(why) from None
                asked = (error.headers or {}).get("Retry-After", "")
                wait = max(pause, float(asked)) if asked.isdigit() else pause
            except (HTTPError, OSError) as error:
                why, wait = f"cannot {what}: the Kubernetes API does not answer ({type(error).__name__})", pause
            if time.monotonic() - began + wait > self._patience:
                raise JobFailed(f"{why}; gave up after {self._patience:.0f} s, the next try of this step takes over")
            if pause == self._pause:
                say(f"[train] {why}; trying again")
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _own_namespace() -> str:
    try:
        return _NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        raise InputError("profile.trainjob.namespace: not given, and this is no pod to take it from") from None


def _explain(error: Any, what: str, namespace: str) -> str:
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    start = f"cannot {what} in namespace {namespace}: {error.status}: {' '.join(str(message).split())[:500]}"
    hints = {
        401: "; the service account's token is not accepted",
        403: "; the service account of the train step needs a Role for trainjobs (get, create, delete), pods (list) "
        "and pods/log (get)",
        404: f"; is Kubeflow Trainer installed ({PLURAL}.{GROUP}, {VERSION})?",
    }
    return start + hints.get(error.status, "")
