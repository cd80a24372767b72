"""The command as a stranger runs it: a process of its own, a folder of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from infra.local.stack import USER, Stack, StackError, postgres_folder, stack
from infra.local.stack import wait_until_healthy as wait_until_healthy
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    import optuna

TUNELINE = str(Path(sys.executable).parent / "tuneline")


@dataclass
class Project:
    """A folder in which tuneline is run, with the store that it keeps there."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands: a stranger's, without this test run's own settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "TUNELINE", "COV"))}
        return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "COLUMNS": "120"}

    def start(self, *arguments: str, output: Any = subprocess.PIPE, **more: str) -> subprocess.Popen[str]:
        """Start a command, with its output where nobody would empty a pipe."""
        return subprocess.Popen(
            [TUNELINE, *arguments], cwd=self.folder, env=self.environment | more, text=True, stdout=output,
            stderr=output,
        )  # fmt: skip

    def tuneline(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*arguments, **more)
        out, told = process.communicate(timeout=2400)
        return subprocess.CompletedProcess(arguments, process.returncode, out, told)

    def succeed(self, *arguments: str) -> dict[str, Any]:
        """Run a command with --json that must succeed, and give its one object."""
        done = self.tuneline(*arguments, "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(done.stdout.splitlines()) == 1
        return json.loads(done.stdout)

    @property
    def store(self) -> Any:
        """An MLflow client on the project's store."""
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.folder / '.tuneline' / 'mlflow.db'}")

    def statuses(self) -> dict[str, str]:
        """Status of every run, by name; the pipeline's own run is `pipeline`."""
        experiments = [found.experiment_id for found in self.store.search_experiments()]
        runs = self.store.search_runs(experiments)
        return {
            run.info.run_name if "mlflow.parentRunId" in run.data.tags else "pipeline": run.info.status for run in runs
        }


def in_process(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """A command in this process, in the project's folder: half of the time of one in its own goes to imports."""
    from tuneline_pipelines.cli import app

    monkeypatch.chdir(project.folder)
    for name in ("MLFLOW_TRACKING_URI", "TUNELINE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database, to copy: its migrations take seconds."""
    project = Project(tmp_path_factory.mktemp("store"))
    assert project.tuneline("runs").returncode == 0
    return project.folder / ".tuneline" / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> Project:
    """A project without runs."""
    folder = tmp_path / "project"
    (folder / ".tuneline").mkdir(parents=True)
    shutil.copy(empty_store, folder / ".tuneline")
    return Project(folder)


def require_postgres() -> None:
    """Skip where PostgreSQL is not installed, or fail where TUNELINE_REQUIRE_TOOLS=1."""
    try:
        postgres_folder()
    except StackError as error:
        if os.environ.get("TUNELINE_REQUIRE_TOOLS") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def servers() -> Iterator[Stack]:
    """PostgreSQL, an S3 endpoint and MLflow with passwords, for one file's tests."""
    require_postgres()
    with stack() as running:
        yield running


@pytest.fixture
def studies(servers: Stack) -> str:
    """The address of an empty database for a sweep's study, with the password in it."""
    name = f"studies_{secrets.token_hex(4)}"
    created = servers.database("createdb", name)
    assert created.returncode == 0, created.stderr
    return f"postgresql://{USER}:{servers.secrets['postgres_password']}@127.0.0.1:{servers._ports['postgres']}/{name}"


def the_study(url: str) -> optuna.Study:
    """The one study of that database."""
    import optuna

    storage = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg2://"))
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)
