"""A cluster's profile: images, resources, secrets, volumes and placement of each step, in a file apart from the recipe.

The same recipe runs on any cluster, and a profile serves every recipe. Secrets are named here, never written: their
values stay in Kubernetes. What a profile says is put on the tasks when the pipeline is compiled.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tuneline.config import Section
from tuneline.errors import without_credentials
from tuneline.provenance import IMAGE
from tuneline.recipe import read_mapping, validate
from tuneline.tracking import KFP_RUN
from tuneline_pipelines import trainjob
from tuneline_pipelines.server import EnvName, ObjectName, Server

_SECRET_LIKE = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY|API_KEY", re.IGNORECASE)

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")]
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")]
MountPath = Annotated[str, Field(pattern=r"^/[^:]+$")]


class Accelerator(Section):
    """GPUs of one task."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    """How many."""
    type: Annotated[str, Field(min_length=1)] = "nvidia.com/gpu"
    """The resource's name: nvidia.com/gpu, amd.com/gpu, or a MIG slice such as nvidia.com/mig-1g.10gb."""


class Toleration(Section):
    """A taint that the task's pod accepts."""

    key: str | None = None
    """The taint's key; none with operator Exists tolerates all."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Equal compares the value, Exists does not."""
    value: str | None = None
    """The taint's value."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    """The taint's effect; none tolerates all of them."""


class Volume(Section):
    """A persistent volume claim, for checkpoints or a cache of models."""

    claim: ObjectName
    """The claim's name."""
    mount_path: MountPath
    """Where the task sees it."""
    sub_path: str = ""
    """Only this folder of it."""


class SecretEnv(Section):
    """A Kubernetes Secret, some of whose keys become environment variables."""

    name: ObjectName
    """The Secret's name, in the namespace of the run."""
    keys: dict[str, EnvName] = Field(min_length=1)
    """The Secret's key -> the environment variable."""


class SecretFiles(Section):
    """A Kubernetes Secret whose keys become files, such as a private certificate authority."""

    name: ObjectName
    """The Secret's name, in the namespace of the run."""
    mount_path: MountPath
    """The folder in which each key is a file."""


class StepProfile(Section):
    """What one step's pod asks for."""

    image: str = ""
    """The step's image, best by digest (NAME@sha256:...); empty takes images.prefix."""
    cpu_request: Quantity | None = None
    """Processor cores that are reserved."""
    cpu_limit: Quantity | None = None
    """Processor cores that it may use."""
    memory_request: Quantity | None = None
    """Memory that is reserved."""
    memory_limit: Quantity | None = None
    """Memory above which it is killed."""
    accelerator: Accelerator | None = None
    """GPUs."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, held in memory; Kubernetes' own 64 MiB are too few for several training processes."""
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that the node must have."""
    tolerations: list[Toleration] = Field(default_factory=list)
    """Taints that the pod accepts."""
    volumes: list[Volume] = Field(default_factory=list)
    """Claims to mount."""
    timeout_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds after which the step is stopped."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a failed step is started again; every step may be."""


class Images(Section):
    """Where the images are."""

    prefix: str = ""
    """Put in front of tuneline-STEP:VERSION, such as registry.example.com/ml; a private registry when air-gapped."""
    pull_secrets: list[ObjectName] = Field(default_factory=list)
    """Secrets for the registry."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When an image is pulled."""


class Security(Section):
    """Who the pods run as."""

    user: Annotated[int, Field(ge=1)] = 10001
    """Numeric user id, never root."""
    group: Annotated[int, Field(ge=1)] = 10001
    """Numeric group id."""


class TrainJob(Section):
    """Training on several machines, by Kubeflow Trainer; what its pods ask for stands in steps.train."""

    claim: ObjectName
    """A claim that many pods can write to (ReadWriteMany); data goes to them, and the model comes back, by it."""
    mount_path: MountPath = "/shared"
    """Where the train step and the job's pods see it."""
    runtime: ObjectName = "tuneline-torch"
    """The ClusterTrainingRuntime."""
    namespace: ObjectName | None = None
    """The job's namespace; none takes the run's own, which is where the claim is."""
    start_timeout_seconds: Annotated[int, Field(ge=1)] = 3600
    """Seconds that an admitted job may take until its first pod runs; waiting in a queue does not count."""
    keep: bool = False
    """Leave a finished job, and its folder on the claim, for a person to look at."""


