"""tuneline plan: what a run will do and take, told before anything of it is started.

The data is read, split and audited as a run does, and a few real training steps are taken in a process of their own
(tuneline.train.rehearsal), all of it in a folder that does not outlive the command. No run is made, nothing registered.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tuneline.artifacts import PreparedData, read_json, write_json
from tuneline.config import Recipe, TrainConfig
from tuneline.errors import InputError, NotHereError, ServiceError
from tuneline.machine import threads_each
from tuneline.prepare.prepare import prepare
from tuneline.step import OWNER_PID
from tuneline.storage import CHECKPOINTS
from tuneline.train.forecast import Forecast
from tuneline.train.job_manifest import settings_here
from tuneline_pipelines.compile import nodes_of
from tuneline_pipelines.local import stopped_by_signals
from tuneline_pipelines.outlook import Found, Limit, disk_mb, result
from tuneline_pipelines.resources import Profile, amount
from tuneline_pipelines.watch import Tell, Watcher, heard

TOKENIZED = 50_000
"""Rows of a split that are tokenized at most; all are read, audited and counted."""
STEP_SECONDS = 8.0
"""How long steps are timed, where they are short."""
TRIES = 4
"""Rehearsals, each with a smaller pass than the one before."""


def plan(recipe: Recipe, profile: Profile | None, tell: Tell) -> dict[str, Any]:
    """Look ahead.

    Args:
        recipe: what would be run.
        profile: the cluster that it would run on; None for this machine.
        tell: called with progress.

    Returns:
        The result, as `tuneline plan --json` prints it.

    Raises:
        InputError: what a run would refuse, in its words, or memory that is too small for a single text.
        ServiceError: the rehearsal failed otherwise.
    """
    _require_machines(recipe, profile)
    with stopped_by_signals(), tempfile.TemporaryDirectory(prefix="tuneline-plan-") as name:
        folder, started = Path(name), time.monotonic()
        manifest = _prepare(recipe, folder / "data", tell)
        seconds = time.monotonic() - started
        found = _Rehearsals(recipe, profile, folder, tell).fitting()
        audit = read_json(folder / "data" / "audit.json")
        prepared_mb = sum(path.stat().st_size for path in (folder / "data").rglob("*") if path.is_file()) / 1e6
    return result(recipe, profile, manifest, audit, found, seconds, prepared_mb * found.final.scale)


def _require_machines(recipe: Recipe, profile: Profile | None) -> None:
    if profile:
        nodes_of(recipe, profile)
    elif recipe.train.distributed.nodes > 1:
        settings_here()


def _prepare(recipe: Recipe, out: Path, tell: Tell) -> PreparedData:
    """The run's own first step, without its search for label errors, which refuses nothing."""
    data = recipe.data.model_copy(update={"label_errors": False})
    try:
        with heard(tell):
            return prepare(data, recipe.model, out, tokenized=TOKENIZED)
    except InputError as error:
        kind = type(error) if isinstance(error, NotHereError) else InputError
        raise kind(str(error).replace(f"; all findings: {out / 'audit.html'}", "; tuneline audit shows all")) from None


