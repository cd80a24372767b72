"""tuneline run --docker: the same pipeline, each step in its image, through KFP's Docker runner.

A container sees the run's folder, the recipe's local files and the network that it is given, and nothing else: its root
is read-only, it has no capabilities, and it is not root. It cannot share an SQLite file with this process, so that
MLflow must be a server.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from tuneline import tracking
from tuneline.artifacts import STEPS
from tuneline.config import Recipe
from tuneline.errors import InputError, how_to_install, without_credentials
from tuneline.storage import CHECKPOINTS
from tuneline.tables.files import expanded
from tuneline_pipelines import images
from tuneline_pipelines.build import engine
from tuneline_pipelines.recipes import places
from tuneline_pipelines.state import State, lives, owner

USER = 10001
"""Of the containers where this process is root; else they run as its own user, whose files they write."""
_LABEL, _OWNER = "tuneline.run", "tuneline.owner"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PASSED = (
    "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION",
    "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN", "OMP_NUM_THREADS", tracking.PARENT, CHECKPOINTS,
    *_PROXIES, *(name.lower() for name in _PROXIES),
)  # fmt: skip
CERTIFICATES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "MLFLOW_TRACKING_SERVER_CERT_PATH")
"""Variables that name a file, which a container finds where this machine has it."""


@dataclass(frozen=True)
class Containers:
    """Where the steps' containers run.

    Attributes:
        network: the Docker network that they are on.
    """

    network: str

    def prepared(self, recipe: Recipe, state: State) -> Recipe:
        """The recipe as containers read it: with absolute paths, because each has a directory of its own.

        Raises:
            InputError: no engine, an image that is not there, or a store that containers cannot reach.
        """
        self._check_store(state.tracking_uri)
        client = engine()
        missing = {step: name for step, name in _images().items() if not client.images.list(name=name)}
        if missing:
            names, targets = ", ".join(missing.values()), " ".join(f"--target {step}" for step in missing)
            raise InputError(f"--docker: not there: {names}; make it with: tuneline build {targets}")
        return absolute(recipe)

    def _check_store(self, uri: str) -> None:
        if not uri.startswith(("http://", "https://")):
            raise InputError(
                "--docker: containers cannot share this machine's SQLite store; start an MLflow server and name it in "
                "MLFLOW_TRACKING_URI (docs/containers.md tells how)"
            )
        host = urlparse(uri).hostname
        if host in ("127.0.0.1", "localhost", "::1") and self.network != "host":
            raise InputError(
                f"MLFLOW_TRACKING_URI: {host} is each container itself; name an address that containers reach, or use "
                f"--network host"
            )

    def configure(self) -> Callable[[str, Any], None]:
        """What gives each task its image, built from this very code."""
        return images.configure(_images())

    def runner(self, recipe: Recipe, state: State) -> Any:
        """KFP's runner; its arguments hold for every step.

        Args:
            recipe: as `prepared` gave it.
            state: whose pipeline root the containers write to.
        """
        from docker.types import Mount
        from kfp import local

        user, group = os.getuid() or USER, os.getgid() or USER
        checkpoints = _folder(os.environ[CHECKPOINTS])
        for folder in (state.pipeline_root, *checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
            if os.getuid() == 0:
                os.chown(folder, user, group)
        read = [Mount(path, path, type="bind", read_only=True) for path in mounted(recipe)]
        written = [Mount(str(path), str(path), type="bind") for path in checkpoints]
        return local.DockerRunner(
            user=f"{user}:{group}", read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"], init=True,
            tmpfs={"/tmp": "exec,mode=1777"},  # noqa: S108 - the container's own
            network_mode=self.network, labels={_LABEL: os.environ[tracking.PARENT], _OWNER: owner()},
            environment=environment(recipe),
            mounts=[*read, *written],
        )  # fmt: skip

    def stop_abandoned(self, grace: int) -> None:
        """Remove the containers of commands that were killed outright on this machine; a training saves its state."""
        for container in engine().containers.list(all=True, filters={"label": _OWNER}, ignore_removed=True):
            if not lives(container.labels[_OWNER]):
                _end(container, grace)

    def stop(self, grace: int) -> None:
        """End the containers of this process's run."""
        if run_id := os.environ.get(tracking.PARENT):
            ours = {"label": f"{_LABEL}={run_id}"}
            for container in engine().containers.list(filters=ours, ignore_removed=True):
                _end(container, grace)


