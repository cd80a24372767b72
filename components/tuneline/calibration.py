"""From probabilities to answers: temperature, thresholds, costs and abstention, all fitted on the validation split.

Training, evaluation and serving meet here, so that what was evaluated is what answers.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import Decision
from tuneline.config import DecisionConfig
from tuneline.errors import InputError
from tuneline.predictions import NONE
from tuneline.thresholds import SMALLEST, fit_thresholds

if TYPE_CHECKING:
    import numpy as np

COLDEST, HOTTEST = 0.05, 20.0
SHOWN = 10
"""Labels that a message names."""


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray, windows: Sequence[int] | None = None) -> float:
    """The temperature that minimizes the log loss (Guo et al. 2017), between 0.05 and 20; above 1 softens.

    That it is not far from 1 counts as much as one row does (a normal prior on its logarithm): a few rows that all are
    answered right would ask for the least there is. The log loss is never higher than at 1.

    Args:
        probabilities: [rows, classes] of validation rows, whose logarithms serve as logits.
        labels: [rows] class indices.
        windows: rows of each text, one after the other, whose mean is the text's answer; None where a row is a text.
    """
    import numpy as np

    logits = np.log(np.clip(probabilities.astype(float), SMALLEST, 1.0))
    true = logits[np.arange(len(labels)), labels]
    counts = np.array(windows if windows is not None else [1] * len(labels))
    starts = counts.cumsum() - counts

    def slope(cold: float) -> float:
        """The derivative of log loss and prior by the logarithm of 1 / temperature, of which cold is e to the power."""
        weights = np.exp(cold * (logits - logits.max(1, keepdims=True)))
        expected = (weights * logits).sum(1) / weights.sum(1)
        chance = cold * (true - logits.max(1)) - np.log(weights.sum(1))
        share = np.exp(chance - np.maximum.reduceat(chance, starts).repeat(counts))
        texts = np.add.reduceat(share * (expected - true), starts) / np.add.reduceat(share, starts)
        return float(cold * texts.sum() + np.log(cold))

    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(float(np.exp(middle))) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def decide(
    probabilities: np.ndarray,
    thresholds: np.ndarray | None = None,
    costs: np.ndarray | None = None,
    abstain_below: float = 0.0,
    abstain: int = NONE,
) -> np.ndarray:
    """The answers, int32 [rows]: the most probable class, where nothing else is given.

    Args:
        probabilities: [rows, classes].
        thresholds: [classes], above 0: the class that exceeds its threshold most, as a ratio, is answered. For two
            classes, t and 1 - t answer the one of threshold t from probability t on.
        costs: [classes, classes], what it costs to answer the column of a text of the row: the answer of the lowest
            expected cost (Elkan 2001). Not together with thresholds.
        abstain_below: probability of the most probable class below which `abstain` is answered.
        abstain: the class for texts out of scope, or NONE.
    """
    import numpy as np

    if costs is not None:
        answers = (probabilities @ costs).argmin(1)
    elif thresholds is not None:
        answers = (probabilities / thresholds).argmax(1)
    else:
        answers = probabilities.argmax(1)
    return np.where(probabilities.max(1) < abstain_below, abstain, answers).astype(np.int32)


def answers(decision: Decision, probabilities: np.ndarray) -> np.ndarray:
    """A model's answers, int32 [rows], indices into its labels; NONE where it abstains without a label.

    The one road from probabilities to answers: evaluation, the champion's comparison and every prediction take it.
    """
    import numpy as np

    names = decision.labels
    return decide(
        probabilities,
        np.array([decision.thresholds[name] for name in names]) if decision.thresholds else None,
        cost_matrix(decision.costs, names) if decision.costs else None,
        decision.abstain_below,
        names.index(decision.abstain_label) if decision.abstain_label else NONE,
    )


def cost_matrix(costs: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """What it costs to answer the column of a text of the row: as named, else 1, and 0 for the right answer."""
    import numpy as np

    place = {name: index for index, name in enumerate(names)}
    found = 1.0 - np.eye(len(names))
    for true, of in costs.items():
        for told, cost in of.items():
            found[place[true], place[told]] = cost
    return found


def check(settings: DecisionConfig, names: Sequence[str]) -> None:
    """Refuse labels that the data do not have, before a training rather than after it.

    Raises:
        InputError: names the key, the label and what is allowed.
    """
    costs = [name for true, of in settings.costs.items() for name in (true, *of)]
    label = [settings.abstain_label] if settings.abstain_label else []
    for key, given in (("costs", costs), ("abstain_label", label)):
        if strange := [name for name in given if name not in names]:
            close = difflib.get_close_matches(strange[0], names, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            raise InputError(f"train.decision.{key}: {strange[0]!r} is no label of the data; {hint}they are: {shown}")


def fit(
    settings: DecisionConfig, names: Sequence[str], probabilities: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """What Decision holds of thresholds, costs and abstention, fitted as the recipe asks.

    Args:
        settings: the recipe's.
        names: label names.
        probabilities: [texts, classes] of the validation split, calibrated.
        labels: [texts] class indices.
    """
    found: dict[str, Any] = {"costs": settings.costs, "abstain_label": settings.abstain_label}
    thresholds = None
    if settings.thresholds != "none":
        thresholds = fit_thresholds(probabilities, labels, settings.thresholds)
        found["thresholds"] = dict(zip(names, thresholds.tolist(), strict=True))
    told = decide(probabilities, thresholds, cost_matrix(settings.costs, names) if settings.costs else None)
    return found | {"abstain_below": _abstain_below(settings, names, probabilities, labels, told)}


def _abstain_below(
    settings: DecisionConfig, names: Sequence[str], probabilities: np.ndarray, labels: np.ndarray, told: np.ndarray
) -> float:
    confidence, right = probabilities.max(1), told == labels
    if settings.abstain_below is not None:
        return settings.abstain_below
    if settings.abstain_precision is not None:
        return precision_threshold(confidence, right, settings.abstain_precision)
    if settings.abstain_coverage is not None:
        return coverage_threshold(confidence, settings.abstain_coverage)
    if settings.abstain_label:
        return fit_abstention(confidence, right, labels == names.index(settings.abstain_label))
    return 0.0


def fit_abstention(confidence: np.ndarray, right: np.ndarray, out_of_scope: np.ndarray) -> float:
    """The probability below which answering with the class for what is out of scope is right most often; 0 for none.

    Args:
        confidence: [rows], probability of the most probable class of validation rows.
        right: bool [rows], whether the answer would be right.
        out_of_scope: bool [rows], whether the row is of that class.
    """
    import numpy as np

    order = np.argsort(confidence, kind="stable")
    gained = np.cumsum(out_of_scope[order].astype(int) - right[order])
    last = _borders(confidence[order])
    best = int(last[gained[last].argmax()])
    return _between(confidence[order], best) if gained[best] > 0 else 0.0


def precision_threshold(confidence: np.ndarray, right: np.ndarray, wanted: float) -> float:
    """The lowest probability from which on answers are right so often; where they never are, that of the most often.

    Args:
        confidence: [rows], probability of the most probable class of validation rows.
        right: bool [rows], whether the answer is right.
        wanted: share of the answers.
    """
    import numpy as np

    order = np.argsort(confidence, kind="stable")
    rows = len(order)
    starts = np.concatenate([[0], _borders(confidence[order])[:-1] + 1])  # answered from here on
    precision = np.cumsum(right[order][::-1])[::-1][starts] / (rows - starts)
    reached = np.flatnonzero(precision >= wanted)
    first = int(starts[reached[0] if len(reached) else precision.argmax()])
    return _between(confidence[order], first - 1) if first else 0.0


def coverage_threshold(confidence: np.ndarray, wanted: float) -> float:
    """The highest probability at which at least so many of the rows are answered; 0 answers all."""
    import numpy as np

    ordered = np.sort(confidence)
    starts = np.concatenate([[0], _borders(ordered)[:-1] + 1])
    enough = starts[(len(ordered) - starts) >= wanted * len(ordered) - 1e-9]
    return _between(ordered, int(enough[-1]) - 1) if enough[-1] else 0.0


def _borders(ordered: np.ndarray) -> np.ndarray:
    """The last of each run of equal values: a threshold can only stand between two different ones."""
    import numpy as np

    return np.flatnonzero(np.diff(ordered, append=np.inf) > 0)


def _between(ordered: np.ndarray, last: int) -> float:
    """A value above that at `last`, and not above the next one or, after the last, 1 or the next number there is."""
    import numpy as np

    value = ordered[last]
    after = ordered[last + 1] if last + 1 < len(ordered) else max(np.ones_like(value), np.nextafter(value, np.inf))
    middle = (value + after) / 2
    return float(middle if middle > value else after)  # between neighbours there is no number
