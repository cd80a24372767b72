"""tuneline run: the pipeline on this machine through KFP's own local runners, each step a process or a container."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import tuneline
from tuneline import stopping, tracking
from tuneline.artifacts import PreparedData, read_json, source_hash
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.prepare.prepare import pin
from tuneline.step import OWNER_PID
from tuneline.storage import CHECKPOINTS
from tuneline.train.job_manifest import settings_here
from tuneline_pipelines.state import State, close_abandoned, note_open, owner
from tuneline_pipelines.watch import Tell, Watcher

if TYPE_CHECKING:
    from tuneline_pipelines.containers import Containers

GRACE_SECONDS = 30  # a step that trains saves its state first


class StepFailed(Exception):  # noqa: N818 - it is a step's outcome, told with the place of its log
    """A step ended without its output; the message says where its log is."""


def run(recipe: Recipe, state: State, tell: Tell, containers: Containers | None = None) -> dict[str, Any]:
    """Run the pipeline to its end.

    Args:
        recipe: what to do.
        state: where to keep it.
        tell: called with a step's progress.
        containers: run the steps in them; None runs them as processes.

    Returns:
        The result, as `tuneline run --json` prints it.

    Raises:
        InputError: bad input, found before the run or by a step.
        StepFailed: a step failed otherwise.
        KeyboardInterrupt: stopped from outside; the runs are ended as KILLED.
    """
    started = time.monotonic()
    if containers:
        recipe = containers.prepared(recipe, state)
    if recipe.train.distributed.nodes > 1:
        settings_here()  # else every step before it would run in vain
    parameters = recipe.flat() | {"data_pin": pin(recipe.data, recipe.model)}
    with stopped_by_signals(lambda: containers.stop(GRACE_SECONDS) if containers else _end_children()):
        if containers:
            containers.stop_abandoned(GRACE_SECONDS)
        close_abandoned(state)
        note = note_open(state)
        run_id, owned = _open_run(recipe, state, parameters)
        try:
            result = _run_steps(recipe, run_id, parameters, state, tell, containers)
            total = time.monotonic() - started
            not_training = total - result["metrics"]["train_seconds"]
            result["seconds"] |= {"total": round(total, 2), "not_training": round(not_training, 2)}
            tracking.close_pipeline_run(run_id, "FINISHED", owned, result["metrics"])
        except BaseException as error:
            # The first error tells more; the next command closes the run.
            with tracking.last_word(), contextlib.suppress(Exception):
                status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
                tracking.close_pipeline_run(run_id, status, owned)
                note.unlink(missing_ok=True)
            raise
        note.unlink(missing_ok=True)
        shutil.rmtree(state.checkpoints / result.pop("training"), ignore_errors=True)  # the model stands for them
        return result


def _run_steps(
    recipe: Recipe,
    run_id: str,
    parameters: dict[str, Any],
    state: State,
    tell: Tell,
    containers: Containers | None,
) -> dict[str, Any]:
    os.environ |= {"PYTHONUNBUFFERED": "1", tracking.PARENT: run_id, OWNER_PID: str(os.getpid())}
    os.environ.setdefault(CHECKPOINTS, str(state.checkpoints))
    log = state.logs / f"{run_id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8", buffering=1) as file:
        watcher = Watcher(file, tell)
        outputs = _run_pipeline(recipe, parameters, state, watcher, containers)
    return _result(recipe, run_id, outputs) | {"seconds": watcher.seconds}


def _open_run(recipe: Recipe, state: State, parameters: dict[str, Any]) -> tuple[str, bool]:
    text = yaml.safe_dump(recipe.model_dump(by_alias=True, mode="json"), sort_keys=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return tracking.open_pipeline_run(recipe.register_.name, state.artifacts, parameters, path, owner())


@contextlib.contextmanager
def stopped_by_signals(end: Callable[[], object] = lambda: None) -> Iterator[None]:
    """SIGTERM, Ctrl-C and a closed terminal stop the work alike: `end` is called, then KeyboardInterrupt raised.

    From the first signal on, others are ignored until the work is ended.
    """

    def stop(_number: int, _frame: Any) -> None:
        stopping.ignore()
        end()
        raise KeyboardInterrupt

    with stopping.handled(stop):
        yield


@contextlib.contextmanager
def _plain_python() -> Iterator[None]:
    """Let the runner start steps as `python3`, found first on the PATH.

    It puts sys.executable in place of the word python3 in every argument and in the script that starts the step, where
    nothing quotes it: a data file with python3 in its name, or an environment below a folder with a space in its name,
    would not survive.
    """
    executable, path = sys.executable, os.environ.get("PATH", "")
    sys.executable, os.environ["PATH"] = "python3", os.pathsep.join([str(Path(executable).parent), path])
    try:
        yield
    finally:
        sys.executable, os.environ["PATH"] = executable, path


def _end_children() -> None:
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(children, timeout=GRACE_SECONDS)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _run_pipeline(
    recipe: Recipe, parameters: dict[str, Any], state: State, watcher: Watcher, containers: Containers | None
) -> dict[str, Any]:
    from kfp import local

    from tuneline_pipelines.finetune import build

    code = source_hash(Path(tuneline.__file__).parent, also="*.j2")  # KFP's own key has the arguments alone
    local.init(
        runner=containers.runner(recipe, state) if containers else local.SubprocessRunner(use_venv=False),
        pipeline_root=str(state.pipeline_root), enable_caching=True,
        cache_root=str(state.home / "cache" / code[:16]),
    )  # fmt: skip
    # Its runner for processes warns of the images, which it does not use.
    warnings.filterwarnings("ignore", message="You may be attemping to run a task", category=RuntimeWarning)
    pipeline = build(bool(parameters["data_pin"]), containers.configure() if containers else None)
    try:
        stream: Any = watcher  # only a stream's write and flush are used
        with contextlib.redirect_stdout(stream), contextlib.nullcontext() if containers else _plain_python():
            task = pipeline(**parameters)
    except Exception as error:  # whatever the runner or a step's process made of it
        if watcher.error:
            raise InputError(watcher.error) from None
        ended = "its process ended early (killed, or out of memory)"
        why = watcher.exception or (ended if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}")
        raise StepFailed(f"{watcher.step or 'the pipeline'} failed: {why}; log: {watcher.log.name}") from error
    return task.outputs


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
        "data": {"sha256": manifest.sha256["all"], "rows": manifest.rows, "notes": manifest.notes},
        "training": outputs["model"].metadata["training"],
        "evaluation": outputs["evaluation"].path,
        "report": str(Path(outputs["evaluation"].path) / "report.html"),  # KFP's own copy has a name no browser takes
    }
