"""Which candidate of `tuneline choose` to take: the cheapest one that the best is not shown to beat, in a sentence."""

from __future__ import annotations

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
    """The cheapest candidate that the best fine-tuned one does not beat beyond chance, and a sentence that says so.

    The linear baseline first; else whatever answers soonest, and of the same checkpoint the frozen one, which has to be
    trained least.

    Args:
        candidates: of Choosing.run; the first is the best fine-tuned one.
        labels: of the validation rows.
        classes: how many there are.
        metric: accuracy or macro_f1.
    """
    best = candidates[0]
    rivals = [one for one in candidates[1:] if one.how != TUNED or one.round == best.round]
    over = {id(one): compare(labels, best.answers, one.answers, classes) for one in rivals}
    alike = [one for one in rivals if not over[id(one)].better(metric)]
    quicker = QUICKER * (best.latency_ms or 0.0)
    cheaper = [one for one in alike if one.how != TUNED or (one.latency_ms or 0.0) < quicker]
    if not cheaper:
        return best, _nothing_cheaper(best, rivals, alike, metric, len(labels))
    one = min(cheaper, key=lambda one: (one.how != BAG, one.latency_ms or 0.0, one.how != FROZEN))
    found = over[id(one)]
    return one, (
        f"Take {_what(one)}: {best.model}, fine-tuned on {best.rows} rows ({_figure(best, metric)}), does not beat it "
        f"({one.metrics[metric][0]:.4f}) beyond chance on {len(labels)} validation rows, "
        f"{signed(found.difference(metric))}{_faster(one, best)}.{_not_ruled_out(found, metric)}"
    )


def _what(one: Candidate) -> str:
    if one.how == BAG:
        return "the linear baseline, or more labels"
    return f"{one.model} frozen under a logistic head" if one.how == FROZEN else one.model


def _faster(one: Candidate, best: Candidate) -> str:
    times = (best.latency_ms or 0.0) / max(one.latency_ms or 0.0, 1e-9)
    return f", and it answers {times:.1f} times as quickly" if one.how != BAG and times > 1 / QUICKER else ""


def _not_ruled_out(found: Comparison, metric: str) -> str:
    """That is not to say that they are equally good."""
    high = found.difference(metric)[2]
    if high <= MUCH:
        return ""
    return f" That it is {100 * high:.0f} points better is not ruled out; more validation rows would tell."


def _nothing_cheaper(best: Candidate, rivals: list[Candidate], alike: list[Candidate], metric: str, rows: int) -> str:
    take = f"Take {best.model}: {_figure(best, metric)}"
    rival = next((one for one in rivals if one.how == TUNED), None)
    if rival is None:
        return f"{take}, beyond chance better than the linear baseline on {rows} validation rows."
    over = "not beyond chance" if rival in alike else "beyond chance"
    return (
        f"{take}; {rival.model} comes to {rival.metrics[metric][0]:.4f} ({over} worse on {rows} validation rows), the "
        f"linear baseline to {rivals[-1].metrics[metric][0]:.4f}."
    )


def _figure(one: Candidate, metric: str) -> str:
    return f"validation {metric.replace('_', ' ')} {one.metrics[metric][0]:.4f}"


def settings(one: Candidate) -> str:
    """What to set in a recipe for it; "" for the baseline. A head that is trained is the nearest to a logistic one."""
    if one.how == BAG:
        return ""
    return f"model.name={one.model}{' train.tune=head' if one.how == FROZEN else ''}"
