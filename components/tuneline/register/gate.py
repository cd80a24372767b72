"""The rules that a model must meet to hold an alias, each with its verdict and evidence."""

from __future__ import annotations

from dataclasses import dataclass

from tuneline.config import Rules


@dataclass(frozen=True)
class Verdict:
    """One rule's outcome."""

    rule: str
    passed: bool
    evidence: str


def judge(metrics: dict[str, float], rules: Rules) -> list[Verdict]:
    """A verdict for each rule that is asked.

    Args:
        metrics: accuracy, macro_f1, baseline_accuracy of the evaluation.
        rules: what is asked.
    """
    verdicts = []
    for rule, metric, floor in (
        ("min_accuracy", "accuracy", rules.min_accuracy),
        ("min_macro_f1", "macro_f1", rules.min_macro_f1),
    ):
        if floor is not None:
            verdicts.append(Verdict(rule, metrics[metric] >= floor, f"{metric} {metrics[metric]:.4f}, needs {floor:g}"))
    if rules.beats_baseline:
        model, baseline = metrics["accuracy"], metrics["baseline_accuracy"]
        verdicts.append(
            Verdict("beats_baseline", model > baseline, f"{model:.4f} against the baseline's {baseline:.4f}")
        )
    return verdicts
