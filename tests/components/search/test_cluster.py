"""The sweep pipeline's steps: what a killed pod leaves is taken up, and each finalist is repeated once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from kfp import dsl

from tests.conftest import ROOT, trials_in, until
from tuneline.artifacts import PreparedData
from tuneline.config import Recipe
from tuneline.recipe import validate
from tuneline.search import study as studies
from tuneline.search.clock import SPENT
from tuneline.search.cluster import (
    STORAGE,
    Asked,
    _joined,
    conclude_step,
    pinned,
    prepare_step,
    rank_step,
    repeat_step,
    search_step,
    written,
)
from tuneline.search.sweep import reading

pytestmark = pytest.mark.medium

SPACE = {"train.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}
BLOCK = {"space": SPACE, "pruner": "none", "finalists": 2, "seeds": 2}


def with_sweep(recipe: Recipe, block: dict[str, Any], **train: Any) -> Recipe:
    tree = recipe.model_dump(by_alias=True, mode="json", exclude_unset=True)
    return validate(Recipe, tree | {"sweep": block, "train": tree["train"] | train})


class Pods:
    """Runs the pipeline's steps in this process, as a run of it would; a worker's next try has its name."""

    def __init__(self, recipe: Recipe, folder: Path, budget: str, job: str = "job") -> None:
        self.recipe, self.folder, self.budget, self.job = recipe, folder, budget, job
        self.data = dsl.Dataset(uri=str(folder / "data"))
        self.plan = dsl.Artifact(uri=str(folder / "plan"))
        self.tries = 0

    def arguments(self) -> dict[str, Any]:
        return {"plan": self.plan, "recipe": written(self.recipe), "budget": self.budget, "study": "",
                "job": self.job, "workers": ["1", "2"]}  # fmt: skip

    def prepare(self) -> None:
        prepare_step(self.data, self.plan, written(self.recipe), pinned(self.recipe))

    def search(self, worker: str) -> None:
        search_step(self.data, self._trials(), worker, **self.arguments())

    def repeat(self, share: dict[str, Any]) -> None:
        repeat_step(self.data, self._trials(), share, **self.arguments())

    def _trials(self) -> Any:
        self.tries += 1
        return dsl.Artifact(uri=str(self.folder / "trials" / str(self.tries)))

    @property
    def study(self) -> Any:
        name = json.loads((self.folder / "plan").read_text())["study"]
        return optuna.load_study(study_name=name, storage=os.environ[STORAGE])


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    monkeypatch.setenv(STORAGE, url)
    return url


@pytest.fixture
def pods(recipe: Recipe, store: Any, database: str, tmp_path: Path) -> Pods:
    made = Pods(with_sweep(recipe, BLOCK, epochs=1), tmp_path / "pods", "5trials")
    made.prepare()
    return made


def runs_of(store: Any) -> list[Any]:
    return store.search_runs([store.get_experiment_by_name("reviews").experiment_id])


def test_data_is_prepared_for_every_model_that_is_searched_and_none_holds_the_test_split(
    recipe: Recipe, store: Any, tmp_path: Path
) -> None:
    chosen = with_sweep(recipe, {"space": SPACE | {"model.max_length": [12, 8]}})
    pods = Pods(chosen, tmp_path / "pods", "5trials")
    pods.prepare()
    folders = {path.name: PreparedData.load(path) for path in (tmp_path / "pods" / "data").iterdir()}
    assert sorted(manifest.max_length for manifest in folders.values()) == [8, 12, 16]
    assert folders[reading(chosen)].max_length == 16
    assert list(tmp_path.rglob("test.arrow")) == []
    planned = json.loads((tmp_path / "pods" / "plan").read_text())
    assert planned["study"].startswith("reviews-")
    assert planned["study"] == pods.data.metadata["study"]


def test_data_that_changed_since_the_pipeline_was_compiled_is_refused(
    recipe: Recipe, store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = pinned(recipe)
    with Path(recipe.data.train).open("a") as file:
        file.write("one more,pos\n")
    with pytest.raises(SystemExit) as ended:
        prepare_step(
            dsl.Dataset(uri=str(tmp_path / "d")), dsl.Artifact(uri=str(tmp_path / "p")), written(recipe), known
        )
    assert ended.value.code == 2
    assert "changed since this pipeline was compiled; compile it again" in capsys.readouterr().out


def test_the_prepare_image_suffices_for_the_first_step(recipe: Recipe, tmp_path: Path) -> None:
    program = """
import sys
for name in ("torch", "transformers", "optuna", "sqlalchemy", "sklearn", "matplotlib", "psycopg2"):
    sys.modules[name] = None