def _no_secret(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if _SECRET_LIKE.search(name) or without_credentials(value) != value:
            raise ValueError(f"{name} looks like a secret; keep it in a Kubernetes Secret and name that under secrets")
    return values


class Steps(Section):
    """The four steps, and the workers of a sweep."""

    prepare: StepProfile = StepProfile()
    """Data preparation."""
    train: StepProfile = StepProfile()
    """Fine-tuning."""
    evaluate: StepProfile = StepProfile()
    """Evaluation."""
    register_: StepProfile = Field(default=StepProfile(), alias="register")
    """Registration."""
    sweep: StepProfile | None = None
    """A worker of the sweep pipeline; none asks for what train does, in the image of its own."""


class Profile(Section):
    """One cluster."""

    server: Server | None = None
    """Its Kubeflow Pipelines; needed to submit."""
    images: Images = Images()
    """Where the images are."""
    security: Security = Security()
    """Who the pods run as."""
    env: Annotated[dict[EnvName, str], AfterValidator(_no_secret)] = Field(default_factory=dict)
    """Plain environment variables of every step, such as MLFLOW_TRACKING_URI; no secrets."""
    secrets: list[SecretEnv] = Field(default_factory=list)
    """Secrets whose keys become environment variables of every step."""
    secret_files: list[SecretFiles] = Field(default_factory=list)
    """Secrets whose keys become files of every step."""
    model_cache: Volume | None = None
    """A claim that keeps what prepare, train and a sweep fetch from the hub (HF_HOME), so that it is fetched once."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Pod labels of every step, for cost and ownership."""
    queue: LabelValue | None = None
    """Kueue's local queue."""
    air_gapped: bool = False
    """No hub and no package index in reach: checkpoints and data come from volumes and packages, and nothing asks."""
    steps: Steps = Steps()
    """Resources, placement and volumes of each step."""
    trainjob: TrainJob | None = None
    """Training on several machines; needed where train.distributed.nodes is above 1."""

    def gives(self, variable: str) -> bool:
        """Whether the steps will have an environment variable."""
        return variable in self.env or any(variable in secret.keys.values() for secret in self.secrets)

    def plain_environment(self, name: str) -> dict[str, str]:
        """The environment of a step, named as in `apply`, that is no secret."""
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PIP_NO_INDEX": "1"}
        cache = self.cache(name)
        return self.env | (offline if self.air_gapped else {}) | ({"HF_HOME": cache.mount_path} if cache else {})

    def cache(self, name: str) -> Volume | None:
        """The model cache, for a step that reads checkpoints."""
        return self.model_cache if name in ("prepare", "train", "sweep") else None

    @model_validator(mode="after")
    def _mounted_once(self) -> Profile:
        if self.trainjob and any(volume.claim == self.trainjob.claim for volume in self.steps.train.volumes):
            claim = self.trainjob.claim
            raise ValueError(
                f"trainjob.claim: {claim!r} given; it stands under steps.train.volumes too; remove it there"
            )
        return self

    @model_validator(mode="after")
    def _requests_fit(self) -> Profile:
        for name in ("prepare", "train", "evaluate", "register_", "sweep"):
            step: StepProfile | None = getattr(self.steps, name)
            for kind in ("cpu", "memory"):
                request, limit = (getattr(step, f"{kind}_{end}", None) for end in ("request", "limit"))
                if request and limit and amount(request) > amount(limit):
                    raise ValueError(
                        f"steps.{name.rstrip('_')}.{kind}_request: {request!r} given; at most the limit {limit}"
                    )
        return self


_FACTORS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity: str) -> float:
    """A quantity of Kubernetes as a number, of bytes or of cores."""
    number = quantity.rstrip("mkMGTi")
    return float(number) * _FACTORS.get(quantity[len(number) :], 1)


