"""Where this machine keeps runs, models and prepared data: $TUNELINE_HOME, else .tuneline in the current directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from tuneline.errors import InputError, without_credentials


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
    def checkpoints(self) -> Path:
        """Where trainings that were interrupted are kept."""
        return self.home / "checkpoints"

    @property
    def logs(self) -> Path:
        """A log a run."""
        return self.home / "logs"


def home() -> Path:
    """The state folder, whether it is there or not."""
    return Path(os.environ.get("TUNELINE_HOME") or ".tuneline").absolute()


def open_state() -> State:
    """The state folder, made where there is none; sets MLFLOW_TRACKING_URI for this process and its steps.

    Raises:
        InputError: the folder cannot be made, or the store in it is no SQLite database.
        ServiceError: MLFLOW_TRACKING_URI names a server that does not answer.
    """
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"TUNELINE_HOME: {folder}: cannot be made ({error.strerror}); name a folder") from None
    if not (ignored := folder / ".gitignore").exists() and not Path.cwd().is_relative_to(
        folder
    ):  # else it is a project's
        ignored.write_text("*\n", encoding="utf-8")
    from tuneline.tracking import check_server, with_driver

    uri = with_driver(os.environ.get("MLFLOW_TRACKING_URI", ""))
    artifacts = None if uri else (folder / "artifacts").as_uri()
    uri = uri or _local_store(folder / "mlflow.db")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    check_server()
    return State(folder, uri, artifacts)


def _local_store(file: Path) -> str:
    """The URI of a store in a file.

    Raises:
        InputError: the file is there, and no SQLite database that can be opened.
    """
    if sign := next((sign for sign in "?%" if sign in str(file)), None):  # they mean something in a URI
        raise InputError(f"TUNELINE_HOME: {file.parent}: {sign!r} found in the path; name a folder without it")
    if file.exists():
        try:
            # To be written too: what a killed command left half done has to be rolled back before it can be read.
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            raise InputError(
                f"{file}: no SQLite database that can be read ({error}); bring back a copy, or move it away"
            ) from None
    return f"sqlite:///{file}"


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


def note_open(state: State) -> Path:
    """Note, for close_abandoned, that this process is about to open runs on a server; the note is to be removed after.

    The note is made before the first request, so that not even a run is missed whose making got no answer.
    """
    known = owner()
    note = _notes(state) / hashlib.sha256(known.encode()).hexdigest()[:16]
    if state.artifacts is None:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(known, encoding="utf-8")
    return note


def _notes(state: State) -> Path:
    return state.home / "open" / hashlib.sha256(without_credentials(state.tracking_uri).encode()).hexdigest()[:16]


def close_abandoned(state: State) -> None:
    """End the runs of commands that were killed outright, or that could not reach their server to the end.

    A store that only this machine uses is searched for them. On a server, which other machines use, whose processes
    cannot be seen from here, only those count that this state folder has a note of.
    """
    from tuneline.tracking import close_abandoned

    if state.artifacts:
        close_abandoned(lives)
        return
    dead = dict[Path, str]()
    for note in _notes(state).glob("*"):
        with contextlib.suppress(FileNotFoundError):  # its command ended this moment
            if not lives(known := note.read_text(encoding="utf-8")):
                dead[note] = known
    if dead:
        close_abandoned(lambda known: known not in dead.values())
    for note in dead:
        note.unlink(missing_ok=True)