from pathlib import Path
from types import SimpleNamespace
from tuneline.search.cluster import prepare_step
outputs = [SimpleNamespace(path=path, metadata={}) for path in sys.argv[1:3]]
prepare_step(*outputs, sys.argv[3], "")
"""
    chosen = with_sweep(recipe, {})
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "data"), str(tmp_path / "plan"), written(chosen)],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "components")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train.learning_rate" in json.loads((tmp_path / "plan").read_text())["space"]


def test_a_whole_sweep_repeats_each_finalist_once_and_ends_its_one_run(pods: Pods, store: Any, tmp_path: Path) -> None:
    pods.search("2")  # quicker to start than the one that leads
    pods.search("1")
    shares = rank_step(**pods.arguments())
    trainings = [tuple(training) for share in shares for training in share["trainings"]]
    assert len(trainings) == len(set(trainings)) == 1  # a third of the budget
    shares = json.loads(json.dumps(shares), parse_int=float)  # as KFP hands them on
    for share in shares:
        pods.repeat(share)
        pods.repeat(share)  # a try too many trains nothing again
    outputs = [dsl.Artifact(uri=str(tmp_path / "best.yaml")), dsl.HTML(uri=str(tmp_path / "page.html"))]
    shown = dsl.Metrics(uri=str(tmp_path / "metrics"))
    assert parent_of(store).info.status == "RUNNING"
    conclude_step(*outputs, shown, **pods.arguments())
    runs = runs_of(store)
    parent = parent_of(store)
    assert parent.info.status == "FINISHED"
    assert len(runs) == 1 + 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert shown.metadata["validation_macro_f1"] == parent.data.metrics["best_validation_macro_f1"]
    assert "learning_rate" in (tmp_path / "best.yaml").read_text()
    assert "The Pareto front" in (tmp_path / "page.html").read_text()


def test_the_recipe_s_own_values_are_tried_once_whoever_comes_first(pods: Pods) -> None:
    pods.budget = "2trials"
    pods.recipe = with_sweep(pods.recipe, BLOCK | {"seeds": 1}, epochs=1)
    pods.search("2")
    pods.budget = "4trials"
    pods.search("1")
    tried = [trial for trial in pods.study.trials if studies.state_of(trial) != "repeated"]
    rates = [trial.params["train.learning_rate"] for trial in tried]
    assert rates.count(pods.recipe.train.learning_rate) == 1
    assert len(set(rates)) == len(rates) == 4


def test_a_worker_s_next_try_takes_up_what_its_dead_one_was_training_and_leaves_what_others_train(pods: Pods) -> None:
    pods.budget = "1trials"
    pods.search("1")
    study = pods.study
    study.enqueue_trial({"train.learning_rate": 2e-3})  # which repeats no other
    for owner in ("job/worker 1@dead", "job/worker 2@alive", "job/worker 10@alive", "other/worker 1@alive"):
        trial = study.ask()
        trial.set_user_attr(studies.OWNER, owner)
        trial.suggest_float("train.learning_rate", 1e-3, 1e-2, log=True)
    dead = study.trials[1].params
    pods.budget = "8trials"
    pods.search("1")
    states = [studies.state_of(trial) for trial in pods.study.trials]
    assert states[:5] == ["complete", "lost", "running", "running", "running"]
    assert pods.study.trials[5].params == dead
    assert states[5] == "complete"


def test_a_pod_s_seconds_are_its_own_and_those_of_its_dead_tries_and_of_the_steps_before(
    pods: Pods, tmp_path: Path
) -> None:
    pods.budget = "1h"
    asked = Asked.of(**pods.arguments())
    with _joined(asked, "worker 1", tmp_path / "first") as sweep:
        told = {"at": time.time(), "ended": True}
        sweep.study.set_user_attr(f"{SPENT}job/worker 1@dead", {"seconds": 100.0, **told})
        sweep.study.set_user_attr(f"{SPENT}job/worker 1@older", 50.0)  # as an older version told it
        sweep.study.set_user_attr(f"{SPENT}job/worker 2@ended", {"seconds": 1000.0, **told})
        sweep.study.set_user_attr(f"{SPENT}other/worker 1@ended", {"seconds": 5000.0, **told})

    def elapsed(who: str, *after: str) -> float:
        with _joined(asked, who, tmp_path / who, after=after) as joined:
            return joined.clock.elapsed

    assert elapsed("worker 1") == pytest.approx(150, abs=30)
    assert elapsed("worker 3") == pytest.approx(0, abs=30)
    assert elapsed("repeat 0", "worker") == pytest.approx(1000, abs=30)


def test_a_study_takes_no_trials_of_weights_that_were_overwritten_under_their_name(
    overwritten: Any, store: Any, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, overwrite = overwritten
    pods = Pods(with_sweep(recipe, BLOCK | {"seeds": 1}, epochs=1), tmp_path / "pods", "1trials")
    pods.prepare()
    pods.search("1")
    overwrite()
    with pytest.raises(SystemExit) as ended:
        pods.search("2")
    assert ended.value.code == 2
    assert "holds trials of other weights, or of another version's code; give another name" in capsys.readouterr().out
    assert [studies.state_of(trial) for trial in pods.study.trials] == ["complete"]


@pytest.mark.slow
def test_a_worker_that_is_killed_outright_and_started_again_ends_the_search_as_if_nothing_had_happened(
    recipe: Recipe, store: Any, database: str, tmp_path: Path
) -> None:
    long = with_sweep(recipe, BLOCK | {"seeds": 1}, epochs=20)
    pods = Pods(long, tmp_path / "pods", "3trials")
    pods.prepare()
    program = """
