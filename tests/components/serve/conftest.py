"""The service as its users meet it: a process on the loopback, with a registry and two versions that answer apart."""

from __future__ import annotations

import http.client
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from tuneline import registry
from tuneline.artifacts import read_json, write_json
from tuneline.tracking import StepRun

ROOT = Path(__file__).parents[3]


@dataclass
class House:
    """A registry of its own: versions 1 and 2 of `reviews`, whose labels differ; 1 is champion."""

    uri: str
    api: MlflowClient
    folders: dict[str, Path]

    def add(self, folder: Path, name: str = "reviews") -> str:
        """Register a folder; its version."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", self.uri)
            run = self.api.create_run(self.api.get_experiment_by_name("served").experiment_id).info.run_id
            return registry.add_version(StepRun(self.api, run), name, folder, {})

    def point(self, version: str, name: str = "reviews") -> None:
        """Move the champion, as anybody can."""
        self.api.set_registered_model_alias(name, "champion", version)


@dataclass
class Running:
    """A service in a process; `lines` are those that it has printed."""

    process: subprocess.Popen[str]
    port: int = 0
    lines: list[str] = field(default_factory=list)
    told: queue.Queue[str] = field(default_factory=queue.Queue)

    def wait_for(self, words: str, seconds: float = 600) -> str:
        """The first line with these words that was not waited for yet."""
        until = time.monotonic() + seconds
        while True:
            line = self.told.get(timeout=max(0.01, until - time.monotonic()))
            if words in line:
                return line

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body, which is parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            raw = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
            given = {"Content-Type": "application/json"} if headers is None else headers
            connection.request(method, path, raw, given)
            answer = connection.getresponse()
            text, kind = answer.read(), answer.getheader("Content-Type") or ""
            told = json.loads(text) if kind.startswith("application/json") else text.decode()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, told
        finally:
            connection.close()

    def predict(self, texts: list[str]) -> tuple[str, list[dict[str, Any]]]:
        """The version that answered, and its answers."""
        status, _, told = self.ask("POST", "/predict", {"texts": texts})
        assert status == 200, told
        return told["version"], told["predictions"]

    def end(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def _listen(running: Running, until: str) -> None:
    assert running.process.stdout
    with running.process.stdout as lines:
        for line in lines:
            running.lines.append(line)
            running.told.put(line)
            if until and until in line:
                return


@pytest.fixture(scope="module")
def house(trained: Path, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    """The registry."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copyfile(empty_database, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    api = MlflowClient(tracking_uri=uri)
    api.create_experiment("served", (folder / "artifacts").as_uri())
    made = House(uri, api, {"1": lively(trained, folder / "one", 0), "2": lively(trained, folder / "two", 1)})
    assert [made.add(made.folders[number]) for number in "12"] == ["1", "2"]
    made.point("1")
    return made


def lively(trained: Path, folder: Path, seed: int) -> Path:
    """The trained model with random weights, so that every text gets an answer of its own, and labels of its own."""
    shutil.copytree(trained, folder)
    torch.manual_seed(seed)
    weights = load_file(folder / "model.safetensors")
    drawn = {name: torch.randn_like(weight) * 0.3 if weight.ndim == 2 else weight for name, weight in weights.items()}
    save_file(drawn, folder / "model.safetensors", {"format": "pt"})
    labels = [f"no{seed}", f"yes{seed}"]
    write_json(folder / "tuneline.json", read_json(folder / "tuneline.json") | {"labels": labels})
    return folder


@pytest.fixture(scope="module")
def start(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Starts a service on the registry: its reference and options; its log is read until a line has these words."""
    started: list[Running] = []

    def begin(*arguments: str, wait: bool = True, until: str = "") -> Running:
        paths = os.pathsep.join(str(ROOT / name) for name in ("components", "pipelines"))
        process = subprocess.Popen(
            [sys.executable, "-m", "tuneline.serve", *arguments, "--port", "0"],
            env=os.environ | {
                "MLFLOW_TRACKING_URI": house.uri, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"
            },
            cwd=tmp_path_factory.mktemp("cwd"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        running = Running(process)
        started.append(running)
        threading.Thread(target=_listen, args=(running, until), daemon=True).start()
        if wait:
            running.port = int(running.wait_for("answers at").split("127.0.0.1:")[1].split()[0])
        return running

    yield begin
    for running in started:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def service(start: Callable[..., Running]) -> Running:
    """One that follows the champion, with small limits; to be asked, and left as it is."""
    return start("reviews@champion", "--max-texts", "50", "--max-bytes", "20000", "--poll-seconds", "0.1")
