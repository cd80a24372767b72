"""Digests, against a real registry on the loopback interface (Debian's docker-registry)."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import free_port
from tests.docker.conftest import SETTINGS
from tests.e2e.conftest import Project
from tuneline_pipelines.compile import check

BINARY = shutil.which("docker-registry")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no docker-registry; apt install docker-registry"),
]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of an empty registry."""
    address = f"127.0.0.1:{free_port()}"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    config = tmp_path / "registry.yml"
    config.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    process = subprocess.Popen(
        [str(BINARY), "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=2)
                break
            except OSError:
                assert process.poll() is None, "the registry ended"
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_what_is_pushed_is_compiled_and_pulled_by_its_digest(
    engine: Any, built: dict[str, dict[str, Any]], project: Project, registry: str
) -> None:
    targets = ["--target", "register", "--target", "prepare"]
    done = project.tuneline("build", *targets, "--push", f"{registry}/ml", "--json", **SETTINGS)
    assert done.returncode == 0, done.stderr
    pushed = {row["image"]: row["digest"] for row in json.loads(done.stdout)["images"]}
    recorded = json.loads((project.folder / ".tuneline/images.json").read_text())
    assert {image: recorded[image] for image in pushed} == pushed
    assert pushed["register"].startswith(f"{registry}/ml/tuneline-register@sha256:")

    compiled = project.tuneline("compile", "quickstart", "-o", "pipeline.yaml", **SETTINGS)
    assert compiled.returncode == 0, compiled.stderr
    assert "2 images are named by a tag" in compiled.stderr
    assert set(pushed.values()) <= set(check(project.folder / "pipeline.yaml"))

    tagged = f"{registry}/ml/{built['register']['reference']}"
    engine.images.remove(tagged)
    assert engine.images.pull(pushed["register"]).id == engine.images.get(built["register"]["reference"]).id


def test_a_registry_that_is_not_there_is_one_line(built: dict[str, dict[str, Any]], project: Project) -> None:
    del built
    done = project.tuneline("build", "--target", "register", "--push", f"127.0.0.1:{free_port()}", **SETTINGS)
    assert done.returncode == 1
    assert "was not pushed" in done.stderr
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.folder / ".tuneline/images.json").exists()
