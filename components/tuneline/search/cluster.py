"""The steps of the sweep pipeline, tuneline_pipelines/sweep_dag.py: `tuneline sweep` in pods that share a study.

prepare -> search, a pod a worker -> rank -> repeat, a pod a share of the finalists' trainings -> conclude

Any pod may be killed and started again. What it was training is proposed again: at once by its next try, which knows
the dead one by its name (KFP starts a try after the one before has ended), and after five minutes without a heartbeat
by anybody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import PreparedData, read_json, write_json
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.prepare.prepare import pin
from tuneline.progress import say
from tuneline.recipe import validate
from tuneline.search import outcome
from tuneline.search.budget import Budget
from tuneline.search.clock import spent
from tuneline.search.data import without_test
from tuneline.search.engine import Engine
from tuneline.search.origins import Origins
from tuneline.search.record import SearchRun
from tuneline.search.space import Space, readings, space_from, space_given, space_of, study_name, told
from tuneline.search.study import RUN, open_study, run_of
from tuneline.search.sweep import Sweep, reading
from tuneline.step import Artifact, Metrics, guarded
from tuneline.tracking import EXPERIMENT

if TYPE_CHECKING:
    import optuna

STORAGE = "TUNELINE_SWEEP_STORAGE"
"""Environment variable: the study's database."""
SAY_SECONDS = 60.0
"""How often a pod's log is told how far the search is."""


@dataclass(frozen=True)
class Asked:
    """What the pipeline was asked for; the steps take its arguments as KFP hands them to the components.

    Attributes:
        recipe: what trials start from.
        budget: trials of all pods together, or seconds in which they search side by side.
        study: its name.
        space: what is searched.
        job: the pipeline run's id.
        workers: the pods that search.
    """

    recipe: Recipe
    budget: Budget
    study: str
    space: Space
    job: str
    workers: list[str]

    @classmethod
    def of(cls, plan: Artifact, recipe: str, budget: str, study: str, job: str, workers: list[str]) -> Asked:
        """From a component's arguments.

        Raises:
            InputError: a bad recipe or budget, or no workers.
        """
        if not workers:
            raise InputError("workers: [] given; a list of names, one a pod")
        planned = read_json(Path(plan.path))
        space = space_from(planned["space"])
        return cls(read(recipe), Budget.parse(budget), study or planned["study"], space, job, workers)


def written(recipe: Recipe) -> str:
    """The recipe as an argument: JSON, because KFP makes floats of whole numbers in a mapping."""
    return json.dumps(recipe.model_dump(by_alias=True, mode="json", exclude_unset=True))


def read(text: str) -> Recipe:
    """The recipe of an argument.

    Raises:
        InputError: it is none.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise InputError(f"recipe: not JSON: {error}") from None
    return validate(Recipe, tree)


def variants(recipe: Recipe) -> list[Recipe]:
    """The recipe, and it with every combination of model.* that its sweep.space names.

    Raises:
        InputError: a combination that is not to be had.
    """
    models = {key: spec for key, spec in space_given(recipe).items() if key.startswith("model.")}
    return [recipe, *readings(models, recipe)]


def pinned(recipe: Recipe) -> str:
    """A content hash of all that prepare_step reads, or "" where a source can change under its name.

    Raises:
        InputError: a source or a checkpoint is missing.
    """
    pins = [pin(one.data, one.model) for one in variants(recipe)]
    return hashlib.sha256("".join(pins).encode()).hexdigest() if all(pins) else ""


@guarded()
def prepare_step(data: Artifact, plan: Artifact, recipe: str, data_pin: str) -> None:
    """The KFP component's work: data for every value of model.*, without a test split; and what will be searched."""
    chosen, root = read(recipe), Path(data.path)
    if data_pin and pinned(chosen) != data_pin:
        raise InputError("data: a source or a tokenizer changed since this pipeline was compiled; compile it again")
    first = root / reading(chosen)
    without_test(chosen.data, chosen.model, first)
    space = space_of(chosen, first)
    for one in readings(space, chosen):
        if not (folder := root / reading(one)).is_dir():
            without_test(one.data, one.model, folder)
    manifest = PreparedData.load(first)
    name = study_name(chosen, space, manifest.sha256["all"] + manifest.tokenizer_sha256)
    data.metadata |= {"rows": manifest.rows["train"] + manifest.rows["validation"], "study": name}
    say(f"[prepare] study {name}: {', '.join(space)}")
    write_json(Path(plan.path), {"study": name, "space": told(space)})


@guarded()
def search_step(data: Artifact, trials: Artifact, worker: str, **asked_for: Any) -> None:
    """The KFP component's work: prepared data in; trials to the study, and what they left here out."""
    asked = Asked.of(**asked_for)
    with _joined(asked, f"worker {worker}", Path(trials.path), Path(data.path)) as sweep:
        sweep.search()
        mine = [row for row in outcome.rows_of(sweep) if row["owner"] == sweep.owner]
        write_json(Path(trials.path) / outcome.ROWS, mine)
        trials.metadata |= {"study": asked.study, "trials": len(mine)}