def load_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        InputError: the file is missing or no YAML mapping, or a key or value is refused.
    """
    return validate(Profile, read_mapping(path, f"--profile: {path}", Profile), "profile")


def apply(profile: Profile, name: str, task: Any, nodes: int = 1) -> None:
    """Put on a task what the profile says of its step.

    Args:
        profile: the cluster.
        name: prepare, train, evaluate or register; sweep, a worker of that pipeline; or conclude, what follows on them.
        task: KFP's task.
        nodes: the recipe's train.distributed.nodes; above 1 the train step's own pod only looks on.
    """
    step = _step(profile.steps, name)
    _image(profile.images, step, task)
    if name == "train" and profile.trainjob:
        trainjob.configure(profile, profile.trainjob, task)
        step = step.model_copy(update=_LOOKS_ON if nodes > 1 else {})
    _size(step, task)
    _place(profile, step, task)
    _environment(profile, name, step, task)
    task.set_retry(num_retries=step.retries, backoff_duration="30s", backoff_factor=2.0)


def _step(steps: Steps, name: str) -> StepProfile:
    workers = steps.sweep or steps.train.model_copy(update={"image": ""})
    if name == "sweep":
        return workers
    if name == "conclude":  # in the workers' image, at the size of evaluate
        return steps.evaluate.model_copy(update={"image": workers.image})
    return getattr(steps, "register_" if name == "register" else name)


_LOOKS_ON = {
    "cpu_request": "500m", "cpu_limit": None, "memory_request": "2Gi", "memory_limit": None, "accelerator": None,
    "shared_memory": None, "node_selector": {}, "tolerations": [],
}  # fmt: skip


def _image(images: Images, step: StepProfile, task: Any) -> None:
    from kfp import kubernetes

    own = task.container_spec.image.rpartition("/")[2]
    if step.image or images.prefix:
        task.set_container_image(step.image or f"{images.prefix.rstrip('/')}/{own}")
    if images.pull_secrets:
        kubernetes.set_image_pull_secrets(task, images.pull_secrets)
    kubernetes.set_image_pull_policy(task, images.pull_policy)


def _size(step: StepProfile, task: Any) -> None:
    from kfp import kubernetes

    for key in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
        if value := getattr(step, key):
            getattr(task, f"set_{key}")(value)
    if step.accelerator:
        task.set_accelerator_type(step.accelerator.type).set_accelerator_limit(step.accelerator.count)
    if step.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", step.shared_memory)  # noqa: S108
    if step.timeout_seconds:
        kubernetes.set_timeout(task, step.timeout_seconds)


def _place(profile: Profile, step: StepProfile, task: Any) -> None:
    from kfp import kubernetes

    for key, value in step.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in step.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    for key, value in profile.labels.items():
        kubernetes.add_pod_label(task, key, value)
    if profile.queue:
        kubernetes.add_pod_label(task, trainjob.QUEUE_LABEL, profile.queue)
    user, group = profile.security.user, profile.security.group
    kubernetes.set_security_context(task, run_as_user=user, run_as_group=group, run_as_non_root=True)


def _environment(profile: Profile, name: str, step: StepProfile, task: Any) -> None:
    from kfp import kubernetes

    cache = profile.cache(name)
    for key, value in {IMAGE: task.container_spec.image, **profile.plain_environment(name)}.items():
        task.set_env_variable(key, value)
    kubernetes.use_field_path_as_env(task, KFP_RUN, "metadata.labels['pipeline/runid']")  # KFP's id of the run
    for secret in profile.secrets:
        kubernetes.use_secret_as_env(task, secret.name, secret.keys)
    for files in profile.secret_files:
        kubernetes.use_secret_as_volume(task, files.name, files.mount_path)
    for volume in [*step.volumes, *([cache] if cache else [])]:
        kubernetes.mount_pvc(task, volume.claim, volume.mount_path, volume.sub_path)
