"""`tuneline serve` beside `mlflow models serve` on the same registered model: texts a second and latency.

Run: python -m tests.benchmarks.serve_speed --data clinc150 --seconds 6 --rounds 3
     python -m tests.benchmarks.serve_speed --data imdb --tokens 256
     python -m tests.benchmarks.serve_speed --moves 200

All servers are up at once and are asked in turn, so that a busy machine slows all of them alike. A client keeps one
connection, asks for one text of the test split by MLflow's scoring protocol, and asks again when it has the answer. The
model's head is not trained: what it answers does not matter here. CPU time is the server's, without the clients'.
--moves: moves of the alias between two versions under load, and how many requests failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import psutil
from infra.local.stack import free_port

from tests.benchmarks.rounds import CHECKPOINT, ROOT, data_folder, draw

CLIENTS = (1, 8, 64)
DATA = ("clinc150", "imdb")
CONTENDERS = {
    "mlflow": ["mlflow", "models", "serve", "-m", "models:/bench@champion", "--env-manager", "local"],
    "mlflow, 2 workers": [
        "mlflow", "models", "serve", "-m", "models:/bench@champion", "--env-manager", "local", "--workers", "2",
    ],
    "tuneline": ["tuneline.serve", "bench@champion", "--poll-seconds", "0.1"],
    "tuneline, bf16": ["tuneline.serve", "bench@champion", "--precision", "bf16"],
}  # fmt: skip


class Client(asyncio.Protocol):
    """Asks over one connection, without a pause, until `over`; notes how long each answer took."""

    def __init__(self, bodies: list[bytes], place: int, over: Callable[[], bool]) -> None:
        self.bodies, self.is_over = bodies, over
        self.places = count(place * 7919)
        self.taken: list[float] = []
        self.failed = 0
        self.buffer = b""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        if self.is_over():
            self.transport.close()
            return
        self.started = time.perf_counter()
        self.transport.write(self.bodies[next(self.places) % len(self.bodies)])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(rest) < length:
            return
        self.buffer = b""
        self.taken.append(time.perf_counter() - self.started)
        self.failed += not head.startswith(b"HTTP/1.1 200")
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += not self.is_over()  # the server has closed it
        self.closed.set_result(None)


async def _load(port: int, bodies: list[bytes], clients: int, over: Callable[[], bool]) -> tuple[list[float], int]:
    """Seconds that each answer took, and the requests that failed."""
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda place=place: Client(bodies, place, over), "127.0.0.1", port))[1]
        for place in range(clients)
    ]
    await asyncio.gather(*(client.closed for client in made))
    return [took for client in made for took in client.taken], sum(client.failed for client in made)


def _after(seconds: float) -> Callable[[], bool]:
    until = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= until


def requests_of(data: str, texts: int) -> list[bytes]:
    """Whole HTTP requests, one a text."""
    made = []
    for text in draw(data, "test", texts, 0)[0]:
        body = json.dumps({"inputs": [text]}).encode()
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        made.append(head.encode() + b"\r\n\r\n" + body)
    return made


def build(data: str, tokens: int, folder: Path) -> None:
    """A model folder as train writes it: the checkpoint's encoder under a head for the data's labels, not trained."""
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoModelForSequenceClassification

    from tuneline.artifacts import Decision
    from tuneline.checkpoint import resolve

    labels = sorted(
        pq.read_table(data_folder() / data / "train.parquet", columns=["label"])["label"].unique().to_pylist()
    )
    torch.manual_seed(0)
    network: Any = AutoModelForSequenceClassification.from_pretrained(resolve(CHECKPOINT), num_labels=len(labels))
    network.save_pretrained(folder)
    shutil.copyfile(resolve(CHECKPOINT) / "tokenizer.json", folder / "tokenizer.json")
    Decision([str(label) for label in labels], tokens, "head", CHECKPOINT, "").save(folder)


def register(data: str, tokens: int, folder: Path) -> None:
    """Two versions of the model `bench` in a store of its own, the first of which is champion."""
    from tuneline import registry
    from tuneline.artifacts import read_json, write_json
    from tuneline.tracking import StepRun, client

    build(data, tokens, folder / "model")
    shutil.copytree(folder / "model", folder / "second")
    decision = read_json(folder / "second" / "tuneline.json")
    write_json(folder / "second" / "tuneline.json", decision | {"data_sha256": "of the second version"})
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    api = client()
    run = api.create_run(api.create_experiment("bench", (folder / "artifacts").as_uri())).info.run_id
    for name in ("model", "second"):
        registry.add_version(StepRun(api, run), "bench", folder / name, {})
    api.set_registered_model_alias("bench", "champion", "1")


@contextmanager
def server(name: str) -> Iterator[tuple[int, psutil.Process]]:
    """A contender that is up: its port and process."""
    port = free_port()
    command = [sys.executable, "-m", *CONTENDERS[name], "--port", str(port)]
    paths = os.pathsep.join(
        [*(str(ROOT / one) for one in ("components", "pipelines")), os.environ.get("PYTHONPATH", "")]
    )
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # mlflow calls uvicorn
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        process = psutil.Process(started.pid)
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=10).read()
                break
            except OSError:
                time.sleep(0.5)
        yield port, process
    finally:
        for one in [*process.children(recursive=True), process]:
            one.terminate()
        started.wait(60)


def cpu_seconds(process: psutil.Process) -> float:
    """Of the process and all that it has started."""
    times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
    return sum(one.user + one.system for one in times)


def measure(options: argparse.Namespace, bodies: list[bytes]) -> dict[tuple[str, int], list[dict[str, float]]]:
    """The rounds of each contender and number of clients."""
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    names = [name for name in CONTENDERS if name in options.contenders]
    with _all([lambda name=name: server(name) for name in names]) as running:
        for port, _ in running:
            asyncio.run(_load(port, bodies, 4, _after(3)))  # warm
        for number in range(options.rounds):
            for clients in CLIENTS:
                for name, (port, process) in zip(names, running, strict=True):
                    before, started = cpu_seconds(process), time.perf_counter()
                    taken, failed = asyncio.run(_load(port, bodies, clients, _after(options.seconds)))
                    wall, cpu = time.perf_counter() - started, cpu_seconds(process) - before
                    facts = {
                        "texts_per_second": len(taken) / wall,
                        "cpu_ms": 1000 * cpu / len(taken),
                        "p50": 1000 * float(np.quantile(taken, 0.5)),
                        "p99": 1000 * float(np.quantile(taken, 0.99)),
                        "failed": failed,
                    }
                    found.setdefault((name, clients), []).append(facts)
                    print(f"round {number + 1}: {name}, {clients} clients: {facts}", file=sys.stderr, flush=True)
    return found


@contextmanager
def _all(managers: list[Callable[[], Any]]) -> Iterator[list[Any]]:
    if not managers:
        yield []
        return
    with managers[0]() as first, _all(managers[1:]) as others:
        yield [first, *others]


def table(found: dict[tuple[str, int], list[dict[str, float]]]) -> str:
    """The medians of the rounds (least to most), and the ratio over mlflow within each round."""
    lines = ["| clients | server | texts/s | over mlflow | p50 ms | p99 ms | CPU ms a text | failed |"]
    lines.append("|" + "---|" * 8)
    for (name, clients), rounds in sorted(found.items(), key=lambda item: item[0][1]):
        pairs = zip(rounds, found.get(("mlflow", clients), rounds), strict=True)
        ratios = [one["texts_per_second"] / other["texts_per_second"] for one, other in pairs]
        cells = [
            _spread([one["texts_per_second"] for one in rounds], ".0f"), _spread(ratios, ".2f"),
            *(_spread([one[key] for one in rounds], ".1f") for key in ("p50", "p99", "cpu_ms")),
            str(sum(int(one["failed"]) for one in rounds)),
        ]  # fmt: skip
        lines.append(f"| {clients} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], shape: str) -> str:
    return f"{statistics.median(values):{shape}} ({min(values):{shape}} to {max(values):{shape}})"


async def _moves(port: int, bodies: list[bytes], moves: int) -> str:
    """Move the alias to and fro, each time until the service has followed, while 16 clients ask."""
    from tuneline.tracking import client

    api, over = client(), asyncio.Event()
    load = asyncio.create_task(_load(port, bodies, 16, over.is_set))
    await asyncio.sleep(1)

    def move(number: int) -> float:
        version, started = "21"[number % 2], time.perf_counter()
        api.set_registered_model_alias("bench", "champion", version)
        while json.load(urlopen(f"http://127.0.0.1:{port}/ready"))["version"] != version:
            time.sleep(0.05)
        return time.perf_counter() - started

    waits = [await asyncio.to_thread(move, number) for number in range(moves)]
    over.set()
    taken, failed = await load
    return f"{moves} moves, {statistics.median(waits):.2f} s each; {len(taken)} requests, {failed} failed"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="clinc150", choices=DATA)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--moves", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        register(options.data, options.tokens, Path(folder))
        bodies = requests_of(options.data, options.texts)
        if options.moves:
            with server("tuneline") as (port, _):
                print(asyncio.run(_moves(port, bodies, options.moves)))
            return
        found = measure(options, bodies)
    print(f"{options.data}, {options.tokens} tokens, {options.seconds:g} s a cell, {options.rounds} rounds\n")
    print(table(found))


if __name__ == "__main__":
    main()
