"""The sweep pipeline through KFP's local runner: two workers, a study on a real PostgreSQL, runs on a real MLflow."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from infra.local.stack import Stack

from tests.conftest import ROOT, reviews
from tests.e2e.conftest import the_study
from tuneline.config import Recipe
from tuneline.recipe import load_recipe
from tuneline.search.cluster import STORAGE, pinned, written
from tuneline_pipelines.recipes import shipped

pytestmark = pytest.mark.slow
RUN = """
import json, sys
from kfp import local
from tuneline_pipelines.sweep_dag import build

root, arguments = sys.argv[1], json.loads(sys.argv[2])
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=root)
task = build(pinned=True)(**arguments)
print(json.dumps({name: artifact.path for name, artifact in task.outputs.items()}))
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_checkpoint: Path) -> Recipe:
    rows = tmp_path / "rows.csv"
    with rows.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *reviews(300)])
    space = "{train.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}, model.max_length: [16, 12]}"
    return load_recipe(shipped()["text"], [
        f"data.train={rows}", "data.validation_share=0.3", f"model.name={tiny_checkpoint}", "model.max_length=16",
        "train.epochs=12", "train.learning_rate=5e-3", "register.name=reviews", f"sweep.space={space}",
        "sweep.pruner=none", "sweep.finalists=1", "sweep.seeds=3",
    ])  # fmt: skip


def test_two_workers_share_one_study_and_one_run_and_one_recipe_wins(
    servers: Stack, studies: str, tmp_path: Path, recipe: Recipe
) -> None:
    secret = servers.secrets["postgres_password"]
    arguments = {"recipe": written(recipe), "budget": "7trials", "workers": ["1", "2"], "data_pin": pinned(recipe)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "root"), json.dumps(arguments)], capture_output=True, text=True,
        cwd=tmp_path, check=False, env=os.environ | servers.environment | {
            STORAGE: studies, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": f"{ROOT / 'components'}:{ROOT / 'pipelines'}",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert secret not in done.stdout + done.stderr + servers.log("mlflow")
    left = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in left)
    assert "train.arrow" in {path.name for path in left}
    assert "test.arrow" not in {path.name for path in left}
    outputs = json.loads(done.stdout.splitlines()[-1])
    study = _check_study(studies)
    _check_run(servers, study)
    best = load_recipe(Path(outputs["best"]), [])
    assert best.train.epochs == 12
    assert 1e-3 <= best.train.learning_rate <= 1e-2
    assert "the test split was not looked at" in Path(outputs["report"]).read_text(encoding="utf-8")


def _check_study(url: str) -> Any:
    """Trials of both workers, the recipe's own values once, and no two workers that draw the same."""
    study = the_study(url)
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(done) == 5
    owners = {trial.user_attrs["owner"].rpartition("@")[0].rpartition("/")[2] for trial in done}
    assert owners == {"worker 1", "worker 2"}
    rates = [trial.params["train.learning_rate"] for trial in done]
    assert rates.count(5e-3) == 1
    assert len(set(rates)) == len(rates)
    assert len([key for key in study.user_attrs if key.startswith("final ")]) == 2
    return study


def _check_run(servers: Stack, study: Any) -> None:
    """One run for the sweep, finished, with the front; below it one for each training, of whichever pod."""
    from mlflow import MlflowClient

    environment = dict(os.environ)
    os.environ |= servers.environment
    try:
        store = MlflowClient(servers.environment["MLFLOW_TRACKING_URI"])
        experiment = store.get_experiment_by_name("reviews")
        assert experiment is not None
        runs = store.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        stored = {file.path for file in store.list_artifacts(parent.info.run_id)}
    finally:
        os.environ.clear()
        os.environ |= environment
    children = [run for run in runs if run is not parent]
    assert parent.info.run_id == study.user_attrs["tuneline.run"]
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in children} == {"FINISHED"}
    assert len(children) == 7
    assert {"pareto.png", "sweep.html", "trials.json", "best.yaml"} <= stored
    finals = {key: value for key, value in study.user_attrs.items() if key.startswith("final ")}
    (winner,) = {int(key.split()[1]) for key in finals}
    scores = [study.trials[winner].value, *(row["metrics"]["macro_f1"][0] for row in finals.values())]
    assert parent.data.metrics["best_validation_macro_f1"] == pytest.approx(sum(scores) / len(scores))
