"""tuneline run: the pipeline on this machine, each step a process, through KFP's own local runner."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import tuneline
from tuneline import tracking
from tuneline.artifacts import PreparedData, read_json
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.prepare.prepare import pin
from tuneline.progress import ERROR_MARK
from tuneline_pipelines.state import State

STEPS = ("prepare", "train", "evaluate", "register")
_PROGRESS = re.compile(r"^\[(\w+)\] (\d+)/(\d+) (.*)$")


class StepFailed(Exception):
    """A step ended without its output; the message says where its log is."""


@dataclass
class Watcher:
    """Reads what the steps print: progress to a callback, all of it to a log file.

    Attributes:
        log: the open log.
        tell: called with step, done, total and a note; total 0 for a plain line.
        error: the last bad-input line that a step printed.
    """

    log: Any
    tell: Callable[[str, int, int, str], None]
    error: str = ""
    _rest: str = ""

    def write(self, text: str) -> int:
        """Take text as a stream does."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)
        return len(text)

    def flush(self) -> None:
        """Write the log through."""
        self.log.flush()

    def _line(self, line: str) -> None:
        self.log.write(line + "\n")
        line = line.strip()  # kfp indents what a step prints
        if line.startswith(ERROR_MARK):
            self.error = line.removeprefix(ERROR_MARK)
        elif match := _PROGRESS.match(line):
            step, done, total, note = match.groups()
            self.tell(step, int(done), int(total), note)
        elif line.startswith("[") and "] " in line and line[1 : line.index("]")] in STEPS:
            step, _, note = line[1:].partition("] ")
            self.tell(step, 0, 0, note)


def run(recipe: Recipe, state: State, tell: Callable[[str, int, int, str], None]) -> dict[str, Any]:
    """Run the pipeline to its end.

    Args:
        recipe: what to do.
        state: where to keep it.
        tell: called with a step's progress.

    Returns:
        The result, as `tuneline run --json` prints it.

    Raises:
        InputError: bad input, found before the run or by a step.
        StepFailed: a step failed otherwise.
        KeyboardInterrupt: stopped from outside; the runs are ended as KILLED.
    """
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    started = time.monotonic()
    parameters = recipe.flat() | {"data_pin": pin(recipe.data, recipe.model)}
    run_id, owned = _open_run(recipe, state, parameters)
    os.environ[tracking.PARENT] = run_id
    log = state.logs / f"{run_id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    status, metrics = "FAILED", {}
    try:
        with log.open("w", encoding="utf-8") as file, _signals():
            watcher = Watcher(file, tell)
            outputs, seconds = _run_pipeline(parameters, state, watcher, log)
        result = _result(recipe, run_id, outputs)
        result["seconds"] = seconds | {"total": round(time.monotonic() - started, 2)}
        metrics, status = result["metrics"], "FINISHED"
        return result
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracking.close_pipeline_run(run_id, status, owned, metrics)


def _open_run(recipe: Recipe, state: State, parameters: dict[str, Any]) -> tuple[str, bool]:
    path = state.home / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(by_alias=True, mode="json"), sort_keys=False), encoding="utf-8")
    return tracking.open_pipeline_run(recipe.register_.name, state.artifacts, parameters, path)


@contextlib.contextmanager
def _signals():
    """SIGTERM stops a run as Ctrl-C does: the step's process ends, and the runs are closed."""

    def stop(_number: int, _frame: Any) -> None:
        import psutil

        for child in psutil.Process().children(recursive=True):
            child.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop), signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def _run_pipeline(
    parameters: dict[str, Any], state: State, watcher: Watcher, log: Path
) -> tuple[dict[str, Any], dict[str, float]]:
    from kfp import local

    from tuneline_pipelines.finetune import build

    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(state.pipeline_root), enable_caching=True,
        cache_root=str(state.home / "cache" / _code_hash()),
    )  # fmt: skip
    clock = _StepClock(watcher.tell)
    watcher.tell = clock.tell
    pipeline = build(pinned=bool(parameters["data_pin"]))
    try:
        with contextlib.redirect_stdout(watcher):  # type: ignore[type-var]
            task = pipeline(**parameters)
    except (RuntimeError, OSError) as error:
        if watcher.error:
            raise InputError(watcher.error) from None
        raise StepFailed(f"a step failed ({error}); its log: {log}") from None
    return task.outputs, clock.seconds()


class _StepClock:
    """Seconds of each step, from the first word of one to the first word of the next."""

    def __init__(self, tell: Callable[[str, int, int, str], None]) -> None:
        self._tell = tell
        self._marks: list[tuple[str, float]] = [("start", time.monotonic())]

    def tell(self, step: str, done: int, total: int, note: str) -> None:
        if step != self._marks[-1][0]:
            self._marks.append((step, time.monotonic()))
        self._tell(step, done, total, note)

    def seconds(self) -> dict[str, float]:
        ends = [*[at for _, at in self._marks[1:]], time.monotonic()]
        return {step: round(end - at, 2) for (step, at), end in zip(self._marks, ends, strict=True)}


def _code_hash() -> str:
    """A hash of the installed package: KFP's local cache keys on arguments, not on code."""
    root = Path(tuneline.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _result(recipe: Recipe, run_id: str, outputs: dict[str, Any]) -> dict[str, Any]:
    version = read_json(Path(outputs["version"].path))
    manifest = PreparedData.load(Path(outputs["data"].path))
    return {
        "status": "succeeded",
        "run_id": run_id,
        "experiment": recipe.register_.name,
        "metrics": outputs["metrics"].metadata | outputs["training"].metadata,
        "model": {"name": version["name"], "version": version["version"], "aliases": version["aliases"]},
        "gate": version["verdicts"],
        "data": {"sha256": manifest.sha256["all"], "rows": manifest.rows},
        "report": outputs["report"].path,
    }
