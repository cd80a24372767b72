"""Which image each step runs in: tags that name the content, and the digests that `tuneline build --push` recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tuneline
from tuneline.artifacts import read_json, write_json
from tuneline.errors import InputError
from tuneline_pipelines.state import home

TARGETS = ("register", "prepare", "tracking", "train", "serving", "evaluate", "sweep")
"""In the Dockerfile's order: the classic builder goes through every stage above its target."""
_TORCH = ("train", "serving", "evaluate", "sweep")
BASE = "python:3.11-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba"
_INPUTS = ("docker", "components", "constraints.txt", "pyproject.toml", "LICENSE")
_PIP = "docker/pip/"
_CODE = "code"
"""The key of images.json that tells, by target, the code_hash that a pushed image was built from."""


def source_tree() -> Path:
    """The checkout that this package runs from.

    Raises:
        InputError: it was installed without one.
    """
    root = Path(tuneline.__file__).parents[2]
    if not (root / "docker" / "Dockerfile").is_file():
        raise InputError(
            f"{root}: no docker/Dockerfile there; images are built from a checkout of tuneline (pip install -e .)"
        )
    return root


def inputs(root: Path) -> dict[str, bytes]:
    """What goes into the images, by path; without pip's settings, which stay in the build."""
    paths: Iterable[Path] = (path for name in _INPUTS for path in _files(root / name))
    named = {path.relative_to(root).as_posix(): path for path in paths}
    return {name: named[name].read_bytes() for name in sorted(named) if not name.startswith(_PIP)}


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    return [found for found in path.rglob("*") if "__pycache__" not in found.parts and found.is_file()]


def code_hash() -> str:
    """A hash of what goes into the images, base and flavour apart.

    Raises:
        InputError: there is no checkout to tell from.
    """
    digest = hashlib.sha256()
    for name, content in inputs(source_tree()).items():
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def name_of(target: str, base: str = BASE, cuda: bool = False) -> str:
    """NAME:TAG of an image; the tag changes with anything that goes into it.

    Args:
        target: one of TARGETS.
        base: the image that it starts from.
        cuda: whether torch is the build for CUDA; only those that hold torch have it.

    Raises:
        InputError: there is no checkout to tell from.
    """
    flavour = "-cuda" if cuda and target in _TORCH else ""
    content = hashlib.sha256(f"{base}\n{flavour}\n{code_hash()}".encode()).hexdigest()[:12]
    return f"tuneline-{target}:{tuneline.__version__}{flavour}-{content}"


def known() -> dict[str, str]:
    """Target -> NAME@sha256:..., of the images that were pushed from this state folder.

    Raises:
        InputError: images.json is not what record wrote.
    """
    return {target: found for target, found in _recorded().items() if target != _CODE}


def _recorded() -> dict[str, Any]:
    path = home() / "images.json"
    if not path.exists():
        return {}
    try:
        found = read_json(path)
        if isinstance(found[_CODE], dict) and all("@sha256:" in found[target] for target in found.keys() - {_CODE}):
            return found
    except (ValueError, AttributeError, KeyError, TypeError):
        pass
    raise InputError(f"{path}: not a JSON object of image digests; remove it, and run tuneline build --push again")


def record(target: str, reference: str) -> None:
    """Keep a pushed image's NAME@sha256:... for `known`, and what it was built from for `outdated`."""
    home().mkdir(parents=True, exist_ok=True)
    before = _recorded()
    write_json(
        home() / "images.json", before | {target: reference, _CODE: before.get(_CODE, {}) | {target: code_hash()}}
    )


def outdated(named: Iterable[str]) -> list[str]:
    """Which of the named images were pushed from other code than this checkout's; none where there is no checkout."""
    try:
        code = code_hash()
    except InputError:
        return []
    digests = {image.rpartition("@")[2] for image in named}
    built_from = _recorded().get(_CODE, {})
    return [
        target
        for target, reference in known().items()
        if reference.rpartition("@")[2] in digests and built_from.get(target) != code
    ]


def configure(images: dict[str, str], more: Callable[[str, Any], None] | None = None) -> Callable[[str, Any], None]:
    """What gives each task its image, for finetune.build; `more` comes after and may name another."""

    def put(name: str, task: Any) -> None:
        if name in images:
            task.set_container_image(images[name])
        if more:
            more(name, task)

    return put
