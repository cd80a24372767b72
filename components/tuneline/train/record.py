"""What several training processes tell the step that started them: a file of JSON lines, written by one, read by one.

The first line names the attempt; then a line an optimizer step and an epoch, and at the end one with the result and
the SHA-256 of each file of the model. The step hands the numbers on to MLflow, so that the processes, which may run on
other machines, need no access to it. In return it keeps a lease alive: training that nobody waits for ends.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

from tuneline.artifacts import sha256_file, write_json
from tuneline.config import ModelConfig, TrainConfig
from tuneline.errors import InputError, ServiceError
from tuneline.progress import ERROR_MARK, say

Numbers = dict[str, float]
LEASE_SECONDS = 1800.0
"""Longer than a step that is started again takes to be back."""


class Recorder(Protocol):
    """What training tells its numbers to: tracking.StepRun, a FileRecorder, or nothing."""

    def metrics(self, values: Numbers, step: int = 0) -> None:
        """Record values at a step."""


class JobFailed(ServiceError):  # noqa: N818 - an outcome, told in one line
    """The processes that were started ended without a model."""


class FileRecorder:
    """Writes the file, from its beginning.

    Args:
        path: the file; what an earlier attempt wrote is lost.
        lease: the file that the step renews while it waits; None where the step ends with its processes anyway.
        lease_seconds: how long it holds.
    """

    def __init__(self, path: Path, lease: Path | None = None, lease_seconds: float = LEASE_SECONDS) -> None:
        self._stream = path.open("w", encoding="utf-8", buffering=1)
        self._write({"attempt": uuid.uuid4().hex})
        self._lease, self._lease_seconds = lease, lease_seconds
        self._renewed, self._content = time.monotonic(), ""

    def metrics(self, values: Numbers, step: int = 0) -> None:
        """Write values at a step.

        Raises:
            InputError: the step that started this training has gone.
        """
        self._write({"step": step, "metrics": values})
        if self._lease:
            self._require(self._lease)

    def _require(self, lease: Path) -> None:
        """By what it holds, not by its time: the clocks of two machines differ."""
        content = lease.read_text(encoding="utf-8") if lease.is_file() else ""
        if content != self._content:
            self._renewed, self._content = time.monotonic(), content
        elif time.monotonic() - self._renewed > self._lease_seconds:
            raise InputError(f"the step that started this training has not been seen for {self._lease_seconds:.0f} s")

    def result(self, values: Numbers, model: Path) -> None:
        """Write the result and what the model's folder holds, and close the file."""
        files = {path.name: sha256_file(path) for path in sorted(model.iterdir())}
        self._write({"result": values, "files": files})
        self._stream.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._stream.write(json.dumps(line) + "\n")


class Follower:
    """Reads the file while it grows and hands its numbers on, each once, also where training began anew.

    Args:
        path: the file, which need not be there yet.
        recorder: what gets the numbers.
    """

    def __init__(self, path: Path, recorder: Recorder | None = None) -> None:
        self._path, self._recorder = path, recorder
        self._attempt, self._offset = b"", 0
        self._told: set[tuple[Any, ...]] = set()
        self.result: dict[str, Any] | None = None

    def read(self) -> None:
        """Take the lines that have come since the last call."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as stream:
            first = stream.readline()
            if first != self._attempt:
                self._attempt, self._offset, self.result = first, len(first), None
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):  # still being written
                    break
                self._offset += len(line)
                self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        if "result" in line:
            self.result = line
            return
        values, step = line["metrics"], line["step"]
        if (key := (step, *sorted(values))) not in self._told and self._recorder:
            self._recorder.metrics(values, step)
        self._told.add(key)

    def finish(self, model: Path) -> Numbers:
        """Read to the end and compare the model's folder with what was written of it.

        Raises:
            JobFailed: no result, or other files than those written.
        """
        self.read()
        if self.result is None:
            raise JobFailed(f"{self._path}: training ended without a result; look at its log")
        found = {path.name: sha256_file(path) for path in model.iterdir()} if model.is_dir() else {}
        if found != self.result["files"]:
            wrong = sorted(name for name, _ in set(found.items()) ^ set(self.result["files"].items()))
            raise JobFailed(f"{model}: {wrong[0]} is missing, foreign or not as it was written; run the step again")
        return self.result["result"]


class Listener:
    """Shows what the processes print; keeps back the line that tells of bad input, to be told once at the end."""

    def __init__(self) -> None:
        self.error = ""

    def line(self, text: str) -> None:
        """Take a line."""
        if text.startswith(ERROR_MARK):
            self.error = self.error or text.removeprefix(ERROR_MARK)
        elif text.strip():
            say(text)


def write_config(path: Path, model: ModelConfig, settings: TrainConfig, record: Path, lease: Path | None) -> None:
    """Write CONFIG.json for `python -m tuneline.train`."""
    sections = {"model": model.model_dump(mode="json"), "train": settings.model_dump(mode="json")}
    write_json(path, sections | {"record": str(record)} | ({"lease": str(lease)} if lease else {}))
