"""How KServe is to serve a version: an InferenceService, with the stock runtime only where it gives the same answers.

KServe's Hugging Face runtime answers with the largest logit of a text's head. A version whose decision is another
(thresholds, costs, abstention, windows, cleaning and more) is served by our own image, and the stock runtime is not
offered for it. Everything else is as in infra/serving/inference-service.yaml.
"""

from __future__ import annotations

import os
import re
from typing import Any

import tuneline
from tuneline import lineage
from tuneline_pipelines import images

IMAGE = "TUNELINE_SERVING_IMAGE"
"""The environment variable that names our serving image, where `tuneline build --push` has not recorded it here."""
_END = ("--linger-seconds", "10", "--drain-seconds", "15")
"""A pod gets requests for some seconds after its end was decided, and is killed after 30."""
FETCHED = ("s3://", "gs://", "https://")
"""What KServe's storage initializer fetches a folder from."""
TMP = "/tmp"  # noqa: S108 - a volume of the container's own
TRACKING = "tuneline-mlflow"
"""The Secret with MLFLOW_TRACKING_URI and credentials, from which our image fetches the version."""


def service(api: Any, version: Any) -> dict[str, Any]:
    """The manifest of a version, and why it is that one.

    Args:
        api: the tracking server.
        version: of a registered model.

    Returns:
        runtime (huggingface or tuneline), why (what keeps the stock runtime from serving it; none for huggingface) and
        manifest, an InferenceService.
    """
    beyond = version.tags.get(lineage.SERVING)
    why = [] if beyond == lineage.STOCK else [beyond or "it was registered before its decision was told"]
    source = f"{api.get_model_version_download_uri(version.name, str(version.version)).rstrip('/')}/data/model"
    if not source.startswith(FETCHED):
        why.append("KServe does not fetch from where the artifacts lie")
    runtime = _own(version) if why else _stock(version, source)
    return {"runtime": "tuneline" if why else "huggingface", "why": why, "manifest": _manifest(version, runtime)}


def name_of(model: str) -> str:
    """A name that Kubernetes takes, of a registered model."""
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:50].strip("-")
    return plain if plain[:1].isalpha() else f"model-{plain}".strip("-")


def _manifest(version: Any, runtime: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name_of(version.name),
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "tuneline/version": f"{version.name}/{version.version}",
            },
        },
        "spec": {
            "predictor": {
                "serviceAccountName": "serving",
                "automountServiceAccountToken": False,
                "minReplicas": 2,
                "maxReplicas": 4,
                "scaleMetric": "cpu",
                "scaleTarget": 70,
                "timeout": 30,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "runAsGroup": 10001,
                    "fsGroup": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                **runtime,
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}}],
            }
        },
    }


def _stock(version: Any, source: str) -> dict[str, Any]:
    own = {
        "modelFormat": {"name": "huggingface"},
        "protocolVersion": "v2",
        "storageUri": source,
        "args": [
            f"--model_name={name_of(version.name)}",
            "--task=sequence_classification",
            "--backend=huggingface",
            *version.tags.get(lineage.STOCK_ARGUMENTS, "").split(),
        ],
        "env": [
            {"name": "HF_HUB_OFFLINE", "value": "1"},
            {"name": "HOME", "value": TMP},
            {"name": "HF_HOME", "value": f"{TMP}/huggingface"},
        ],
    }
    return {"model": own | _container()}


def _own(version: Any) -> dict[str, Any]:
    own = {
        "name": "kserve-container",
        "image": _image(),
        "args": [f"{version.name}/{version.version}", "--port", "8080", *_END],
        "env": [{"name": "HOME", "value": TMP}],
        "envFrom": [{"secretRef": {"name": TRACKING}}],
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "timeoutSeconds": 5},
    }
    return {
        "containers": [own | _container()],
        "labels": {"tuneline/mlflow-client": "true"},
    }  # infra's network policies


def _image() -> str:
    return os.environ.get(IMAGE) or images.known().get("serving") or f"tuneline-serving:{tuneline.__version__}"


def _container() -> dict[str, Any]:
    return {
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": TMP}],
    }
