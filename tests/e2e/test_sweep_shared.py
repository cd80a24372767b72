"""Two commands share a study on a real PostgreSQL and one run on a real MLflow server."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from infra.local.stack import USER, Stack, stack

from tests.conftest import reviews
from tests.e2e.conftest import Project, require_postgres

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers() -> Iterator[Stack]:
    require_postgres()
    with stack() as running:
        yield running


def test_two_commands_share_trials_and_the_run_and_neither_tells_the_password(
    servers: Stack, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    created = servers.database("createdb", "studies")
    assert created.returncode == 0, created.stderr
    secret = servers.secrets["postgres_password"]
    url = f"postgresql://{USER}:{secret}@127.0.0.1:{servers._ports['postgres']}/studies"
    words = ["sweep", "text", "data.train=rows.csv", "data.validation_share=0.3", f"model.name={tiny_checkpoint}",
             "model.max_length=16", "train.epochs=2", "train.learning_rate=5e-3", "register.name=reviews",
             "sweep.pruner=none", "--budget", "9trials", "--study", "shared", "--json"]  # fmt: skip
    project = Project(tmp_path)
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *reviews(300)])
    more = servers.environment | {"TUNELINE_SWEEP_STORAGE": url}
    processes = [project.start(*words, **more, TUNELINE_HOME=str(tmp_path / name)) for name in ("one", "two")]
    printed = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    first, second = (json.loads(out) for out, _ in printed)
    assert first["run_id"] == second["run_id"]
    storage = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg2://"))
    study = optuna.load_study(study_name="shared", storage=storage)
    assert len({trial.user_attrs["owner"] for trial in study.trials if "owner" in trial.user_attrs}) == 2
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert 6 <= len(done) <= 7  # both may have asked for the last one
    assert len({tuple(sorted(map(str, trial.params.values()))) for trial in done}) >= 6
    everything = " ".join(text for pair in printed for text in pair) + servers.log("mlflow")
    everything += "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*.log"))
    assert secret not in everything