@guarded()
def rank_step(**asked_for: Any) -> list[dict[str, Any]]:
    """The KFP component's work: the finalists' trainings that are still to do, a share a pod; one share at least."""
    asked = Asked.of(**asked_for)
    with tempfile.TemporaryDirectory() as folder, _joined(asked, "rank", Path(folder)) as sweep:
        for row in sweep.standings():
            say(f"[rank] trial {row['trial']}: {row['score']:.4f}")
        waiting = [[trial.number, seed] for trial, seed in sweep.finals()]
    pods = max(1, min(len(asked.workers), len(waiting)))
    return [{"share": number, "trainings": waiting[number::pods]} for number in range(pods)]


@guarded()
def repeat_step(data: Artifact, trials: Artifact, share: dict[str, Any], **asked_for: Any) -> None:
    """The KFP component's work: a share of the finalists' trainings with other seeds."""
    asked = Asked.of(**asked_for)
    who, trainings = f"repeat {int(share['share'])}", [(int(number), int(seed)) for number, seed in share["trainings"]]
    with _joined(asked, who, Path(trials.path), Path(data.path), after=("worker",)) as sweep:
        known = {trial.number: trial for trial in sweep.study.get_trials(deepcopy=False)}
        sweep.repeat([(known[number], seed) for number, seed in trainings])
        write_json(Path(trials.path) / outcome.ROWS, [{"number": number, "seed": seed} for number, seed in trainings])
        trials.metadata |= {"study": asked.study, "trainings": len(trainings)}


@guarded()
def conclude_step(best: Artifact, report: Artifact, metrics: Metrics, **asked_for: Any) -> None:
    """The KFP component's work: the winner's recipe and the page, here and on the MLflow run, which ends."""
    asked = Asked.of(**asked_for)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _joined(asked, "conclude", folder, after=("worker", "repeat")) as sweep:
            result = outcome.conclude(sweep, asked.study, folder / "best.yaml")
            shutil.copy(folder / "best.yaml", best.path)
            shutil.copy(folder / outcome.PAGE, report.path)
            sweep.engine.run.close("FINISHED")
    winner = result["best"]
    metrics.log_metric(f"validation_{result['metric']}", winner["score"])
    best.metadata |= {"study": asked.study, "mlflow_run": result["run_id"], "overrides": winner["overrides"]}
    say(f"[conclude] {result['sentence']}")


@contextmanager
def _joined(
    asked: Asked, who: str, folder: Path, data: Path | None = None, after: tuple[str, ...] = ()
) -> Iterator[Sweep]:
    """This pod's part in the study, and in its MLflow run: conclude_step ends that, or a pod that fails.

    Args:
        asked: what the pipeline was asked for.
        who: what the pod is to the pipeline's run; its next try has the same name.
        folder: for answers, logs and results.
        data: prepared data.
        after: the kinds of pods whose seconds are spent already.
    """
    tries = f"{asked.job}/{who}@"
    owner = f"{tries}{uuid.uuid4().hex[:12]}"
    folders = {path.name: path for path in data.iterdir() if path.is_dir()} if data else {}
    origins, origin = Origins(), ""
    if data:
        origin = origins.of_all((folders[reading(one)], one.model) for one in readings(asked.space, asked.recipe))
    study, first = open_study(_storage(), asked.study, asked.recipe, asked.space, origin)
    run = _run(asked, "" if first else run_of(study))
    study.set_user_attr(RUN, run.run_id)
    sweep = Sweep(
        asked.recipe, asked.space, folders, asked.budget, Engine(folder, run, origins=origins), study, _teller(), owner,
        lambda known: known == owner or not known.startswith(tries), beside=len(asked.workers),
        before=_earlier(study, tries) + sum(_spent(study, asked.job, kind) for kind in after),
    )  # fmt: skip
    try:
        yield sweep
    except BaseException as error:
        sweep.engine.stop.set()
        run.fail(error)
        raise


def _storage() -> str:
    if url := os.environ.get(STORAGE):
        return url
    raise InputError(f"{STORAGE}: not set; name a Secret that holds it under secrets of the profile")


def _run(asked: Asked, known: str) -> SearchRun:
    """The study's MLflow run, open; KFP's own plugin would inject one that ends with its pod."""
    recipe = asked.recipe
    params = {"sweep_study": asked.study, "sweep_budget": asked.budget.text, "sweep_metric": recipe.sweep.metric,
              "sweep_workers": len(asked.workers)}  # fmt: skip
    experiment = os.environ.get(EXPERIMENT) or recipe.register_.name
    return SearchRun.open("sweep", recipe, params, None, asked.job, known, experiment=experiment)


def _earlier(study: optuna.Study, tries: str) -> float:
    """Seconds that the dead tries of a pod took; those of the pods beside it run with its own."""
    return sum(note["seconds"] for whose, note in spent(study) if whose.startswith(tries))


def _spent(study: optuna.Study, job: str, kind: str) -> float:
    """Seconds that the pods of a kind took, which work side by side; the tries of one follow on each other."""
    start, seconds = f"{job}/{kind} ", defaultdict[str, float](float)
    for whose, note in spent(study):
        if whose.startswith(start):
            seconds[whose.removeprefix(start).partition("@")[0]] += note["seconds"]
    return max(seconds.values(), default=0.0)


def _teller() -> Callable[[str, int, int, str], None]:
    """Says what happened at once, and how far the search is once in a while."""
    said = float("-inf")

    def tell(step: str, done: int, total: int, note: str) -> None:
        nonlocal said
        if not total:
            say(f"[{step}] {note}")
        elif time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            say(f"[{step}] {done}/{total} {note}")

    return tell
