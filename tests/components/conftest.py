"""What the component tests share: prepared data and a trained model made once, and an MLflow store quick to make."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.conftest import reviews
from tuneline.config import DataConfig, ModelConfig, TrainConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ["HF_HUB_OFFLINE"] = "1"  # the hub client reads it once, when it is imported
os.environ["OMP_NUM_THREADS"] = "1"  # so does torch; the models of these tests are too small for two threads
settings.register_profile("tuneline", deadline=None, database=None)
settings.load_profile("tuneline")

QUICK = TrainConfig(epochs=4, learning_rate=5e-3, batch_size=16)
"""Enough for the tiny checkpoint to tell good reviews from bad ones."""


def write_csv(path: Path, rows: list[Any], header: tuple[str, ...] = ("text", "label")) -> Path:
    """A CSV file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def model_config(checkpoint: Path, max_length: int = 16) -> ModelConfig:
    """The section that names a local checkpoint."""
    return ModelConfig(name=str(checkpoint), max_length=max_length)


def prepare_rows(
    folder: Path, checkpoint: Path, max_length: int = 16, seed: int = 0, **splits: list[tuple[str, str]]
) -> Path:
    """Prepared data of rows held in memory: `train`, and `validation` and `test` where they are given."""
    from tuneline.prepare.prepare import prepare

    uris = {name: str(write_csv(folder / f"{name}.csv", rows)) for name, rows in splits.items()}
    prepare(DataConfig(**uris, seed=seed), model_config(checkpoint, max_length), folder / "data")
    return folder / "data"


@pytest.fixture(scope="session")
def prepared(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PreparedData of 240 reviews; to be read only."""
    return prepare_rows(tmp_path_factory.mktemp("prepared"), tiny_checkpoint, train=reviews(240))


@pytest.fixture(scope="session")
def trained(prepared: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint fine-tuned on `prepared`; to be read only."""
    from tuneline.train.train import train

    out = tmp_path_factory.mktemp("trained") / "model"
    train(prepared, model_config(tiny_checkpoint), QUICK, out)
    return out


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database: making one takes seconds, copying it none."""
    from tuneline.tracking import client

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        client().search_experiments()
    return path


@pytest.fixture
def store(
    own_store: Path, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowClient]:
    """A client on the test's own store, whose artifacts lie in the test's folder too, and no signal handler left."""
    import signal

    from tuneline.tracking import client

    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield client()
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """moto's server on a free port of the loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
