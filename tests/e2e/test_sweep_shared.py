"""Two commands share a study on a real PostgreSQL and one run on a real MLflow server."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from infra.local.stack import Stack

from tests.components.search.askers import race
from tests.conftest import reviews
from tests.e2e.conftest import Project, the_study
from tuneline.config import DataConfig, Recipe
from tuneline.search.space import Range, Space
from tuneline.search.study import count, open_study

pytestmark = pytest.mark.slow


def test_two_commands_share_trials_and_the_run_and_neither_tells_the_password(
    servers: Stack, studies: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    secret = servers.secrets["postgres_password"]
    words = ["sweep", "text", "data.train=rows.csv", "data.validation_share=0.3", f"model.name={tiny_checkpoint}",
             "model.max_length=16", "train.epochs=12", "train.learning_rate=5e-3", "register.name=reviews",
             "sweep.pruner=none", "--budget", "9trials", "--study", "shared", "--json"]  # fmt: skip
    project = Project(tmp_path)
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *reviews(300)])
    more = servers.environment | {"TUNELINE_SWEEP_STORAGE": studies}
    processes = [project.start(*words, **more, TUNELINE_HOME=str(tmp_path / name)) for name in ("one", "two")]
    printed = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    first, second = (json.loads(out) for out, _ in printed)
    assert first["run_id"] == second["run_id"]
    study = the_study(studies)
    assert study.study_name == "shared"
    assert len({trial.user_attrs["owner"] for trial in study.trials if "owner" in trial.user_attrs}) == 2
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(done) == 6  # the finalists' other seeds take the rest of the budget
    assert len({tuple(sorted(map(str, trial.params.values()))) for trial in done}) == 6
    everything = " ".join(text for pair in printed for text in pair) + servers.log("mlflow")
    everything += "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*.log"))
    assert secret not in everything


def test_workers_that_ask_postgresql_at_the_same_moment_start_no_trial_more_than_the_budget(studies: str) -> None:
    recipe = Recipe(data=DataConfig(train="rows.csv"))
    space: Space = {"train.learning_rate": Range(1e-5, 1e-3, log=True)}
    budgets = {"one": 1, "three": 3, "thirty": 30}
    race(studies, recipe, space, 8, budgets)
    for name, most in budgets.items():
        found = count(open_study(studies, name, recipe, space)[0])
        assert (found.complete, found.spent) == (most, most), name
