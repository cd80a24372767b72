"""The whole pipeline against a real MLflow server, which checks more than a database does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import free_port, reviews
from tests.e2e.conftest import Project, wait_until_healthy

pytestmark = pytest.mark.slow


@pytest.fixture
def server(project: Project) -> Iterator[str]:
    """An MLflow server that proxies artifacts, as the one of a team does."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", "--backend-store-uri",
        f"sqlite:///{project.folder / 'server.db'}", "--artifacts-destination", str(project.folder / "artifacts"),
    ]  # fmt: skip
    environment = project.environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_a_server_takes_runs_model_and_aliases_and_gives_the_model_back(
    project: Project, server: str, tiny_checkpoint: Path
) -> None:
    rows = "\n".join(f"{text},{label}" for text, label in reviews(200))
    (project.folder / "reviews.csv").write_text(f"text,label\n{rows}\n")
    done = project.tuneline(
        "run", "text", "data.train=reviews.csv", f"model.name={tiny_checkpoint}", "model.max_length=32",
        "train.epochs=1", "register.rules.beats_baseline=false", "--json", MLFLOW_TRACKING_URI=server,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["aliases"] == ["challenger", "champion"]
    predicted = project.tuneline("predict", "text-classifier@champion", "reviews.csv", MLFLOW_TRACKING_URI=server)
    assert predicted.returncode == 0, predicted.stderr
    assert len(predicted.stdout.splitlines()) == 201