import json, sys
from kfp import dsl
from tuneline.search.cluster import search_step
given = json.loads(sys.argv[1])
plan = dsl.Artifact(uri=given.pop("plan"))
search_step(dsl.Dataset(uri=sys.argv[2]), dsl.Artifact(uri=sys.argv[3]), "1", plan=plan, **given)
"""
    given = json.dumps(pods.arguments() | {"plan": pods.plan.uri})
    environment = os.environ | {"PYTHONPATH": str(ROOT / "components")}

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, given, pods.data.uri, str(tmp_path / name)]
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    first, found = start("one"), tmp_path / "studies.db"

    def learns() -> bool:
        """A trial has come to its first epoch."""
        assert first.poll() is None, first.stdout.read() if first.stdout else ""
        return any(trial.intermediate_values and trial.state.name == "RUNNING" for trial in trials_in(found))

    until(learns, 600, 0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    told, _ = start("two").communicate(timeout=600)
    states = [state for trial in pods.study.trials if (state := studies.state_of(trial)) != "repeated"]
    assert states.count("lost") == 1, told
    assert states.count("complete") == 3, told
    assert len(states) == 4
    assert "1 trials that were under way" in told


def parent_of(store: Any) -> Any:
    (parent,) = [run for run in runs_of(store) if "mlflow.parentRunId" not in run.data.tags]
    return parent


def test_a_pod_that_fails_ends_the_run_as_failed_in_one_line(
    recipe: Recipe, store: Any, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"train.class_weights": [True], "train.sampling": ["balanced"]}
    pods = Pods(with_sweep(recipe, {"space": space}), tmp_path / "pods", "9trials")
    pods.prepare()
    with pytest.raises(SystemExit) as ended:
        pods.search("1")
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tuneline: error: ")]
    assert "no trial could be trained; the last one: " in line
    assert parent_of(store).info.status == "FAILED"
    assert "no trial could be trained" in parent_of(store).data.tags["tuneline.error"]


def test_a_run_that_another_pod_s_failure_ended_is_open_again_while_a_next_try_works(pods: Pods, store: Any) -> None:
    pods.budget = "1trials"
    pods.search("1")
    store.set_terminated(parent_of(store).info.run_id, "FAILED")
    pods.search("2")
    assert parent_of(store).info.status == "RUNNING"


def test_before_any_trial_is_complete_there_is_nothing_to_rank(
    pods: Pods, store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        rank_step(**pods.arguments())
    assert ended.value.code == 2
    assert "5trials were spent before a trial was trained to its end" in capsys.readouterr().out


def test_with_one_seed_a_single_share_without_trainings_is_left(pods: Pods, store: Any) -> None:
    pods.recipe = with_sweep(pods.recipe, BLOCK | {"seeds": 1}, epochs=1)
    pods.budget = "1trials"
    pods.search("1")
    assert rank_step(**pods.arguments()) == [{"share": 0, "trainings": []}]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"workers": []}, "workers: [] given"),
        ({"budget": "much"}, "--budget: 'much' given"),
        ({"recipe": "{"}, "recipe: not JSON"),
        ({"recipe": '{"data": {"train": "x"}, "trian": {}}'}, "trian: unknown key; did you mean train?"),
    ],
)
def test_bad_arguments_of_a_run_are_one_line(
    pods: Pods, changed: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        rank_step(**pods.arguments() | changed)
    assert ended.value.code == 2
    assert told in capsys.readouterr().out


def test_a_pod_without_the_database_s_secret_says_which_one(
    pods: Pods, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(STORAGE)
    with pytest.raises(SystemExit) as ended:
        rank_step(**pods.arguments())
    assert ended.value.code == 2
    assert f"{STORAGE}: not set; name a Secret" in capsys.readouterr().out
