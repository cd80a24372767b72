"""Runs many commands at once, each in a process of its own: `python -m tests.e2e.racers`, a JSON list of them on stdin.

The processes are forked after the imports, which would take each of them seconds, and start together. A command is a
list: the arguments of tuneline, or `register NAME RUN_ID FOLDER` for what a register step does. Printed is a JSON list
of what became of each: status, out and told.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import requests

from tuneline import registry
from tuneline.tracking import StepRun, client
from tuneline_pipelines.cli import app

__all__ = ["mlflow", "requests"]  # imported for the processes to have


def run(command: list[str]) -> None:
    """One command, in this process."""
    if command[0] == "register":
        _, name, run_id, folder = command
        print(registry.add_version(StepRun(client(), run_id), name, Path(folder), {"tuneline.gate": "passed"}))
        return
    app(command)


def start(command: list[str], gate: tuple[int, int], folder: Path) -> int:
    """Fork a process that runs the command once the gate, a pipe, is closed at the other end; gives its number."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.close(gate[1])
        for number, name in ((1, "out"), (2, "told")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
        os.read(gate[0], 1)
        run(command)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def race(commands: list[list[str]], root: Path) -> list[dict[str, Any]]:
    """Start all the commands together, and wait for them."""
    gate, racers = os.pipe(), []
    for number, command in enumerate(commands):
        (folder := root / str(number)).mkdir()
        racers.append((start(command, gate, folder), folder))
    os.close(gate[1])
    done = []
    for pid, folder in racers:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        done.append({"status": status, **{name: (folder / name).read_text() for name in ("out", "told")}})
    os.close(gate[0])
    return done


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(race(json.load(sys.stdin), Path(folder))))
