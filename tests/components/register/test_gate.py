"""The gate asks the rules that are set, judges models on the same rows, and tells on what evidence it decided."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.components.register.conftest import predictions
from tuneline.config import Rules
from tuneline.predictions import Predictions, keys
from tuneline.register.gate import Evidence, Verdict, judge

METRICS = {"accuracy": 0.9, "macro_f1": 0.8, "calibration_error": 0.05, "latency_p99_ms": 12.5, "size_mb": 90.9}
NOTHING = Rules(beats_baseline=False, champion="ignore", slices=False)
GOOD = predictions(1000, range(100), range(50, 200))


def rules(**asked) -> Rules:
    return NOTHING.model_copy(update=asked)


def against(champion: Predictions, model: Predictions = GOOD, **more) -> Evidence:
    return Evidence(METRICS, model, champion, champion_version="3", champion_training=keys(["elsewhere"]), **more)


def alone(**metrics) -> Evidence:
    return Evidence(METRICS | metrics, GOOD)


def test_no_rule_asked_is_no_verdict():
    assert judge(against(GOOD), NOTHING) == []


def test_baseline_champion_and_slices_are_asked_by_default():
    assert [(verdict.rule, verdict.passed) for verdict in judge(alone(), Rules())] == [
        ("beats_baseline", True), ("not_worse", True), ("slices", True),
    ]  # fmt: skip


@pytest.mark.parametrize(("floor", "passed"), [(0.0, True), (0.89, True), (0.9, True), (0.9001, False), (1.0, False)])
def test_accuracy_has_to_reach_its_floor(floor, passed):
    verdicts = judge(alone(), rules(min_accuracy=floor))
    assert verdicts == [Verdict("min_accuracy", passed, f"accuracy 0.9000, needs {floor:g}")]


@pytest.mark.parametrize(("floor", "passed"), [(0.8, True), (0.85, False)])
def test_macro_f1_has_to_reach_its_floor(floor, passed):
    verdicts = judge(alone(), rules(min_macro_f1=floor))
    assert verdicts == [Verdict("min_macro_f1", passed, f"macro_f1 0.8000, needs {floor:g}")]


@pytest.mark.parametrize(
    ("rule", "ceiling", "passed", "told"),
    [
        ("max_calibration_error", 0.05, True, "calibration_error 0.05, needs at most 0.05"),
        ("max_calibration_error", 0.04, False, "calibration_error 0.05, needs at most 0.04"),
        ("max_latency_ms", 20.0, True, "latency_p99_ms 12.5, needs at most 20"),
        ("max_latency_ms", 10.0, False, "latency_p99_ms 12.5, needs at most 10"),
        ("max_size_mb", 100.0, True, "size_mb 90.9, needs at most 100"),
        ("max_size_mb", 90.0, False, "size_mb 90.9, needs at most 90"),
    ],
)
def test_calibration_latency_and_size_have_ceilings(rule, ceiling, passed, told):
    assert judge(alone(), rules(**{rule: ceiling})) == [Verdict(rule, passed, told)]


def test_a_ceiling_of_something_that_was_not_measured_is_not_met():
    (verdict,) = judge(Evidence({"accuracy": 0.9}, GOOD), rules(max_latency_ms=5.0))
    assert (verdict.passed, verdict.evidence) == (False, "latency_p99_ms was not measured, needs at most 5")


def test_the_baseline_is_beaten_on_the_same_rows():
    (verdict,) = judge(alone(), rules(beats_baseline=True))
    # 100 and 150 errors, 50 of them shared
    assert verdict == Verdict(
        "beats_baseline", True,
        "0.9000 against the baseline's 0.8500 (right alone in 100 and 50 of 1000 rows, exact McNemar p = 2.7e-05)",
    )  # fmt: skip


def test_rows_that_model_and_baseline_both_have_wrong_count_for_neither():
    (verdict,) = judge(Evidence(METRICS, predictions(1000, range(100), range(80, 250))), rules(beats_baseline=True))
    assert "(right alone in 150 and 80 of 1000 rows" in verdict.evidence


@pytest.mark.parametrize("baseline_wrong", [range(100), range(50, 151), range(50)])
def test_a_baseline_that_is_as_good_but_for_chance_is_not_beaten(baseline_wrong):
    (verdict,) = judge(Evidence(METRICS, predictions(1000, range(100), baseline_wrong)), rules(beats_baseline=True))
    assert not verdict.passed


@pytest.mark.parametrize("asked", ["better", "not_worse"])
def test_without_a_champion_what_compares_with_it_passes_and_says_so(asked):
    verdicts = judge(alone(), rules(champion=asked, slices=True))
    assert verdicts == [Verdict(rule, True, "no champion to compare with") for rule in (asked, "slices")]


@pytest.mark.parametrize(
    ("champion_wrong", "better", "not_worse"),
    [
        (range(160), True, True),  # 60 errors more, none less
        (
            range(50, 160),
            False,
            True,
        ),  # 60 and 50 errors of its own: chance, and the difference may be 1 point either way
        (range(100), False, True),  # the same answers
        (range(60), False, False),
    ],
)
def test_a_champion_is_judged_by_the_rows_in_which_the_two_differ(champion_wrong, better, not_worse):
    evidence = against(predictions(1000, champion_wrong))
    asked = {"better": better, "not_worse": not_worse}
    margin = 0.03
    found = {rule: judge(evidence, rules(champion=rule, margin=margin))[0].passed for rule in asked}
    assert found == asked


def test_the_verdict_on_the_champion_tells_difference_interval_test_and_how_often_the_test_set_was_used():
    (verdict,) = judge(against(predictions(1000, range(160)), decided_before=1), rules(champion="better"))
    assert verdict.evidence == (
        "accuracy +6.00 points [+4.69, +7.65] against champion version 3, lower end needs to be above 0 and p at most "
        "0.025; right alone in 60 and 0 of 1000 rows, exact McNemar p = 8.7e-19; this test set has "
        "decided 1 time before"
    )


def test_too_few_rows_are_told_with_how_many_it_would_take():
    model, champion = predictions(100, range(5)), predictions(100, range(3, 8))
    (verdict,) = judge(against(champion, model), rules(champion="not_worse", margin=0.01))
    assert not verdict.passed
    assert "about 4710 rows would show it of an equal model" in verdict.evidence


TIMES = "right alone in {} rows, exact McNemar p = {}; {}this test set has decided 0 times before"


@pytest.mark.parametrize(
    ("wrong", "champion_wrong", "asked", "told"),
    [
        (  # passed: nothing more is needed
            range(60), range(60), {"champion": "not_worse", "margin": 0.04},
            "accuracy +0.00 points [-3.70, +3.70] against champion version 3, lower end needs to be above -4; "
            + TIMES.format("0 and 0 of 100", "1", ""),
        ),
        (  # not shown, but no worse than the margin as measured: more rows may show it
            range(60), range(60), {"champion": "not_worse", "margin": 0.02},
            "accuracy +0.00 points [-3.70, +3.70] against champion version 3, lower end needs to be above -2; "
            + TIMES.format("0 and 0 of 100", "1", "about 197 rows would show it of an equal model; "),
        ),
        (  # as far below as the margin, and farther: more rows of an equal model are not what is missing
            range(2), range(0), {"champion": "not_worse", "margin": 0.02},
            "accuracy -2.00 points [-7.00, +1.77] against champion version 3, lower end needs to be above -2; "
            + TIMES.format("0 and 2 of 100", "1", ""),
        ),
        (  # the rows that would show it are of the test on accuracy
            range(2), range(2), {"champion": "not_worse", "margin": 0.01, "metric": "macro_f1"},
            "macro_f1 +0.00 points [-3.57, +3.57] against champion version 3, lower end needs to be above -1; "
            + TIMES.format("0 and 0 of 100", "1", "").replace("exact McNemar", "randomization"),
        ),
        (
            range(2), range(2), {"champion": "better"},
            "accuracy +0.00 points [-3.70, +3.70] against champion version 3, lower end needs to be above 0 and p at "
            "most 0.025; " + TIMES.format("0 and 0 of 100", "1", ""),
        ),
        (  # refused by the test, and the sentence tells its bound
            range(0), range(5), {"champion": "better"},
            "accuracy +5.00 points [+1.12, +11.18] against champion version 3, lower end needs to be above 0 and p at "
            "most 0.025; " + TIMES.format("5 and 0 of 100", "0.031", ""),
        ),
    ],
)  # fmt: skip
def test_a_verdict_tells_what_the_lower_end_needs_and_only_of_a_model_that_may_be_equal_how_many_rows(
    wrong, champion_wrong, asked, told
):
    (verdict,) = judge(against(predictions(100, champion_wrong), predictions(100, wrong)), rules(**asked))
    assert verdict.evidence == told


@pytest.mark.parametrize(("losses", "told"), [(199, True), (200, False), (201, False)])
def test_rows_that_would_show_it_are_told_up_to_the_margin_itself(losses, told):
    (verdict,) = judge(
        against(predictions(10_000, ()), predictions(10_000, range(losses))), rules(champion="not_worse", margin=0.02)
    )
    assert not verdict.passed
    assert ("would show it" in verdict.evidence) == told


def test_the_interval_that_is_told_is_the_one_that_decides():
    # Tango's interval ends at -0.84 points and the bootstrap's at -1: the farther one refuses
    model, champion = predictions(300, range(10)), predictions(300, range(100, 118))
    (verdict,) = judge(against(champion, model), rules(champion="not_worse", margin=0.009))
    assert not verdict.passed
    assert verdict.evidence.startswith("accuracy +2.67 points [-1.00, ")


def test_a_baseline_that_is_not_beaten_tells_what_was_missing():
    (verdict,) = judge(Evidence(METRICS, predictions(100, (), range(5))), rules(beats_baseline=True))
    assert verdict == Verdict(
        "beats_baseline", False,
        "1.0000 against the baseline's 0.9500 (right alone in 5 and 0 of 100 rows, exact McNemar p = 0.031), needs p "
        "of at most 0.025 and a lower end above 0 points, which is +1.12",
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_four_rows_that_two_models_answer_alike_show_nothing(metric):
    model = predictions(4, ())
    assert not judge(against(model, model), rules(champion="not_worse", margin=0.3, metric=metric))[0].passed
    two = predictions(2, ())
    assert not judge(against(predictions(2, range(2)), two), rules(champion="better", metric=metric))[0].passed


def test_a_macro_f1_that_is_not_shown_names_no_rows_which_were_counted_for_accuracy():
    model, champion = predictions(100, range(5)), predictions(100, range(3, 8))
    (verdict,) = judge(against(champion, model), rules(champion="not_worse", margin=0.01, metric="macro_f1"))
    assert not verdict.passed
    assert "would show it" not in verdict.evidence


def test_better_in_macro_f1_is_another_question_than_better_in_accuracy():
    # 40 errors fewer in the frequent class, 15 of the 50 rows of the rare one lost: more accurate, and lower macro F1
    labels = np.array([0] * 1950 + [1] * 50, np.int32)
    base = replace(predictions(2000, ()), labels=labels)
    model, champion = labels.copy(), labels.copy()
    model[1985:], champion[:40] = 0, 1
    one, other = replace(base, answers=model), replace(base, answers=champion)
    for first, second, accuracy, macro in ((one, other, True, False), (other, one, False, False)):
        found = [
            judge(against(second, first), rules(champion="better", metric=metric))[0].passed
            for metric in ("accuracy", "macro_f1")
        ]
        assert found == [accuracy, macro]
    better = replace(base, answers=np.where(np.arange(2000) < 1950, champion, labels))
    worse = replace(base, answers=np.where(np.arange(2000) < 1985, champion, 0))
    assert judge(against(worse, better), rules(champion="better", metric="macro_f1"))[0].passed


def test_equal_answers_on_few_rows_show_nothing():
    model = predictions(50, range(5))
    assert not judge(against(model, model), rules(champion="not_worse", margin=0.05))[0].passed
    assert judge(against(model, model), rules(champion="not_worse", margin=0.1))[0].passed


def test_macro_f1_may_be_what_is_compared():
    labels = np.array([0] * 950 + [1] * 50, np.int32)
    base = replace(GOOD, labels=labels)
    model = replace(base, answers=labels)
    champion = replace(base, answers=np.where(np.arange(1000) < 985, labels, 0).astype(np.int32))  # 15 of 50 missed
    (accuracy,) = judge(against(champion, model), rules(champion="not_worse", margin=0.001, metric="accuracy"))
    (macro,) = judge(against(model, champion), rules(champion="not_worse", margin=0.05, metric="macro_f1"))
    assert accuracy.passed
    assert not macro.passed
    assert macro.evidence.startswith("macro_f1 -9.")
    assert judge(against(model, champion), rules(champion="not_worse", margin=0.05))[0].passed


def test_a_champion_that_was_trained_on_test_rows_is_not_compared_with():
    evidence = replace(against(predictions(1000, range(160))), champion_training=keys(["text 5", "text 8", "other"]))
    verdicts = judge(evidence, rules(champion="better", slices=True))
    told = "comparison refused: the champion (version 3) has seen 2 of the 1000 test rows in training"
    assert verdicts == [Verdict("better", False, told), Verdict("slices", False, told)]


def test_what_the_champion_was_trained_on_being_unknown_is_told():
    evidence = replace(against(predictions(1000, range(160))), champion_training=None)
    (verdict,) = judge(evidence, rules(champion="better"))
    assert verdict.passed
    assert "whether the champion was trained on test rows is not known" in verdict.evidence


def test_why_a_champion_has_no_answers_is_told():
    told = "comparison refused: the champion (version 3) has no predictions on this test set: "
    assert judge(against(None), rules(champion="better")) == [Verdict("better", False, f"{told}none stored")]
    for note, why in (("", "none stored"), ("its files are gone", "its files are gone")):
        (verdict,) = judge(against(None, champion_note=note), rules(champion="better"))
        assert verdict == Verdict("better", False, told + why)


def test_one_test_row_in_the_champions_training_is_one_too_many():
    evidence = replace(against(GOOD), champion_training=keys(["text 999", "other", "text 999"]))
    (verdict,) = judge(evidence, rules(champion="not_worse"))
    assert (verdict.passed, verdict.evidence) == (
        False, "comparison refused: the champion (version 3) has seen 1 of the 1000 test rows in training",
    )  # fmt: skip


def test_of_a_champion_whose_training_rows_are_known_it_is_not_said_that_they_are_not():
    known = against(predictions(1000, range(160)))
    (verdict,) = judge(known, rules(champion="better"))
    (unknown,) = judge(replace(known, champion_training=None), rules(champion="better"))
    note = "; whether the champion was trained on test rows is not known; this test set"
    assert verdict.evidence == unknown.evidence.replace(note, "; this test set")
    assert note in unknown.evidence


@pytest.mark.parametrize(
    ("champion", "told"),
    [
        (None, "the champion (version 3) has no predictions on this test set"),
        (predictions(999, ()), "not the same test set"),
        (replace(GOOD, keys=GOOD.keys[::-1]), "not the same test set"),
        (replace(GOOD, labels=GOOD.labels ^ 1), "different labels"),
    ],
)
def test_a_champion_without_answers_to_these_very_rows_is_not_compared_with(champion, told):
    (verdict,) = judge(against(champion), rules(champion="not_worse"))
    assert not verdict.passed
    assert verdict.evidence.startswith("comparison refused: ")
    assert told in verdict.evidence


def test_a_slice_in_which_the_champion_is_better_beyond_chance_refuses():
    slices = {"length: 1 to 9 tokens": range(200), "label: pos": range(1, 1000, 2)}
    model, champion = predictions(1000, range(30), slices=slices), predictions(1000, range(500, 560))
    (verdict,) = judge(against(champion, model), rules(slices=True))
    assert verdict == Verdict(
        "slices", False,
        "2 slices, worse than the champion in 1: length: 1 to 9 tokens (right alone in 0 and 30 of 200 rows, "
        "p = 1.9e-09)",
    )  # fmt: skip


def test_a_row_that_both_have_right_counts_in_no_slice_against_the_model():
    # in the slice the model alone is wrong in 6 rows, the champion alone in 6, both in 40: chance
    slices = {"label: pos": range(200)}
    model = predictions(1000, range(46), slices=slices)
    champion = predictions(1000, [*range(6, 46), *range(100, 106), *range(500, 560)])
    assert judge(against(champion, model), rules(slices=True)) == [
        Verdict("slices", True, "1 slices, worse than the champion in 0")
    ]


def test_a_test_set_without_slices_has_none_in_which_the_champion_is_better():
    (verdict,) = judge(against(predictions(1000, ()), predictions(1000, range(60))), rules(slices=True))
    assert verdict == Verdict("slices", True, "0 slices, worse than the champion in 0")


@pytest.mark.parametrize(("count", "named", "more"), [(1, 1, False), (5, 5, False), (6, 5, True), (20, 5, True)])
def test_of_many_worse_slices_the_first_five_are_named_and_that_there_are_more(count, named, more):
    slices = {f"label: {number}": range(50 * number, 50 * number + 50) for number in range(count)}
    model, champion = predictions(1000, range(1000), slices=slices), predictions(1000, ())
    (verdict,) = judge(against(champion, model), rules(slices=True))
    told = [f"label: {number} (right alone in 0 and 50 of 50 rows" for number in range(count)]
    assert not verdict.passed
    assert verdict.evidence.startswith(f"{count} slices, worse than the champion in {count}: label: 0 (")
    assert [one in verdict.evidence for one in told] == [True] * named + [False] * (count - named)
    assert verdict.evidence.count("), label") == named - 1
    assert verdict.evidence.endswith(") and more" if more else ")")


def test_slices_are_judged_with_the_number_of_looks_in_mind():
    # One slice of 40 has 6 losses and no win, p = 0.016: no wonder among so many.
    slices = {f"label: {number}": range(25 * number, 25 * number + 25) for number in range(40)}
    model, champion = predictions(1000, range(6), slices=slices), predictions(1000, range(500, 506))
    assert judge(against(champion, model), rules(slices=True)) == [
        Verdict("slices", True, "40 slices, worse than the champion in 0")
    ]
    few = replace(model, slices={"label: 0": model.slices["label: 0"]})
    assert not judge(against(champion, few), rules(slices=True))[0].passed


def test_rules_are_judged_each_by_itself():
    verdicts = judge(alone(), rules(min_accuracy=0.95, min_macro_f1=0.5, beats_baseline=True))
    assert [(verdict.rule, verdict.passed) for verdict in verdicts] == [
        ("min_accuracy", False), ("min_macro_f1", True), ("beats_baseline", True),
    ]  # fmt: skip


def test_evidence_is_one_line_short_enough_for_a_tag():
    slices = {f"label: {'x' * 100} {number}": range(20 * number, 20 * number + 20) for number in range(50)}
    model, champion = predictions(1000, range(1000), slices=slices), predictions(1000, ())
    verdicts = judge(against(champion, model), Rules(min_accuracy=0.5))
    assert [verdict.rule for verdict in verdicts] == ["min_accuracy", "beats_baseline", "not_worse", "slices"]
    assert "worse than the champion in 50" in verdicts[-1].evidence
    for verdict in verdicts:
        assert "\n" not in verdict.evidence
        assert len(verdict.evidence) < 1000
