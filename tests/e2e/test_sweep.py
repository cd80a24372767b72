"""tuneline sweep as a stranger runs it: killed outright, gone on with, stopped, and its winner run."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from tests.conftest import reviews, trials_in
from tests.e2e.conftest import Project
from tuneline.search import study as studies
from tuneline_pipelines.cli import app

pytestmark = pytest.mark.medium


def words(checkpoint: Path, *more: str) -> list[str]:
    return ["sweep", "text", "data.train=rows.csv", "data.validation_share=0.3", f"model.name={checkpoint}",
            "model.max_length=16", "train.epochs=4", "train.learning_rate=5e-3", "register.name=reviews",
            *more]  # fmt: skip


@pytest.fixture
def reviewed(project: Project) -> Project:
    with (project.folder / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *reviews(300)])
    return project


def studies_of(project: Project) -> list[Any]:
    """The trials that the study holds by now."""
    return trials_in(project.folder / ".tuneline" / "search" / "studies.db")


def wait_for(project: Project, process: Any, complete: int) -> None:
    """Until so many trials are complete and another one is under way."""
    for _ in range(600):
        assert process.poll() is None, process.stderr.read()
        states = [trial.state.name for trial in studies_of(project)]
        if states.count("COMPLETE") + states.count("PRUNED") >= complete and "RUNNING" in states:
            return
        time.sleep(0.3)
    raise AssertionError("no trial came to its end")


@pytest.mark.slow
def test_a_sweep_that_was_killed_outright_loses_what_was_under_way_and_the_same_command_goes_on(
    reviewed: Project, tiny_checkpoint: Path
) -> None:
    command = words(tiny_checkpoint, "--budget", "9trials", "--workers", "2", "--json")
    process = reviewed.start(*command)
    below = psutil.Process(process.pid)
    wait_for(reviewed, process, complete=2)
    children = below.children(recursive=True)
    process.kill()
    process.communicate()
    before = studies_of(reviewed)
    assert psutil.wait_procs(children, timeout=60)[1] == []  # no trial outlives its command
    done = reviewed.tuneline(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 1
    result = json.loads(done.stdout)
    after = {row["number"]: row for row in result["trials"]}
    kept = [trial.number for trial in before if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len(kept) >= 2
    assert all(after[number]["state"] in ("complete", "pruned") for number in kept)
    under_way = [trial for trial in before if trial.state.name == "RUNNING"]
    # One that was killed before it had its owner's name is taken for a slow worker's for a minute.
    nobodys = [trial.number for trial in under_way if studies.OWNER not in trial.user_attrs]
    states = {trial.number: after[trial.number]["state"] for trial in under_way}
    assert all(state == "lost" or (state == "running" and number in nobodys) for number, state in states.items())
    counts = result["counts"]
    assert counts["running"] == list(states.values()).count("running")
    assert sum(counts[state] for state in ("complete", "pruned", "failed", "finals", "running")) == 9
    _check_mlflow(reviewed, result)
    _check_winner(reviewed, result)


def _check_mlflow(project: Project, result: dict[str, Any]) -> None:
    parent = project.store.get_run(result["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["tuneline.pipeline"] == "sweep"
    assert parent.data.metrics["best_validation_macro_f1"] == pytest.approx(result["best"]["score"])
    runs = project.store.search_runs([parent.info.experiment_id], "tags.`tuneline.step` = 'trial'")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {result["run_id"]}
    assert "RUNNING" not in {run.info.status for run in runs}
    finished = [run for run in runs if run.info.status == "FINISHED" and "tuneline.pruned" not in run.data.tags]
    assert all({"validation_macro_f1", "seconds"} <= set(run.data.metrics) for run in finished)
    # the kill may fall between the making of a run and the writing of its parameters
    assert all("train_learning_rate" in run.data.params for run in runs if run.info.status == "FINISHED")
    stored = {file.path for file in project.store.list_artifacts(result["run_id"])}
    assert {"pareto.png", "sweep.html", "trials.json", "best.yaml"} <= stored
    (work,) = (project.folder / ".tuneline" / "search").glob("reviews-*")
    page = (work / "sweep.html").read_text(encoding="utf-8")
    assert "the test split was not looked at" in page
    assert result["best"]["overrides"]["train.tune"] in page


def _check_winner(project: Project, result: dict[str, Any]) -> None:
    """Nothing of the search held the test split; the winner's recipe runs, and that reads it."""
    search = project.folder / ".tuneline" / "search"
    assert list(search.rglob("train.arrow"))
    assert list(search.rglob("test.arrow")) == []
    best = result["best"]
    tree = yaml.safe_load(Path(best["recipe"]).read_text(encoding="utf-8"))
    assert tree["train"]["learning_rate"] == best["overrides"]["train.learning_rate"]
    run = project.succeed("run", best["recipe"], "register.rules.beats_baseline=false")
    assert run["data"]["rows"]["test"] > 0
    assert run["metrics"]["accuracy"] > 0.6


