"""The finalists of a sweep: who they are, with which seeds they were trained, and how they rank over those.

Of several commands on one study each takes a training before it begins it, so that the others take other ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tuneline.config import Recipe
from tuneline.search import clock
from tuneline.search import study as studies
from tuneline.search.job import Result
from tuneline.search.paired import seeds_arm
from tuneline.statistics import Estimate, widened

if TYPE_CHECKING:
    import optuna

_FINAL = "final "
"""How an attribute of the study begins that holds a finalist's result with another seed."""
_TAKEN = "taken "
"""How the one begins that says who trains it meanwhile."""
SETTLE_SECONDS = 0.5
"""More than a database takes from one command's look to its word, unless it is away: then a training is done twice."""


def attribute(number: int, seed: int) -> str:
    """The study's attribute for the result of a finalist with another seed."""
    return f"{_FINAL}{number} {seed}"


def take(study: optuna.Study, result: str, owner: str, lives: Callable[[str], bool]) -> bool:
    """Take a finalist's training, unless another command, which is not over, has it.

    Of two that do so at the same moment the one has it whose name stands there a while later.

    Args:
        study: the study.
        result: attribute() of the training.
        owner: who wants it.
        lives: whether a command still runs, as far as can be seen from here.
    """
    if note := study.user_attrs.get(f"{_TAKEN}{result}"):
        whose = note["owner"]
        heard = dict(clock.spent(study)).get(whose, {})
        if whose != owner and not clock.over(whose, heard | {"at": max(note["at"], heard.get("at", 0.0))}, lives):
            return False
    study.set_user_attr(f"{_TAKEN}{result}", {"owner": owner, "at": time.time()})
    time.sleep(SETTLE_SECONDS)
    return (study.user_attrs[f"{_TAKEN}{result}"] or {}).get("owner") == owner


def give_back(study: optuna.Study, result: str) -> None:
    """Leave a training that was not done to others."""
    study.set_user_attr(f"{_TAKEN}{result}", None)


def trained(study: optuna.Study) -> int:
    """How many trainings of finalists with other seeds the study knows."""
    return sum(key.startswith(_FINAL) for key in study.user_attrs)


def finalists(study: optuna.Study, recipe: Recipe) -> list[optuna.trial.FrozenTrial]:
    """The best trials, of which the recipe says how many."""
    return studies.ranked(study)[: recipe.sweep.finalists]


def untrained(study: optuna.Study, recipe: Recipe) -> list[tuple[optuna.trial.FrozenTrial, int]]:
    """Finalists and the other seeds that they lack: all of them with one seed, then with the next."""
    known, best = study.user_attrs, finalists(study, recipe)
    return [
        (trial, seed) for seed in other_seeds(recipe) for trial in best if attribute(trial.number, seed) not in known
    ]


def other_seeds(recipe: Recipe) -> range:
    """The seeds that finalists are trained with beside the search's own."""
    first = recipe.train.seed
    return range(first + 1, first + recipe.sweep.seeds)


def by_seed(study: optuna.Study, recipe: Recipe, trial: optuna.trial.FrozenTrial) -> dict[int, Result]:
    """A finalist's results, of the search and with other seeds."""
    rows = {recipe.train.seed: trial.user_attrs[studies.RESULT]}
    for seed in other_seeds(recipe):
        if row := study.user_attrs.get(attribute(trial.number, seed)):
            rows[seed] = row
    return {seed: Result.of(row) for seed, row in rows.items()}


def comparable(trained: dict[int, set[int]]) -> tuple[set[int], set[int]]:
    """Seeds to compare finalists over, and the numbers of those that have them all.

    A finalist is left out rather than have it cut the others to the seed that each was chosen by, which flatters them.

    Args:
        trained: seeds by the finalist's number, the best first.
    """
    most, *others = sorted(trained, key=lambda number: -len(trained[number]))
    seeds, kept = trained[most], {most}
    for number in others:
        common = seeds & trained[number]
        if len(common) > 1 or common == seeds:
            seeds, kept = common, {*kept, number}
    return seeds, kept


def standing(trial: optuna.trial.FrozenTrial, results: list[Result], metric: str) -> dict[str, Any]:
    """A finalist: the mean over seeds of the score, with a 95% interval for other rows and other seeds.

    What the rows and what the seeds make of the mean are independent, and their arms add as squares do. The rows' arm
    is the mean over seeds of each training's own, because all are scored on the same rows; the seeds' is Student's t,
    with one degree of freedom less than seeds, times the standard error of the mean. With one seed only the rows are
    in it.
    """
    scores, lows, highs = (list(ends) for ends in zip(*(result.value(metric) for result in results), strict=True))
    of_rows = Estimate(fmean(scores), fmean(lows), fmean(highs))
    score, low, high = widened(of_rows, seeds_arm(scores), 0.0, float("inf") if metric == "loss" else 1.0)
    return {
        "trial": trial.number, "overrides": trial.user_attrs[studies.OVERRIDES],
        "score": score, "low": low, "high": high,
        "scores": scores, "seeds": [result.seed for result in results],
        "seconds": fmean(result.seconds for result in results),
    }  # fmt: skip
