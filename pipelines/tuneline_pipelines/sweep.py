"""tuneline sweep: prepares data, opens study and MLflow run, lets the search work, and tells what came of it."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tuneline.config import Recipe
from tuneline.prepare.prepare import pin
from tuneline.search import report, study
from tuneline.search.budget import Budget
from tuneline.search.data import prepared
from tuneline.search.engine import Engine
from tuneline.search.origins import Origins
from tuneline.search.outcome import WINNER, conclude
from tuneline.search.record import SearchRun
from tuneline.search.space import readings, space_of, study_name
from tuneline.search.sweep import Sweep, reading
from tuneline_pipelines.outputs import check_file
from tuneline_pipelines.searching import closing, searching
from tuneline_pipelines.show import show_table
from tuneline_pipelines.state import State, lives, owner
from tuneline_pipelines.watch import Tell


@dataclass(frozen=True)
class Asked:
    """What the command was asked for.

    Attributes:
        recipe: what trials start from.
        budget: what may be spent.
        workers: trials at a time.
        storage: the study's database; empty takes an SQLite file of the state folder.
        name: of the study; empty takes one that stands for recipe, data and space.
        output: the recipe file to write; None takes one of the state folder.
    """

    recipe: Recipe
    budget: Budget
    workers: int = 1
    storage: str = ""
    name: str = ""
    output: Path | None = None


def sweep(asked: Asked, state: State, tell: Tell) -> dict[str, Any]:
    """Search to the budget's end.

    Args:
        asked: recipe and budget.
        state: where to keep it.
        tell: called with progress.

    Returns:
        The result, as `tuneline sweep --json` prints it.

    Raises:
        InputError: bad input, or no trial that could be trained.
        KeyboardInterrupt: stopped from outside; the same command goes on.
    """
    started, recipe, root = time.monotonic(), asked.recipe, state.home / "search"
    if asked.output:
        check_file("--output", asked.output, WINNER, "an earlier winner's recipe")
    with searching(state, tell, "sweep"):
        pinned = pin(recipe.data, recipe.model)
        first = prepared(recipe.data, recipe.model, root / "data", recipe.register_.name)
        space = space_of(recipe, first)
        data = {reading(one): prepared(one.data, one.model, root / "data", one.register_.name)
                for one in readings(space, recipe)}  # fmt: skip
        origins = Origins()
        origin = origins.of_all((data[reading(one)], one.model) for one in readings(space, recipe))
        name = asked.name or study_name(recipe, space, pinned, origin)
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        url = asked.storage or f"sqlite:///{root / 'studies.db'}"
        found, first_here = study.open_study(url, name, recipe, space, origin)
        known = "" if first_here else study.run_of(found)
        params = {"sweep_study": name, "sweep_budget": asked.budget.text, "sweep_metric": recipe.sweep.metric}
        run = SearchRun.open("sweep", recipe, params, state.artifacts, owner(), known, lives)
        found.set_user_attr(study.RUN, run.run_id)
        engine = Engine(folder, run, asked.workers, origins=origins)
        search = Sweep(recipe, space, data, asked.budget, engine, found, tell, owner(), lives, started)
        with closing(run, engine):
            search.run()
            return conclude(search, name, asked.output or folder / "best.yaml")


def show(console: Console, result: dict[str, Any]) -> None:
    """The finalists, and the next command to type."""
    titles = ("trial", f"validation {result['metric']}", "seeds", "seconds", "settings")
    rows = [
        [
            str(row["trial"]), report.interval(row["score"], row["low"], row["high"]), str(len(row["seeds"])),
            f"{row['seconds']:.1f}", report.spell(row["overrides"]),
        ]
        for row in result["finalists"]
    ]  # fmt: skip
    show_table(console, titles, rows, ("settings",), padding=2)
    console.print(result["sentence"], markup=False, soft_wrap=True)
    file = shlex.quote(result["best"]["recipe"])
    console.print(f"next      tuneline run {file}    or    tuneline ui", markup=False, soft_wrap=True)
