"""MLflow's store on this machine is made whole, by whoever comes first and whatever ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from tuneline.errors import InputError
from tuneline.tracking import client

pytestmark = pytest.mark.medium

FIRST_USE = "from tuneline.tracking import client; client().search_experiments()"


def first_use() -> subprocess.Popen[str]:
    """A command that uses the test's own store, in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", FIRST_USE], stderr=subprocess.PIPE, text=True)


def test_commands_that_start_together_on_a_machine_without_a_store_make_one(own_store, tmp_path):
    commands = [first_use() for _ in range(4)]
    for command in commands:
        _, told = command.communicate(timeout=300)
        assert (command.returncode, told) == (0, "")
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert sorted(path.name for path in tmp_path.glob("mlflow.db*")) == ["mlflow.db", "mlflow.db.lock"]


def test_a_command_that_is_killed_while_it_makes_the_store_leaves_no_half_of_it(own_store, tmp_path):
    unnamed, command = tmp_path / "mlflow.db.new", first_use()
    while True:
        assert command.poll() is None
        with suppress(FileNotFoundError):
            if unnamed.stat().st_size:
                break
        time.sleep(0.001)
    command.kill()
    command.communicate()
    assert not (tmp_path / "mlflow.db").exists()
    assert unnamed.exists()
    command = first_use()
    assert (command.communicate(timeout=300)[1], command.returncode) == ("", 0)
    assert (tmp_path / "mlflow.db").exists()
    assert not unnamed.exists()


def test_a_store_is_new_where_one_was_moved_away_without_its_journal(own_store, tmp_path):
    left = {f"mlflow.db{kind}": b"of another" * 99 for kind in ("-journal", ".new", ".new-journal", ".new.bak")}
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)
    assert client().search_experiments()
    found = sorted(path.name for path in tmp_path.glob("mlflow.db*"))
    assert found == ["mlflow.db", "mlflow.db.lock", "mlflow.db.new.bak"]


def test_a_store_may_lie_where_a_url_would_be_quoted_or_behind_a_link(tmp_path, monkeypatch):
    folder = tmp_path / "größe (1) 100 @home"
    folder.mkdir()
    (folder / "mlflow.db").symlink_to(tmp_path / "elsewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    assert client().search_experiments()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere.db", "elsewhere.db.lock", folder.name]
    assert (folder / "mlflow.db").is_symlink()


@pytest.mark.parametrize("uri", ["sqlite:///:memory:", "sqlite://"])
def test_a_store_in_memory_makes_no_file(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert client().search_experiments()
    assert list(tmp_path.iterdir()) == []


def test_a_store_whose_folder_cannot_be_written_is_told_in_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/mlflow.db")  # not even by root
    with pytest.raises(InputError, match=r"^/proc/mlflow\.db: cannot be made \(.*\); name a folder by TUNELINE_HOME"):
        client()
