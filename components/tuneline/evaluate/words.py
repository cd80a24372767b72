"""The numbers of an evaluation as sentences for people: what the page says first, and what it says beside a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuneline.artifacts import PreparedData
from tuneline.comparison import Comparison
from tuneline.evaluate.findings import Evaluation

_KEPT = {
    "head": "its first {} tokens",
    "tail": "its last {} tokens",
    "head_tail": "{} tokens, a quarter of them from its head and the rest from its tail",
    "windows": "all of it, in overlapping windows of {} tokens, whose probabilities are averaged",
}


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        name: for people.
        hint: what it is, in a few words.
        percent: whether it is a share that is read as a percentage.
    """

    name: str
    hint: str
    percent: bool = True

    def shown(self, value: float) -> str:
        """A value."""
        return f"{100 * value:.1f}%" if self.percent else f"{value:.3f}"


METRICS = {
    "accuracy": Metric("Accuracy", "texts answered right"),
    "macro_f1": Metric("Macro F1", "mean over the classes, each counts alike"),
    "weighted_f1": Metric("Weighted F1", "mean over the classes, by their texts"),
    "micro_f1": Metric("Micro F1", "of all answers together"),
    "mcc": Metric("Matthews correlation", "0 is chance, 1 is perfect", percent=False),
    "log_loss": Metric("Log loss", "less is better", percent=False),
    "calibration_error": Metric("Calibration error", "how far confidence is off, less is better"),
    "roc_auc": Metric("ROC AUC", "one class against the rest", percent=False),
    "average_precision": Metric("Average precision", "one class against the rest", percent=False),
    "coverage": Metric("Coverage", "texts of which it was sure enough"),
    "answered_accuracy": Metric("Accuracy where sure", "right answers among those"),
    "cost": Metric("Mean cost", "of an answer, by the costs it decides by", percent=False),
}


PROBES = {
    "lower": "all in small letters",
    "upper": "ALL IN CAPITALS",
    "typos": "typos, in one letter of twenty",
    "whitespace": "spaces doubled, lines broken",
    "punctuation": "no punctuation",
}


def metric(name: str) -> Metric:
    """How to show it."""
    return METRICS.get(name, Metric(name, "", percent=False))


def verdict(result: Evaluation) -> str:
    """What the page says first: how often it is right, and how that stands against the linear baseline."""
    told = _right(result)
    kind, points = _against(result.against_baseline)
    if kind == "even":
        return f"{told}: no difference to the linear baseline is shown ({points})."
    return f"{told}: {kind} than the linear baseline, by {points}."


def kind(result: Evaluation) -> str:
    """worse than the baseline or the champion, better than one of them, or even with all that it was compared with."""
    compared = [result.against_baseline, *filter(None, [result.champion.get("compared")])]
    found = {_against(one)[0] for one in compared}
    return next(kind for kind in ("worse", "better", "even") if kind in found)


def silent(result: Evaluation) -> bool:
    """Whether some texts get no answer at all, which counts as a wrong one wherever all texts count."""
    return bool(result.decision.get("abstain_below")) and not result.decision["abstain_label"]


def _right(result: Evaluation) -> str:
    model = result.estimates["model"]
    value, low, high = (100 * number for number in model["accuracy"])
    if silent(result):
        answered, where_sure = 100 * model["coverage"][0], [100 * number for number in model["answered_accuracy"]]
        return (
            f"It answers {answered:.1f}% of the test texts, and {where_sure[0]:.1f}% of those right (95% interval "
            f"{where_sure[1]:.1f} to {where_sure[2]:.1f}). With no answer counted as wrong, {value:.1f}% are right"
        )
    return f"{value:.1f}% of the test texts are answered right (95% interval {low:.1f} to {high:.1f})"


def against_champion(champion: dict[str, Any]) -> str:
    """How it stands against the champion, in a sentence; none where there is no champion."""
    if not champion:
        return ""
    name = f"the champion {champion['name']}/{champion['version']}"
    if champion["note"]:
        return f"Not compared with {name}: {champion['note']}."
    kind, points = _against(champion["compared"])
    if kind == "even":
        return f"No difference to {name} is shown ({points})."
    return f"{kind.capitalize()} than {name}, by {points}."


def _against(compared: dict[str, Any]) -> tuple[str, str]:
    """better, worse or even, as the gate has it (Comparison.better), and by how many points."""
    found = Comparison.load(compared)
    value, least, most = (100 * number for number in found.difference())
    if found.better():
        return "better", f"{least:.1f} to {most:.1f} points"
    if found.worse():
        return "worse", f"{-most:.1f} to {-least:.1f} points"
    return "even", f"{value:+.1f} points, {least:+.1f} to {most:+.1f}, p = {found.p_value:.2g}"


def decision(found: dict[str, Any], estimates: dict[str, list[float]]) -> str:
    """How it makes an answer out of probabilities, and what that changes; none where it answers the most probable."""
    if not found:
        return ""
    told = []
    if found["thresholds"]:
        told.append(f"It weighs its {len(found['thresholds'])} labels by thresholds that were fitted on validation.")
    if found["costs"]:
        named = sum(map(len, found["costs"].values()))
        told.append(f"It gives the answer of the lowest expected cost, by {named} costs that the recipe names.")
    if found["abstain_below"]:
        label = f"it answers “{found['abstain_label']}”" if found["abstain_label"] else "it gives no answer"
        unsure = 100 * (1 - estimates["coverage"][0])
        told.append(
            f"Where its most probable label has less than {100 * found['abstain_below']:.1f}%, {label}: "
            f"{unsure:.1f}% of the test texts."
        )
    plain = found["plain"]
    told.append(
        f"The most probable label alone would be right in {100 * plain['accuracy']:.1f}%, macro F1 "
        f"{100 * plain['macro_f1']:.1f}%."
    )
    return " ".join(told)


def calibration(bins: list[dict[str, float]]) -> str:
    """Whether the confidence in the most probable label is too high, in a sentence."""
    rows = sum(row["n"] for row in bins)
    confidence = sum(row["n"] * row["confidence"] for row in bins) / rows
    right = sum(row["right"] for row in bins) / rows
    kind = "about as sure as it is right" if abs(confidence - right) < 0.02 else (
        "surer than it is right" if confidence > right else "right more often than it is sure"
    )  # fmt: skip
    return (
        f"Its most probable label has {100 * confidence:.1f}% on average and is right in {100 * right:.1f}%: it is "
        f"{kind}."
    )


def reading(manifest: PreparedData) -> str:
    """What the model reads of a text, in a sentence or two."""
    what = "pair of texts" if manifest.pairs else "text"
    kept = _KEPT[manifest.long_texts].format(manifest.max_length)
    cut, rows = manifest.truncated.get("test", 0), manifest.rows["test"]
    told = f"Of a long {what} it reads {kept}; {cut} of {rows} test texts are longer."
    return f"{told} Before reading, it cleans texts of: {', '.join(manifest.clean)}." if manifest.clean else told
