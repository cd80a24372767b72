"""Where this machine keeps runs, models and prepared data: $TUNELINE_HOME, else .tuneline in the current directory."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class State:
    """The state folder.

    Attributes:
        home: the folder.
        tracking_uri: MLflow's store: MLFLOW_TRACKING_URI, else an SQLite file in the folder.
        artifacts: where a new experiment keeps its files; None leaves it to the server.
    """

    home: Path
    tracking_uri: str
    artifacts: str | None

    @property
    def pipeline_root(self) -> Path:
        """Where KFP's runner keeps the steps' outputs."""
        return self.home / "pipeline"

    @property
    def logs(self) -> Path:
        """A log a run."""
        return self.home / "logs"


def home() -> Path:
    """The state folder, whether it is there or not."""
    return Path(os.environ.get("TUNELINE_HOME", ".tuneline")).absolute()


def open_state() -> State:
    """The state folder, made where there is none; sets MLFLOW_TRACKING_URI for this process and its steps."""
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    artifacts = None if uri else (folder / "artifacts").as_uri()
    uri = uri or f"sqlite:///{folder / 'mlflow.db'}"
    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    return State(folder, uri, artifacts)


def owner() -> str:
    """This process as host/pid@start; the start, in seconds, tells it from a later one with the same number."""
    import psutil

    return f"{socket.gethostname()}/{os.getpid()}@{psutil.Process().create_time():.0f}"


def lives(known: str) -> bool:
    """Whether an owner still runs; one of another host cannot be seen from here, and is taken to live.

    Two starts within a minute of each other are one: the clock that they are told by may have been set in between.
    """
    import psutil

    host, _, process = known.rpartition("/")
    pid, _, start = process.partition("@")
    if host != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(start)) < 60
    except psutil.NoSuchProcess:
        return False


def close_abandoned(state: State) -> None:
    """End the runs of commands that were killed outright, in a store that only this machine uses."""
    from tuneline.tracking import close_abandoned

    if state.artifacts:
        close_abandoned(lives)
