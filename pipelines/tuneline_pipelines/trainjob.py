"""What a cluster's profile tells the train step about TrainJobs: what its pods are, in one environment variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuneline.storage import CHECKPOINTS
from tuneline.train.job_manifest import ENVIRONMENT, JobSettings

if TYPE_CHECKING:
    from tuneline_pipelines.resources import Profile, StepProfile, TrainJob

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def configure(profile: Profile, job: TrainJob, task: Any) -> None:
    """Put on the train step's task what it needs to start a TrainJob: secrets by name, no value of one.

    Args:
        profile: the cluster.
        job: its section trainjob.
        task: KFP's task, with its image.
    """
    from kfp import kubernetes

    step = profile.steps.train
    amounts = {
        f"{kind}s": {part: value for part in ("cpu", "memory") if (value := getattr(step, f"{part}_{kind}"))}
        for kind in ("request", "limit")
    }
    volumes, mounts = _volumes(profile)
    settings = JobSettings.model_validate(
        amounts | job.model_dump(exclude_none=True) | {
            "image": task.container_spec.image,
            "accelerator": step.accelerator.type if step.accelerator else "",
            "labels": profile.labels,
            "job_labels": {QUEUE_LABEL: profile.queue} if profile.queue else {},
            "env": _pod_environment(profile, job.mount_path),
            "pod": _pod(profile, step) | ({"volumes": volumes} if volumes else {}),
            "mounts": mounts,
            "timeout_seconds": step.timeout_seconds,
        }
    )  # fmt: skip
    task.set_env_variable(ENVIRONMENT, settings.model_dump_json(exclude_defaults=True))
    kubernetes.mount_pvc(task, job.claim, job.mount_path)


def _pod_environment(profile: Profile, claim: str) -> list[dict[str, Any]]:
    """The profile's, and a place on the claim for checkpoints where it names none."""
    values = {CHECKPOINTS: f"{claim}/checkpoints", **profile.plain_environment("train")}
    plain = [{"name": key, "value": value} for key, value in values.items()]
    return plain + [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in profile.secrets
        for key, variable in secret.keys.items()
    ]


def _volumes(profile: Profile) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the train step's own pod has besides the claim that all share."""
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    step, cache = profile.steps.train, profile.cache("train")
    for volume in [*step.volumes, *([cache] if cache else [])]:
        if all(known["name"] != volume.claim for known in volumes):
            volumes.append({"name": volume.claim, "persistentVolumeClaim": {"claimName": volume.claim}})
        mount = {"name": volume.claim, "mountPath": volume.mount_path}
        mounts.append(mount | ({"subPath": volume.sub_path} if volume.sub_path else {}))
    for files in profile.secret_files:
        volumes.append({"name": files.name, "secret": {"secretName": files.name}})
        mounts.append({"name": files.name, "mountPath": files.mount_path, "readOnly": True})
    if step.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": step.shared_memory}
        volumes.append({"name": "shared-memory", "emptyDir": memory})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108
    return volumes, mounts


def _pod(profile: Profile, step: StepProfile) -> dict[str, Any]:
    user, group = profile.security.user, profile.security.group
    pod = {
        "securityContext": {"runAsUser": user, "runAsGroup": group, "fsGroup": group, "runAsNonRoot": True},
        "nodeSelector": step.node_selector,
        "tolerations": [toleration.model_dump(exclude_none=True) for toleration in step.tolerations],
        "imagePullSecrets": [{"name": name} for name in profile.images.pull_secrets],
    }
    return {key: value for key, value in pod.items() if value}