def _end(container: Any, grace: int) -> None:
    """Stop a container, which then removes itself, as it was told to, or is removed."""
    from docker.errors import APIError

    try:
        container.stop(timeout=grace)
        container.remove(force=True)
    except APIError as error:
        if error.status_code not in (404, 409):
            raise


def environment(recipe: Recipe) -> dict[str, str]:
    """What the steps are told of this machine's environment, and as whom they read S3.

    Raises:
        InputError: a certificate is no file, or AWS_PROFILE gives no keys.
    """
    named = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return named | certificates() | _keys(recipe)


def certificates() -> dict[str, str]:
    """Certificates that this machine trusts, or is known by, as absolute paths.

    Raises:
        InputError: one is no file.
    """
    found = {name: Path(os.environ[name]).absolute() for name in CERTIFICATES if os.environ.get(name)}
    for name, path in found.items():
        if not path.is_file():
            raise InputError(f"--docker: {name}: {path}: no such file")
    return {name: str(path) for name, path in found.items()}


def _keys(recipe: Recipe) -> dict[str, str]:
    """Who this machine is to S3, where its environment has no keys: containers see neither its profiles nor its role.

    A session's token is passed as it is now, and ends when it ends.
    """
    named = [*places(recipe).values(), os.environ[CHECKPOINTS]]
    wanted = "AWS_PROFILE" in os.environ or any(place.startswith("s3://") for place in named)
    if not wanted or "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise InputError(f"--docker: s3:// and AWS_PROFILE need {how_to_install('s3')}") from None
    try:
        session = boto3.Session()
        credentials = session.get_credentials()
        if credentials is None:  # a bucket for everybody, or the step will tell
            return {}
        keys = credentials.get_frozen_credentials()
    except BotoCoreError as error:
        raise InputError(f"--docker: no keys for S3: {without_credentials(str(error))}") from None
    found = {
        "AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_SESSION_TOKEN": keys.token, "AWS_DEFAULT_REGION": session.region_name,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value}


def _folder(place: str) -> list[Path]:
    """The folder of checkpoints to mount; none where they are kept in S3."""
    return [] if place.startswith("s3://") else [Path(place).absolute()]


def _images() -> dict[str, str]:
    return {step: images.name_of(step, os.environ.get("TUNELINE_BASE") or images.BASE) for step in STEPS}


def absolute(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths and patterns, for a process in another directory."""
    found = _local(recipe)
    data = {key.removeprefix("data."): place for key, place in found.items() if key.startswith("data.")}
    model = {"name": found["model.name"]} if "model.name" in found else {}
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update=data), "model": recipe.model.model_copy(update=model)}
    )


def mounted(recipe: Recipe) -> list[str]:
    """What a container must see of this machine: its files, folders, folders of patterns, certificates."""
    return sorted({*map(_seen, _local(recipe).values()), *certificates().values()})


def _local(recipe: Recipe) -> dict[str, str]:
    """The recipe's files, folders and patterns on this machine, as absolute paths."""
    paths = {key: expanded(place) for key, place in places(recipe).items() if "://" not in place}
    return {key: str(path.absolute()) for key, path in paths.items() if path.exists() or glob.has_magic(str(path))}


def _seen(place: str) -> str:
    """A path itself, or the folder below which a pattern has its first sign."""
    path = Path(place)
    while not path.exists() and glob.has_magic(str(path)):
        path = path.parent
    return str(path)
