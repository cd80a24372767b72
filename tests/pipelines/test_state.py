"""What a state folder remembers of runs on a server, so that a command that lost it is cleared up by the next one."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tuneline import tracking
from tuneline_pipelines import state as states
from tuneline_pipelines.state import State, close_abandoned, note_open

GONE = f"{states.socket.gethostname()}/1@0"  # process 1 did not start in 1970


@pytest.fixture
def state(own_store: Path) -> State:
    """A state folder whose store counts as a server: other machines use it."""
    own_store.mkdir()
    return State(own_store, "https://me:hunter2@mlflow.example.com", None)


def run_of(owner: str, folder: Path) -> str:
    recipe = folder / "recipe.yaml"
    recipe.write_text("data: {train: a.csv}\n")
    return tracking.open_pipeline_run("desk", str(folder / "artifacts"), {}, recipe, owner)[0]


def test_runs_that_a_dead_command_noted_are_closed_and_others_on_the_server_are_not(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(states, "owner", lambda: GONE)
        gone = note_open(state)
    alive = note_open(state)
    assert "hunter2" not in gone.read_text() + str(gone)
    runs = [run_of(owner, tmp_path) for owner in (GONE, states.owner(), GONE.replace("@0", "@9"))]
    close_abandoned(state)
    assert [MlflowClient().get_run(run_id).info.status for run_id in runs] == ["KILLED", "RUNNING", "RUNNING"]
    assert (gone.exists(), alive.exists()) == (False, True)


def test_notes_of_another_server_wait_for_it(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(states, "owner", lambda: GONE)
        note = note_open(state)
    close_abandoned(State(state.home, "https://other.example.com", None))
    assert note.exists()


def test_a_store_of_this_machine_needs_no_notes(own_store: Path) -> None:
    assert not note_open(State(own_store, "sqlite:///mlflow.db", "file:///artifacts")).exists()
