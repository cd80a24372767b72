"""Processes that ask the same studies for trials at the same moment, as the workers of a sweep may."""

from __future__ import annotations

import multiprocessing
import random
from typing import Any

from tuneline.config import Recipe
from tuneline.search.space import Space, suggest
from tuneline.search.study import ask, open_study


def race(url: str, recipe: Recipe, space: Space, workers: int, budgets: dict[str, int]) -> None:
    """Have so many workers spend the budget of each study in turn, all of them at once; each trial ends at once.

    Args:
        url: the database.
        recipe: of the studies.
        space: of the studies.
        workers: processes.
        budgets: trials by the study's name.
    """
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(workers)
    processes = [
        spawn.Process(target=_work, args=(together, url, recipe, space, f"worker {number}", budgets))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * workers


def _work(together: Any, url: str, recipe: Recipe, space: Space, owner: str, budgets: dict[str, int]) -> None:
    for name, most in budgets.items():
        study, _ = open_study(url, name, recipe, space)
        together.wait(timeout=600)
        while trial := ask(study, owner, most):
            suggest(trial, space)
            study.tell(trial, random.random())