class _Rehearsals:
    """Rehearses with ever smaller passes until the memory does.

    Args:
        recipe: what would be run.
        profile: the cluster; None for this machine.
        folder: holds data, and takes the rest.
        tell: hears of progress.
    """

    def __init__(self, recipe: Recipe, profile: Profile | None, folder: Path, tell: Tell) -> None:
        self.recipe, self.profile, self.folder, self.tell = recipe, profile, folder, tell

    def fitting(self) -> Found:
        """What fits.

        Raises:
            InputError: nothing does.
        """
        settings, first = self.recipe.train, None
        limit, seen = Limit(0, ""), 0
        for _ in range(TRIES):
            forecast, killed = self._rehearse(settings)
            first = first or forecast
            if not forecast.notes:
                break
            limit, seen = self._limit(forecast), forecast.last("start")["longest"]
            memory = forecast.memory
            if memory and forecast.whole and memory.peak(memory.heaviest) <= limit.mb:
                return Found(first, forecast, limit)
            smaller = _smaller(forecast, limit, killed)
            if smaller is None:
                break
            settings = settings.model_copy(update={"pass_tokens": smaller})
            self.tell("plan", 0, 0, f"too little memory; tried again with train.pass_tokens={smaller}")
        raise InputError(
            f"model.max_length: a single text of {seen} tokens takes more memory than the {limit.mb:,.0f} MB of "
            f"{limit.of}; lower it, or take a smaller model.name, train.tune=top_layers or more memory"
        )

    def _limit(self, forecast: Forecast) -> Limit:
        start = forecast.last("start")
        if forecast.on_gpu:
            return Limit(start["limit_mb"], f"GPU memory that {start['name']} has free")
        asked = self.profile.steps.train.memory_limit if self.profile else None
        together = self.recipe.train.distributed.gpus_per_node
        shared = f", for each of {together} processes" if together > 1 else ""
        if asked:
            return Limit(amount(asked) / 1e6 / together, f"the profile's steps.train.memory_limit {asked}{shared}")
        return Limit(start["limit_mb"], f"memory that this machine has free{shared}")

    def _rehearse(self, settings: TrainConfig) -> tuple[Forecast, bool]:
        """Rehearse once; gives what it told, and whether it was killed."""
        out = self.folder / "rehearsal"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        job, facts = out / "job.json", out / "facts.jsonl"
        write_json(job, self._job(settings, out))
        began = time.time()
        code = self._run([sys.executable, "-m", "tuneline.train.rehearsal", str(job), str(facts)], out)
        lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
        return Forecast([json.loads(line) for line in lines], settings, began), code == -signal.SIGKILL

    def _job(self, settings: TrainConfig, out: Path) -> dict[str, Any]:
        together = settings.distributed.gpus_per_node
        limit = machine_mb() / together
        asked = self.profile.steps.train.memory_limit if self.profile else None
        if asked:
            limit = min(limit, amount(asked) / 1e6 / together)
        return {
            "data": str(self.folder / "data"), "out": str(out), "model": self.recipe.model.model_dump(mode="json"),
            "train": settings.model_dump(mode="json"), "limit_mb": limit, "disk_mb": disk_mb(),
            "seconds": STEP_SECONDS, "here": self.profile is None,
        }  # fmt: skip

    def _run(self, command: list[str], out: Path) -> int:
        environment = {name: value for name, value in os.environ.items() if name != CHECKPOINTS}
        together = self.recipe.train.distributed.gpus_per_node
        if together > 1:  # as processes.fit shares out the cores
            environment["OMP_NUM_THREADS"] = str(threads_each(together))
        environment |= {"PYTHONUNBUFFERED": "1", OWNER_PID: str(os.getpid()), "TMPDIR": str(out)}
        with (out / "log").open("w", encoding="utf-8") as log:
            watcher = Watcher(log, self.tell)
            process = subprocess.Popen(
                command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            try:
                for line in process.stdout or ():
                    watcher.write(line)
                code = process.wait()
            finally:
                process.kill()
                process.wait()
        if watcher.error:
            raise InputError(watcher.error)
        if code not in (0, -signal.SIGKILL):
            lines = (out / "log").read_text(encoding="utf-8").splitlines()
            why = watcher.exception or f"status {code}, after: {lines[-1] if lines else 'nothing'}"
            raise ServiceError(f"the rehearsal of the training failed: {why}")
        return code


def _smaller(forecast: Forecast, limit: Limit, killed: bool) -> int | None:
    """A train.pass_tokens below the one that was too much; None where there is none."""
    heaviest, tried, longest = forecast.last("heaviest"), forecast.last("try"), forecast.last("start")["longest"]
    if not heaviest:
        return None
    now = min(forecast.settings.pass_tokens, heaviest["tokens"])
    wanted = forecast.pass_tokens(limit.mb)
    if wanted is None or now <= longest:
        return None
    if killed:
        wanted = min(wanted, tried.get("tokens", now) // 2)
    return max(longest, 8, min(wanted, now * 3 // 4))


def machine_mb() -> float:
    """Megabytes that a new process on this machine, or in this container, could take now."""
    import psutil

    free = float(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, float((group / most).read_text()) - float((group / used).read_text()))
        except (OSError, ValueError):  # no such control group, or one without a limit
            continue
    return free / 1e6
