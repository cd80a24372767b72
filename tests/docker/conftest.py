"""A real engine, and the images built on it; tests skip without one, or fail where TUNELINE_REQUIRE_DOCKER=1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import TUNELINE, Project, empty_store, project

__all__ = ["empty_store", "project"]
PLANTED = "planted-secret"
SETTINGS = {name: os.environ[name] for name in ("TUNELINE_BASE", "TUNELINE_TORCH_INDEX") if name in os.environ}
"""What `tuneline build` is told of this machine, for a Project's commands, which see no other TUNELINE_ variable."""


@pytest.fixture(scope="session")
def engine() -> Any:
    """A client of the engine."""
    docker = pytest.importorskip("docker")
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except docker.errors.DockerException as error:
        message = f"no Docker engine ({error}); tests/docker/engine.sh start makes one on Debian"
        if os.environ.get("TUNELINE_REQUIRE_DOCKER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return client


def _planted() -> str:
    """pip's extra indexes, and PyPI once more with credentials that it does not ask for."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.extra-index-url"]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{known} https://planted-user:{PLANTED}@pypi.org/simple".strip()


@pytest.fixture(scope="session")
def built(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every image, as `tuneline build --json` tells of it; pip's settings hold a secret while they are built."""
    del engine
    folder = tmp_path_factory.mktemp("build")
    environment = Project(folder).environment | {"PIP_EXTRA_INDEX_URL": _planted(), **SETTINGS}
    done = subprocess.run(
        [TUNELINE, "build", "--json"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    logs = "\n".join(log.read_text()[-3000:] for log in sorted(Path(folder).glob(".tuneline/logs/*.log")))
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{logs}"
    assert PLANTED not in done.stderr + logs
    return {row["image"]: row for row in json.loads(done.stdout)["images"]}
