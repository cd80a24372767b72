"""tuneline run: the pipeline on this machine, each step a process, through KFP's own local runner."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import tuneline
from tuneline import tracking
from tuneline.artifacts import PreparedData, read_json
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.prepare.prepare import pin
from tuneline.step import OWNER_PID
from tuneline_pipelines.state import State, close_abandoned, owner
from tuneline_pipelines.watch import Tell, Watcher

GRACE_SECONDS = 10


class StepFailed(Exception):  # noqa: N818 - it is a step's outcome, told with the place of its log
    """A step ended without its output; the message says where its log is."""


def run(recipe: Recipe, state: State, tell: Tell) -> dict[str, Any]:
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
    _refuse_rewritten(parameters, state)
    run_id, owned = _open_run(recipe, state, parameters)
    os.environ[tracking.PARENT] = run_id
    os.environ[OWNER_PID] = str(os.getpid())
    log = state.logs / f"{run_id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    status, metrics = "FAILED", {}
    try:
        with log.open("w", encoding="utf-8", buffering=1) as file, _signals():
            watcher = Watcher(file, tell)
            outputs = _run_pipeline(parameters, state, watcher)
        result = _result(recipe, run_id, outputs)
        total = time.monotonic() - started
        not_training = total - result["metrics"]["train_seconds"]
        result["seconds"] = watcher.seconds | {"total": round(total, 2), "not_training": round(not_training, 2)}
        metrics, status = result["metrics"], "FINISHED"
        return result
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracking.close_pipeline_run(run_id, status, owned, metrics)


def _refuse_rewritten(parameters: dict[str, Any], state: State) -> None:
    """KFP's subprocess runner puts its interpreter's path in place of the word python3 in every argument of a step."""
    for name, value in [("TUNELINE_HOME", str(state.home)), *parameters.items()]:
        if "python3" in str(value):
            key = name.replace("_", ".", 1) if name in parameters else name
            raise InputError(f"{key}: {value!r} holds 'python3', which KFP's local runner rewrites; use another name")


def _open_run(recipe: Recipe, state: State, parameters: dict[str, Any]) -> tuple[str, bool]:
    close_abandoned(state)
    text = yaml.safe_dump(recipe.model_dump(by_alias=True, mode="json"), sort_keys=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return tracking.open_pipeline_run(recipe.register_.name, state.artifacts, parameters, path, owner(os.getpid()))


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C stop a run alike: the step's processes end first, then the runs are closed."""

    def stop(_number: int, _frame: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        _end_children()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop), signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def _end_children() -> None:
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(children, timeout=GRACE_SECONDS)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _run_pipeline(parameters: dict[str, Any], state: State, watcher: Watcher) -> dict[str, Any]:
    from kfp import local

    from tuneline_pipelines.finetune import build

    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(state.pipeline_root), enable_caching=True,
        cache_root=str(state.home / "cache" / _code_hash()),
    )  # fmt: skip
    pipeline = build(pinned=bool(parameters["data_pin"]))
    try:
        stream: Any = watcher  # only a stream's write and flush are used
        with contextlib.redirect_stdout(stream):
            task = pipeline(**parameters)
    except (RuntimeError, OSError) as error:
        if watcher.error:
            raise InputError(watcher.error) from None
        why = watcher.exception or "its process ended early (killed, or out of memory)"
        raise StepFailed(f"{watcher.step or 'the pipeline'} failed: {why}; log: {watcher.log.name}") from error
    return task.outputs


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
        "evaluation": outputs["evaluation"].path,
        "report": outputs["report"].path,
    }
