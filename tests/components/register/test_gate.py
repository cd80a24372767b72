"""The gate asks the rules that are set, and tells on what evidence it decided."""

from __future__ import annotations

import pytest

from tuneline.config import Rules
from tuneline.register.gate import Verdict, judge

METRICS = {"accuracy": 0.9, "macro_f1": 0.8, "baseline_accuracy": 0.85, "baseline_macro_f1": 0.99}


def test_only_the_baseline_is_asked_by_default():
    assert judge(METRICS, Rules()) == [Verdict("beats_baseline", True, "0.9000 against the baseline's 0.8500")]


def test_no_rule_asked_is_no_verdict():
    assert judge(METRICS, Rules(beats_baseline=False)) == []


@pytest.mark.parametrize(("floor", "passed"), [(0.0, True), (0.89, True), (0.9, True), (0.9001, False), (1.0, False)])
def test_accuracy_has_to_reach_its_floor(floor, passed):
    verdicts = judge(METRICS, Rules(min_accuracy=floor, beats_baseline=False))
    assert verdicts == [Verdict("min_accuracy", passed, f"accuracy 0.9000, needs {floor:g}")]


@pytest.mark.parametrize(("floor", "passed"), [(0.8, True), (0.85, False)])
def test_macro_f1_has_to_reach_its_floor(floor, passed):
    verdicts = judge(METRICS, Rules(min_macro_f1=floor, beats_baseline=False))
    assert verdicts == [Verdict("min_macro_f1", passed, f"macro_f1 0.8000, needs {floor:g}")]


@pytest.mark.parametrize(("baseline", "passed"), [(0.8999, True), (0.9, False), (0.95, False)])
def test_the_baseline_has_to_be_exceeded_and_not_just_reached(baseline, passed):
    (verdict,) = judge(METRICS | {"baseline_accuracy": baseline}, Rules())
    assert (verdict.rule, verdict.passed) == ("beats_baseline", passed)


def test_rules_are_judged_each_by_itself():
    verdicts = judge(METRICS, Rules(min_accuracy=0.95, min_macro_f1=0.5))
    assert [(verdict.rule, verdict.passed) for verdict in verdicts] == [
        ("min_accuracy", False), ("min_macro_f1", True), ("beats_baseline", True),
    ]  # fmt: skip
