"""What a state folder remembers of runs on a server, so that a command that lost it is cleared up by the next one."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from mlflow import MlflowClient

from tuneline import tracking
from tuneline.errors import InputError
from tuneline_pipelines import state as states
from tuneline_pipelines.state import State, close_abandoned, home, note_open, open_state

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


def test_a_note_that_goes_while_notes_are_read_is_passed_over(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        notes = []
        for number in range(2):
            patch.setattr(states, "owner", lambda number=number: f"{GONE}{number}")
            notes.append(note_open(state))
    known = [run_of(f"{GONE}{number}", tmp_path) for number in range(2)]

    def lives(owner: str) -> bool:  # the other command ends now, and removes its note
        next(note for note in notes if note.exists() and note.read_text() != owner).unlink()
        return False

    monkeypatch.setattr(states, "lives", lives)
    close_abandoned(state)
    statuses = [MlflowClient().get_run(run_id).info.status for run_id in known]
    assert sorted(statuses) == ["KILLED", "RUNNING"]


def test_notes_of_another_server_wait_for_it(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(states, "owner", lambda: GONE)
        note = note_open(state)
    close_abandoned(State(state.home, "https://other.example.com", None))
    assert note.exists()


def test_a_store_of_this_machine_needs_no_notes(own_store: Path) -> None:
    assert not note_open(State(own_store, "sqlite:///mlflow.db", "file:///artifacts")).exists()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that a person stands in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNELINE_HOME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # put back, whatever open_state sets
    return tmp_path


@pytest.mark.parametrize("named", ["", ".", ".."])
def test_a_projects_own_gitignore_is_left_as_it_is(project: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    monkeypatch.setenv("TUNELINE_HOME", named)
    for folder in (project, project / "below"):
        (folder / ".gitignore").write_text("node_modules\n")
    open_state()
    assert {(folder / ".gitignore").read_text() for folder in (project, project / "below")} == {"node_modules\n"}
    assert home() == (project / "below" / (named or ".tuneline")).absolute()


def test_the_state_folder_is_not_for_git_and_no_project_without_a_gitignore_is_hidden(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (open_state().home / ".gitignore").read_text() == "*\n"
    monkeypatch.setenv("TUNELINE_HOME", str(project))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    open_state()
    assert not (project / ".gitignore").exists()


def test_a_store_that_is_no_database_is_named_with_what_to_do(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".tuneline").mkdir()
    (project / ".tuneline" / "mlflow.db").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(InputError, match=r"\.tuneline/mlflow\.db: no SQLite database that can be read \(file is not a"):
        open_state()
    (project / ".tuneline" / "mlflow.db").unlink()
    (project / ".tuneline" / "mlflow.db").mkdir()
    with pytest.raises(InputError, match="no SQLite database that can be read"):
        open_state()


KILLED_WHILE_IT_WRITES = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # what is written goes to the file before the transaction ends
database.execute("BEGIN")
for number in range(200):
    database.execute("INSERT INTO kept VALUES (?)", ("x" * 4000,))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_store_that_a_killed_command_was_writing_is_opened_as_it_was_before(project: Path) -> None:
    store = project / ".tuneline" / "mlflow.db"
    store.parent.mkdir()
    with contextlib.closing(sqlite3.connect(store)) as database:
        database.execute("CREATE TABLE kept (text)")
    subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_WRITES, str(store)], check=False)
    assert store.with_name("mlflow.db-journal").stat().st_size > 0
    open_state()
    with contextlib.closing(sqlite3.connect(store)) as database:
        assert database.execute("SELECT count(*) FROM kept").fetchone() == (0,)


@pytest.mark.parametrize(("named", "told"), [("a?b", "'\\?' found in the path"), ("file", "cannot be made")])
def test_a_state_folder_that_cannot_be_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, named: str, told: str
) -> None:
    (project / "file").write_text("")
    monkeypatch.setenv("TUNELINE_HOME", named)
    with pytest.raises(InputError, match=rf"^TUNELINE_HOME: .*{told}"):
        open_state()


def test_a_postgresql_store_is_opened_with_the_driver_that_is_installed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me@127.0.0.1:1/mlflow")
    assert sqlalchemy.create_engine(open_state().tracking_uri).driver == "psycopg2"
