"""However a run ends, none of its MLflow runs stays RUNNING and no model is half-registered."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import reviews, until
from tests.e2e.conftest import Project

pytestmark = pytest.mark.medium


def write_reviews(project: Project) -> None:
    rows = "\n".join(f"{text},{label}" for text, label in reviews(400))
    (project.folder / "reviews.csv").write_text(f"text,label\n{rows}\n")


def training(project: Project, checkpoint: Path) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A run in the middle of a training that would take hours: the command, and its step."""
    write_reviews(project)
    command = project.start(
        "run", "text", "data.train=reviews.csv", f"model.name={checkpoint}", "model.max_length=32", "train.epochs=1000"
    )
    while True:
        assert command.poll() is None, command.communicate()[1]
        logs = list((project.folder / ".tuneline" / "logs").glob("*.log"))
        if logs and "[train] " in logs[0].read_text():
            break
        time.sleep(0.2)
    children = psutil.Process(command.pid).children(recursive=True)
    return command, next(child for child in children if child.name().startswith("python"))


def ended(command: subprocess.Popen[str]) -> tuple[int, str]:
    told = command.communicate(timeout=180)[1]
    return command.returncode, told


@pytest.mark.usefixtures("nohup")
def test_a_command_under_nohup_survives_its_terminal_and_a_stopped_one_stops_its_step_and_closes_its_runs(
    project: Project, tiny_checkpoint: Path
) -> None:
    command, step = training(project, tiny_checkpoint)
    whole = psutil.Process(command.pid)
    for process in (whole, *whole.children(recursive=True)):
        process.send_signal(signal.SIGHUP)
    log = next((project.folder / ".tuneline" / "logs").glob("*.log"))
    told = log.read_text().count(" steps | ")
    until(lambda: log.read_text().count(" steps | ") > told + 3, 120)
    assert command.poll() is None
    command.send_signal(signal.SIGINT)
    status, told = ended(command)
    assert status == 130
    assert "interrupted" in told
    assert "Traceback" not in told
    assert not step.is_running()
    assert project.statuses() == {"pipeline": "KILLED", "prepare": "FINISHED", "train": "KILLED"}
    assert list(project.store.search_registered_models()) == []


@pytest.mark.slow
def test_a_killed_step_fails_the_run(project: Project, tiny_checkpoint: Path) -> None:
    command, step = training(project, tiny_checkpoint)
    step.kill()
    status, told = ended(command)
    assert status == 1
    assert "train failed: its process ended early" in told
    assert "log: " in told
    assert "Traceback" not in told
    assert project.statuses() == {"pipeline": "FAILED", "prepare": "FINISHED", "train": "FAILED"}


def test_a_command_killed_outright_is_cleared_up_by_the_next(project: Project, tiny_checkpoint: Path) -> None:
    command, step = training(project, tiny_checkpoint)
    command.kill()
    ended(command)
    psutil.wait_procs([step], timeout=30)
    assert not step.is_running()
    assert project.statuses() == {"pipeline": "RUNNING", "prepare": "FINISHED", "train": "KILLED"}
    project.tuneline("runs")
    assert project.statuses() == {"pipeline": "KILLED", "prepare": "FINISHED", "train": "KILLED"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_plan_leaves_no_text_behind(
    project: Project, tiny_checkpoint: Path, tmp_path: Path, number: signal.Signals
) -> None:
    write_reviews(project)
    command = project.start(
        "plan", "text", "data.train=reviews.csv", f"model.name={tiny_checkpoint}", "model.max_length=32",
        TMPDIR=str(tmp_path),
    )  # fmt: skip
    while not list(tmp_path.glob("tuneline-plan-*/data/manifest.json")):
        assert command.poll() is None, command.communicate()[1]
        time.sleep(0.02)
    command.send_signal(number)
    status, told = ended(command)
    assert status == 130
    assert "Traceback" not in told
    assert list(tmp_path.rglob("*.arrow")) == []
