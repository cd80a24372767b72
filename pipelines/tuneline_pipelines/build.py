"""tuneline build: the images, tagged by what goes into them, pushed and known by digest."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlparse

import tuneline
from tuneline.errors import InputError, how_to_install, without_credentials
from tuneline_pipelines import images
from tuneline_pipelines.pip_settings import pip_files
from tuneline_pipelines.state import home
from tuneline_pipelines.watch import Tell

_STEP = re.compile(r"^Step (\d+)/(\d+) : (\S+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class BuildFailed(Exception):  # noqa: N818 - it is a build's outcome, told with the place of its log
    """An image was not built or not pushed; the message says why."""


def engine() -> Any:
    """A client of the Docker engine.

    Raises:
        InputError: the docker package is not installed, or no engine answers.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        raise InputError(f"the package docker is not installed; {how_to_install('docker')}") from None
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        why = (re.findall(r"Error\(\d+, '([^']+)'", str(error)) or [_one_line(str(error))])[-1]
        where = os.environ.get("DOCKER_HOST", "/var/run/docker.sock")
        raise InputError(f"no Docker engine answers at {where} ({why}); start one, or name it in DOCKER_HOST") from None
    return client


def build(targets: Sequence[str], base: str, cuda: bool, torch_index: str, tell: Tell) -> list[dict[str, Any]]:
    """Build the images that are not there yet.

    Args:
        targets: which, of images.TARGETS.
        base: the image that they start from.
        cuda: torch with CUDA in the images that hold torch.
        torch_index: an index that has torch's build for the CPU; "pip" takes the one that pip's own settings find.
        tell: called with a build's progress.

    Returns:
        A dictionary an image: image, reference, built, seconds, size and over_base (bytes).

    Raises:
        InputError: an unknown target, no engine, or no checkout to build from.
        BuildFailed: an image could not be built.
    """
    if unknown := set(targets) - set(images.TARGETS):
        raise InputError(f"--target: {unknown.pop()!r} given; allowed: {', '.join(images.TARGETS)}")
    client, root = engine(), images.source_tree()
    arguments = {
        "BASE": base,
        "TORCH": "cuda" if cuda else "cpu",
        "TORCH_INDEX": "" if torch_index == "pip" else torch_index,
        "VERSION": tuneline.__version__,
        "COMMIT": _commit(root),
        **{name: os.environ[name] for name in _PROXIES if name in os.environ},
    }
    made = []
    with pip_files() as (settings, share_network):
        network = "host" if share_network or _on_loopback(arguments) else None
        context = _tar(images.inputs(root) | {f"docker/pip/{name}": content for name, content in settings.items()})
        for target in (name for name in images.TARGETS if name in targets):
            reference = images.name_of(target, base, cuda)
            started, there = time.monotonic(), bool(client.images.list(name=reference))
            if not there:
                stream = client.api.build(
                    fileobj=io.BytesIO(context), custom_context=True, dockerfile="docker/Dockerfile", target=target,
                    tag=reference, buildargs=arguments, network_mode=network, rm=True, forcerm=True, decode=True,
                )  # fmt: skip
                _follow(target, stream, home() / "logs" / f"build-{target}.log", tell)
            size, under = _size(client, reference), _size(client, base)
            tell(target, 0, 0, f"{reference} {'is there already' if there else 'built'}")
            made.append({"image": target, "reference": reference, "built": not there, "size": size,
                         "over_base": size - under, "seconds": round(time.monotonic() - started, 1)})  # fmt: skip
    return made


def _commit(root: Path) -> str:
    """The checkout's commit, marked -dirty where it holds what is not committed."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _on_loopback(arguments: dict[str, str]) -> bool:
    hosts = (urlparse(arguments.get(name, "")).hostname for name in _PROXIES)
    return any(host in ("127.0.0.1", "localhost") for host in hosts)


def _size(client: Any, reference: str) -> int:
    return client.images.get(reference).attrs["Size"]


def _tar(files: dict[str, bytes]) -> bytes:
    """The files as a tar archive, whose bytes depend on nothing else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _follow(target: str, stream: Iterator[dict[str, Any]], log: Path, tell: Tell) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8", buffering=1) as file:
        for event in _events(stream):
            _tell_step(target, event.get("stream", ""), file, tell)
            if error := event.get("error"):
                raise BuildFailed(f"{target} was not built: {without_credentials(_one_line(error))}; log: {log}")


def _events(stream: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The engine's events; what it refuses at once is an event too."""
    from docker.errors import APIError

    try:
        yield from stream
    except APIError as error:
        yield {"error": error.explanation or str(error)}


def _tell_step(target: str, text: str, log: TextIO, tell: Tell) -> None:
    text = without_credentials(_COLOUR.sub("", text))
    log.write(text)
    if match := _STEP.match(text):
        tell(target, int(match[1]), int(match[2]), "build steps")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def check_registry(registry: str) -> None:
    """Refuse what is no registry's name, before anything is built for it.

    Raises:
        InputError: it is not HOST[:PORT][/PATH].
    """
    if not re.fullmatch(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)*", registry):
        raise InputError(f"--push: {registry!r} given; allowed: HOST[:PORT][/PATH], such as registry.example.com/ml")


def push(made: list[dict[str, Any]], registry: str, tell: Tell) -> None:
    """Push images, add their digests to `made`, and record them for compile.

    Args:
        made: what build returned.
        registry: HOST[:PORT][/PATH].
        tell: called with each digest.

    Raises:
        BuildFailed: the registry is out of reach or refuses.
    """
    client = engine()
    for row in made:
        name, _, tag = row["reference"].partition(":")
        repository = f"{registry}/{name}"
        client.images.get(row["reference"]).tag(repository, tag)
        digest = ""
        for event in _events(client.api.push(repository, tag, stream=True, decode=True)):
            if error := event.get("error"):
                raise BuildFailed(f"{repository}:{tag} was not pushed: {without_credentials(_one_line(error))}")
            digest = event.get("aux", {}).get("Digest", digest)
        if not digest:
            raise BuildFailed(f"{repository}:{tag}: the registry told no digest; push it again")
        row["digest"] = f"{repository}@{digest}"
        images.record(row["image"], row["digest"])
        tell(row["image"], 0, 0, row["digest"])
