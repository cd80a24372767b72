"""The TrainJob that the train step asks for: what a cluster's profile says of it, its name and its manifest.

Written for the v1alpha1 API of Kubeflow Trainer 2.3 (`runtimePatches`; up to 2.1 there was `podTemplateOverrides`
instead).
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Annotated, Any

from pydantic import Field, ValidationError

from tuneline import __version__
from tuneline.artifacts import PreparedData
from tuneline.config import ModelConfig, Section, TrainConfig
from tuneline.errors import InputError
from tuneline.provenance import git_commit
from tuneline.tracking import KFP_RUN
from tuneline.train.kube import CONTAINER, GROUP, VERSION, Object

ENVIRONMENT = "TUNELINE_TRAINJOB"
"""Environment variable: what a cluster's profile says of TrainJobs, as JSON."""

COMMAND = ["python", "-m", "torch.distributed.run", "-m", "tuneline.train"]
"""What each pod runs. How many there are, and where the first is, torchrun reads from Trainer's PET_* variables."""
_VOLUME = "tuneline-shared"


class JobSettings(Section):
    """What the profile of a cluster says of its TrainJobs."""

    image: str
    """The train step's image."""
    claim: str
    """The claim that the step and the job's pods share; many pods write to it."""
    mount_path: str
    """Where it lies in all of them."""
    runtime: str = "tuneline-torch"
    """The ClusterTrainingRuntime."""
    namespace: str = ""
    """The job's namespace; empty takes the step's own."""
    accelerator: str = ""
    """The GPUs' resource name; empty trains on CPUs."""
    requests: dict[str, str] = Field(default_factory=dict)
    """What each pod reserves besides GPUs."""
    limits: dict[str, str] = Field(default_factory=dict)
    """What each pod may use besides GPUs."""
    pod: dict[str, Any] = Field(default_factory=dict)
    """Fields of the pods' specification: placement, identity, further volumes, pull secrets."""
    mounts: list[dict[str, Any]] = Field(default_factory=list)
    """Mounts of the further volumes."""
    env: list[dict[str, Any]] = Field(default_factory=list)
    """Environment of the pods; secrets by reference only."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the job and of its pods."""
    job_labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the job only: Kueue's queue, which must not queue the job's pods once more."""
    timeout_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds of running after which the job is stopped."""
    start_timeout_seconds: Annotated[int, Field(ge=1)] = 3600
    """Seconds that an admitted job may take until its first pod runs; waiting in a queue does not count."""
    keep: bool = False
    """Leave a finished job, and its folder on the claim, for a person to look at."""
    poll_seconds: Annotated[float, Field(gt=0)] = 3.0
    """Seconds between two looks at the job."""
    patience_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Seconds that Kubernetes may be out of reach."""


def settings_here() -> JobSettings:
    """The settings that the environment holds.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    text = os.environ.get(ENVIRONMENT)
    if not text:
        raise InputError(
            "train.distributed.nodes: more than one given, and no cluster to take them from; compile the pipeline with "
            "a profile that has trainjob, or train on one machine with train.distributed.gpus_per_node"
        )
    try:
        return JobSettings.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{ENVIRONMENT}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def job_name(data: PreparedData, model: ModelConfig, settings: TrainConfig, image: str) -> str:
    """The name of the job that does this work: the same for the same data, configuration, code and pipeline run."""
    facts = {
        "data": data.sha256["all"], "model": model.model_dump(), "train": settings.model_dump(), "image": image,
        "code": [__version__, git_commit()], "run": os.environ.get(KFP_RUN, ""),
    }  # fmt: skip
    return f"tuneline-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"


def manifest(name: str, job: JobSettings, train: TrainConfig, arguments: list[str]) -> Object:
    """The TrainJob.

    Args:
        name: its name.
        job: what the profile says.
        train: how many nodes, and GPUs on each.
        arguments: DATA, OUT and CONFIG.json of `python -m tuneline.train`.
    """
    spread = train.distributed
    gpus = {job.accelerator: str(spread.gpus_per_node)} if job.accelerator else {}
    # GPUs stand in both: where requests are missing, Trainer starts one process a node, whatever numProcPerNode says.
    resources = {"requests": job.requests | gpus, "limits": job.limits | gpus}
    trainer: Object = {
        "image": job.image, "command": COMMAND, "args": arguments, "env": job.env,
        "numNodes": spread.nodes, "numProcPerNode": spread.gpus_per_node,
        "resourcesPerNode": {kind: amounts for kind, amounts in resources.items() if amounts},
    }  # fmt: skip
    spec: Object = {
        "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": job.runtime},
        "trainer": {key: value for key, value in trainer.items() if value},
        "runtimePatches": [_patch(job)],
    }
    if job.timeout_seconds:
        spec["activeDeadlineSeconds"] = job.timeout_seconds
    labels = job.labels | job.job_labels | {"app.kubernetes.io/managed-by": "tuneline"}
    return {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": "TrainJob", "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }  # fmt: skip


def _patch(job: JobSettings) -> Object:
    shared = {"name": _VOLUME, "persistentVolumeClaim": {"claimName": job.claim}}
    mounts = [{"name": _VOLUME, "mountPath": job.mount_path}, *job.mounts]
    pod = job.pod | {
        "volumes": [shared, *job.pod.get("volumes", [])],
        "containers": [{"name": CONTAINER, "volumeMounts": mounts}],
    }
    template = {"metadata": {"labels": job.labels}, "spec": pod}
    jobs = [{"name": CONTAINER, "template": {"spec": {"template": template}}}]
    return {"manager": "tuneline", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
