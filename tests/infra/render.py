"""What `kubectl kustomize` makes of infra/, rendered once for all tests."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

INFRA = Path(__file__).parent.parent.parent / "infra"
FILES = sorted(INFRA.rglob("kustomization.yaml"))

Object = dict[str, Any]


def is_remote(path: Path) -> bool:
    """Whether a kustomization only names another project's manifests, which no test can fetch."""
    return all("://" in resource for resource in yaml.safe_load(path.read_text(encoding="utf-8"))["resources"])


REMOTE = [path for path in FILES if is_remote(path)]
LOCAL = [str(path.parent.relative_to(INFRA)) for path in FILES if path not in REMOTE]


def missing(message: str) -> NoReturn:
    """Skip a test for lack of a tool, and fail it where CI requires all of them."""
    if os.environ.get("TUNELINE_REQUIRE_TOOLS") == "1":
        pytest.fail(message)
    pytest.skip(message)


@functools.cache
def render_text(folder: str) -> str:
    """The manifests of a folder of infra/, as YAML."""
    if not shutil.which("kubectl"):
        missing("no kubectl on PATH; it must be 1.27 or newer, whose kustomize is 5")
    done = subprocess.run(
        ["kubectl", "kustomize", str(INFRA / folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"infra/{folder}: {done.stderr}"
    assert "deprecated" not in done.stderr, f"infra/{folder}: {done.stderr}"
    return done.stdout


@functools.cache
def render(folder: str) -> tuple[Object, ...]:
    """The manifests of a folder of infra/."""
    return tuple(yaml.safe_load_all(render_text(folder)))


def everything() -> Iterator[tuple[str, Object]]:
    """Each manifest of each folder, with the folder's name."""
    for folder in LOCAL:
        for manifest in render(folder):
            yield folder, manifest


def named(manifest: Object) -> str:
    """Kind/name."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def find(folder: str, kind: str, name: str) -> Object:
    """One manifest of a folder."""
    return next(manifest for manifest in render(folder) if named(manifest) == f"{kind}/{name}")


def pod_templates(manifest: Object) -> Iterator[Object]:
    """The pod templates in a manifest, of whatever kind: metadata and spec of each."""
    if manifest["kind"] == "InferenceService":
        predictor = manifest["spec"]["predictor"]
        yield {"metadata": {}, "spec": {**predictor, "containers": [{"name": "model", **predictor["model"]}]}}
    yield from _templates(manifest.get("spec"))


def _templates(tree: Any) -> Iterator[Object]:
    if isinstance(tree, list):
        for branch in tree:
            yield from _templates(branch)
    elif isinstance(tree, dict):
        if "containers" in tree.get("spec", {}):
            yield tree
        for branch in tree.values():
            yield from _templates(branch)


def containers(pod: Object) -> list[Object]:
    """All containers of a pod's spec."""
    return [*pod.get("initContainers", []), *pod["containers"]]
