"""Which finalists of a sweep can be compared, and over which seeds."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from tuneline.search import study as studies
from tuneline.search.job import Result

if TYPE_CHECKING:
    import optuna


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
    """A finalist: the mean over seeds of the score and of the ends of its intervals."""
    ends = list(zip(*(result.value(metric) for result in results), strict=True))
    score, low, high = (fmean(values) for values in ends)
    return {
        "trial": trial.number, "overrides": trial.user_attrs[studies.OVERRIDES],
        "score": score, "low": low, "high": high,
        "scores": list(ends[0]), "seeds": [result.seed for result in results],
        "seconds": fmean(result.seconds for result in results),
    }  # fmt: skip