def test_ctrl_c_ends_trials_and_runs_and_tells_the_line_that_goes_on(reviewed: Project, tiny_checkpoint: Path) -> None:
    command = words(tiny_checkpoint, "train.epochs=300", "sweep.pruner=none", "--budget", "9trials")
    process = reviewed.start(*command)
    children: list[psutil.Process] = []
    for _ in range(600):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        if [trial for trial in studies_of(reviewed) if trial.intermediate_values]:
            break
        time.sleep(0.3)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    last = told.strip().splitlines()[-1]
    assert last.startswith(
        "error: stopped; what was finished is kept, and this goes on from there: tuneline sweep text"
    )
    assert "--budget 9trials" in last
    assert psutil.wait_procs(children, timeout=60)[1] == []
    runs = reviewed.store.search_runs([e.experiment_id for e in reviewed.store.search_experiments()])
    assert {run.info.status for run in runs} == {"KILLED"}
    states = [trial.state.name for trial in studies_of(reviewed)]
    assert states == ["FAIL", *["WAITING"] * 4]  # three that were to be tried next, and the one that was stopped


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("sweep.space={train.learning_rat: [1]}", "sweep.space: train.learning_rat: unknown key; did you mean train.l"),
        ("sweep.space={train.epochs: {low: 5, high: 2}}", "low 5 and high 2 given; two numbers, the lower one first"),
        ("sweep.space={balance: [smote]}", "sweep.space: balance: 'smote' given; allowed: none, class_weights"),
        ("sweep.space={train.tune: [most]}", "sweep.space: train.tune: 'most' given; input should be 'all'"),
        ("sweep.pruners=none", "sweep.pruners: unknown key; did you mean pruner?"),
        ("sweep.space={train.seed: [1, 2]}", "train.seed is not searched: finalists are repeated over seeds"),
    ],
)
def test_a_bad_key_of_sweep_is_one_line_before_anything_is_made(
    override: str, told: str, own_store: Path, reviews_csv: Path
) -> None:
    done = CliRunner().invoke(app, ["sweep", "text", f"data.train={reviews_csv}", override])
    assert done.exit_code == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not own_store.exists()


def test_a_bad_budget_and_a_bad_database_are_one_line(
    own_store: Path, reviews_csv: Path, tiny_checkpoint: Path
) -> None:
    words = ["sweep", "text", f"data.train={reviews_csv}", f"model.name={tiny_checkpoint}", "model.max_length=16"]
    done = CliRunner().invoke(app, [*words, "--budget", "a week"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "2h, 30m, 20trials, 5usd" in done.stderr
    done = CliRunner().invoke(app, [*words, "--storage", "nosql://there", "--json"])
    assert done.exit_code == 2
    assert "--storage: nosql://there" in json.loads(done.stdout)["error"]
    shutil.rmtree(own_store)
