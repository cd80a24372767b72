"""Which candidate of `tuneline choose` to take: the cheapest one that the best is not shown to beat, in a sentence."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tuneline.comparison import Comparison, compare
from tuneline.search.choose import BAG, FROZEN, TUNED, Candidate
from tuneline.search.report import signed

if TYPE_CHECKING:
    import numpy as np

QUICKER = 0.9
"""Of the best one's milliseconds, from which on another counts as quicker."""
MUCH = 0.02
"""A difference that is worth more validation rows, where so few cannot rule it out."""


def recommend(candidates: list[Candidate], labels: np.ndarray, classes: int, metric: str) -> tuple[Candidate, str]:
    """The cheapest candidate that the best one does not beat beyond chance, and a sentence that says so.

    The linear baseline is the cheapest; else whatever answers soonest, and of the same checkpoint the frozen one, which
    has to be trained least.

    Args:
        candidates: of Choosing.run; the first is the best fine-tuned one. Those that were given up early are passed by.
        labels: of the validation rows.
        classes: how many there are.
        metric: accuracy or macro_f1.
    """
    last = [one for one in candidates if one.how != TUNED or one.round == candidates[0].round]
    best = max(last, key=lambda one: one.metrics[metric][0])  # of equals the first, which is fine-tuned
    rivals = [one for one in last if one is not best]
    over = {id(one): compare(labels, best.answers, one.answers, classes) for one in rivals}
    alike = [one for one in rivals if not over[id(one)].better(metric)]
    cheaper = [one for one in alike if _cheaper(one, best)]
    rows = f"on {len(labels)} validation rows"
    if not cheaper:
        return best, _nothing_cheaper(best, rivals, alike, metric, rows)
    one = min(cheaper, key=lambda one: (one.how != BAG, one.latency_ms or 0.0, one.how != FROZEN))
    found = over[id(one)]
    return one, (
        f"Take {_advised(one)}: {_what(best)} ({_figure(best, metric)}) does not beat it "
        f"({one.metrics[metric][0]:.4f}) beyond chance {rows}, {signed(found.difference(metric))}{_faster(one, best)}."
        f"{_not_ruled_out(found, metric)}"
    )


def _cheaper(one: Candidate, than: Candidate) -> bool:
    """Whether it is trained with less, or answers sooner."""
    if BAG in (one.how, than.how):
        return one.how == BAG
    latency, other = one.latency_ms or 0.0, than.latency_ms or 0.0
    return latency < QUICKER * other or (one.how == FROZEN and than.how == TUNED and latency * QUICKER <= other)


def _advised(one: Candidate) -> str:
    return "the linear baseline, or more labels" if one.how == BAG else _what(one)


def _what(one: Candidate) -> str:
    if one.how == BAG:
        return one.model
    return (
        f"{one.model}, fine-tuned on {one.rows} rows"
        if one.how == TUNED
        else f"{one.model} frozen under a logistic head"
    )


def _faster(one: Candidate, best: Candidate) -> str:
    times = (best.latency_ms or 0.0) / max(one.latency_ms or 0.0, 1e-9)
    return f", and it answers {times:.1f} times as quickly" if one.how != BAG and times > 1 / QUICKER else ""


def _not_ruled_out(found: Comparison, metric: str) -> str:
    """That is not to say that they are equally good."""
    high = found.difference(metric)[2]
    if high <= MUCH:
        return ""
    return f" That it is {100 * high:.0f} points better is not ruled out; more validation rows would tell."


def _nothing_cheaper(best: Candidate, rivals: list[Candidate], alike: list[Candidate], metric: str, rows: str) -> str:
    take = f"Take {_advised(best)}: {_figure(best, metric)}"
    rival = max((one for one in rivals if one.how != BAG), key=lambda one: one.metrics[metric][0], default=None)
    linear = next((one for one in rivals if one.how == BAG), None)
    if rival is None:
        return f"{take}, beyond chance better than the linear baseline {rows}."
    over = "not beyond chance" if rival in alike else "beyond chance"
    told = f"{take}; {_what(rival)} comes to {rival.metrics[metric][0]:.4f} ({over} worse {rows})"
    return f"{told}, the linear baseline to {linear.metrics[metric][0]:.4f}." if linear else f"{told}."


def _figure(one: Candidate, metric: str) -> str:
    return f"validation {metric.replace('_', ' ')} {one.metrics[metric][0]:.4f}"


def settings(one: Candidate) -> str:
    """What to add to a command for it; "" for the baseline. A head that is trained is the nearest to a logistic one."""
    if one.how == BAG:
        return ""
    return shlex.join([f"model.name={one.model}", *(["train.tune=head"] if one.how == FROZEN else [])])
