"""The rules that a model must meet to hold an alias, each with its verdict and evidence.

Models are compared on the same rows, never by stored numbers: two accuracies tell nothing of how far chance goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneline.config import Rules
from tuneline.errors import InputError
from tuneline.predictions import Predictions, contaminated

if TYPE_CHECKING:
    import numpy as np

    from tuneline.comparison import Comparison


SHOWN_SLICES = 5


@dataclass(frozen=True)
class Verdict:
    """One rule's outcome."""

    rule: str
    passed: bool
    evidence: str


@dataclass(frozen=True)
class Evidence:
    """What the rules are judged on.

    Attributes:
        metrics: of the evaluation: accuracy, macro_f1, calibration_error, latency_p99_ms, size_mb.
        predictions: of the model, on the test rows.
        champion: of the champion on the same rows; None where there is no champion, or none of its could be had.
        champion_version: empty where there is no champion: then the rules that compare pass, and say so.
        champion_training: keys of the champion's training rows; None where they were not stored.
        champion_note: why none of its answers could be had.
        decided_before: how often this test set has decided about this model.
    """

    metrics: dict[str, float]
    predictions: Predictions
    champion: Predictions | None = None
    champion_version: str = ""
    champion_training: np.ndarray | None = None
    champion_note: str = ""
    decided_before: int = 0


def judge(evidence: Evidence, rules: Rules) -> list[Verdict]:
    """A verdict for each rule that is asked.

    Args:
        evidence: the evaluation, and what is known of the champion.
        rules: what is asked.
    """
    return [*_limits(evidence.metrics, rules), *_against_baseline(evidence, rules), *_against_champion(evidence, rules)]


def _limits(metrics: dict[str, float], rules: Rules) -> Iterator[Verdict]:
    for rule, metric, floor in (
        ("min_accuracy", "accuracy", rules.min_accuracy),
        ("min_macro_f1", "macro_f1", rules.min_macro_f1),
    ):
        if floor is not None:
            yield Verdict(rule, metrics[metric] >= floor, f"{metric} {metrics[metric]:.4f}, needs {floor:g}")
    for rule, metric, ceiling in (
        ("max_calibration_error", "calibration_error", rules.max_calibration_error),
        ("max_latency_ms", "latency_p99_ms", rules.max_latency_ms),
        ("max_size_mb", "size_mb", rules.max_size_mb),
    ):
        if ceiling is not None and metric not in metrics:
            yield Verdict(rule, False, f"{metric} was not measured, needs at most {ceiling:g}")
        elif ceiling is not None:
            yield Verdict(
                rule, metrics[metric] <= ceiling, f"{metric} {metrics[metric]:.4g}, needs at most {ceiling:g}"
            )


def _against_baseline(evidence: Evidence, rules: Rules) -> Iterator[Verdict]:
    from tuneline.comparison import compare
    from tuneline.statistics import ALPHA

    if rules.beats_baseline:
        rows = evidence.predictions
        found = compare(rows.labels, rows.answers, rows.baseline, len(rows.names))
        model, baseline = (estimate.value for estimate in found.accuracy)
        told = f"{model:.4f} against the baseline's {baseline:.4f} ({_counted(found)})"
        if not (passed := found.better()):
            low = 100 * found.difference().low
            told += f", needs p of at most {ALPHA:.3g} and a lower end above 0 points, which is {low:+.2f}"
        yield Verdict("beats_baseline", passed, told)


def _against_champion(evidence: Evidence, rules: Rules) -> Iterator[Verdict]:
    from tuneline.comparison import compare

    asked = [rule for rule in (rules.champion, "slices" if rules.slices else "ignore") if rule != "ignore"]
    if not asked:
        return
    if not evidence.champion_version:
        yield from (Verdict(rule, True, "no champion to compare with") for rule in asked)
        return
    rows = evidence.predictions
    try:
        champion = _champion(evidence)
    except InputError as refusal:
        yield from (Verdict(rule, False, f"comparison refused: {refusal}") for rule in asked)
        return
    if rules.champion != "ignore":
        found = compare(rows.labels, rows.answers, champion, len(rows.names))
        yield _paired(found, evidence, rules)
    if rules.slices:
        yield _slices(rows, champion)


def _champion(evidence: Evidence) -> np.ndarray:
    """The champion's answers, where comparing with it is fair."""
    name = f"champion (version {evidence.champion_version})"
    if evidence.champion_training is not None:
        seen = contaminated(evidence.predictions.keys, evidence.champion_training)
        if seen:
            raise InputError(
                f"the {name} has seen {seen} of the {len(evidence.predictions.keys)} test rows in training"
            )
    if evidence.champion is None:
        raise InputError(f"the {name} has no predictions on this test set: {evidence.champion_note or 'none stored'}")
    return evidence.predictions.answers_of(evidence.champion)


def _paired(found: Comparison, evidence: Evidence, rules: Rules) -> Verdict:
    from tuneline.statistics import ALPHA

    better = rules.champion == "better"
    passed = found.better(rules.metric) if better else found.not_worse(rules.margin, rules.metric)
    macro = rules.metric == "macro_f1"
    value, low, high = (100 * number for number in found.difference(rules.metric))
    wanted = f"above 0 and p at most {ALPHA:.3g}" if better else f"above -{100 * rules.margin:g}"
    told = [
        f"{rules.metric} {value:+.2f} points [{low:+.2f}, {high:+.2f}] against champion version "
        f"{evidence.champion_version}, lower end needs to be {wanted}",
        _counted(found, rules.metric),
    ]
    if not passed and not better and value > -100 * rules.margin and not macro:
        told.append(f"about {found.needed(rules.margin)} rows would show it of an equal model")
    if evidence.champion_training is None:
        told.append("whether the champion was trained on test rows is not known")
    told.append(_times(evidence.decided_before))
    return Verdict(rules.champion, passed, "; ".join(told))


def _times(before: int) -> str:
    return f"this test set has decided {before} time{'' if before == 1 else 's'} before"


def _counted(found: Comparison, metric: str = "accuracy") -> str:
    """Of how many rows the difference consists, and the p-value by which `better` is decided."""
    macro = metric == "macro_f1"
    p = f"randomization p = {found.p_better_macro_f1:.2g}" if macro else f"exact McNemar p = {found.p_better:.2g}"
    return f"right alone in {found.wins} and {found.losses} of {found.rows} rows, {p}"


def _slices(rows: Predictions, champion: np.ndarray) -> Verdict:
    """No slice in which the champion is better beyond chance, at 5% over all slices together."""
    import numpy as np

    from tuneline.statistics import LEVEL, holm, mcnemar

    right, other = rows.answers == rows.labels, champion == rows.labels
    wins = np.array([(right & ~other & part).sum() for part in rows.slices.values()], int)
    losses = np.array([(other & ~right & part).sum() for part in rows.slices.values()], int)
    p_values = holm(mcnemar(losses, wins))
    worse = [
        f"{name} (right alone in {won} and {lost} of {part.sum()} rows, p = {p:.2g})"
        for (name, part), won, lost, p in zip(rows.slices.items(), wins, losses, p_values, strict=True)
        if p <= 1 - LEVEL
    ]
    told = f"{len(rows.slices)} slices, worse than the champion in {len(worse)}"
    named = ", ".join(worse[:SHOWN_SLICES]) + (" and more" if len(worse) > SHOWN_SLICES else "")
    return Verdict("slices", not worse, f"{told}: {named}" if worse else told)
