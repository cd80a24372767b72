"""Two models on the same rows: by hand, by exact tests, and against simulated models whose truth is known."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from tests.simulation import below, compared, coverage, declared_better, world
from tuneline.comparison import Comparison, compare
from tuneline.statistics import ALPHA, Estimate, mcnemar, score_interval

pytestmark = pytest.mark.medium

EQUAL = world(0.90, 0.90, unequal=0.07)
APART = world(0.91, 0.89, unequal=0.07)


def interval(low: float) -> Estimate:
    return Estimate(0.5, low, 1.0)


TIE = Comparison(
    rows=400, wins=0, losses=0, accuracy=(interval(0.1), interval(0.1)), macro_f1=(interval(0.1), interval(0.1)),
    accuracy_difference=interval(-1), accuracy_bootstrap=interval(-1), macro_f1_difference=interval(-1),
    p_better=1.0, p_worse=1.0, p_value=1.0, p_better_macro_f1=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("p", "low", "macro_low", "accuracy", "macro"),
    [
        (0.001, 0.01, -0.5, True, False),
        (0.001, -0.01, 0.5, False, True),  # both have to say so: the interval
        (0.9, 0.01, 0.5, False, False),  # and the test
        (ALPHA, 0.01, 0.01, True, True),
        (ALPHA + 1e-9, 0.01, 0.01, False, False),
        (0.001, 0.0, 0.0, False, False),  # from 0 up may be none
        (0.001, 1e-6, 1e-6, True, True),
    ],
)
@pytest.mark.parametrize("one", [True, False])
def test_better_needs_test_and_interval(p, low, macro_low, accuracy, macro, one):
    intervals = (low, 0.5) if one else (0.5, low)  # the wider of both decides
    found = replace(
        TIE, p_better=p, p_better_macro_f1=p, accuracy_difference=interval(intervals[0]),
        accuracy_bootstrap=interval(intervals[1]), macro_f1_difference=interval(macro_low),
    )  # fmt: skip
    assert (found.better(), found.better("accuracy"), found.better("macro_f1")) == (accuracy, accuracy, macro)
    assert not replace(found, p_better=1.0).better()
    assert not replace(found, p_better_macro_f1=1.0).better("macro_f1")


def test_worse_is_better_the_other_way_round():
    labels = np.array([0, 1] * 200)
    for wrong in (3, 6, 30):
        first = labels.copy()
        first[:wrong] ^= 1
        assert compare(labels, first, labels, 2).worse() == compare(labels, labels, first, 2).better() == (wrong > 5)
        assert not compare(labels, labels, first, 2).worse()


def test_a_comparison_is_read_again_from_json():
    labels = np.array([0, 1] * 20)
    found = compare(labels, labels, 1 - labels, 2)
    assert Comparison.load(json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize("rows", [4, 40, 400])
def test_macro_f1_of_equal_answers_on_few_rows_may_differ_by_what_was_not_seen(rows):
    labels = np.array([0, 1] * (rows // 2))
    low, high = compare(labels, labels, labels, 2).macro_f1_difference[1:]
    assert -low == high == pytest.approx(1.959964**2 / (rows / 2 + 1.959964**2) / 2)
    assert high == pytest.approx(-score_interval(0, 0, rows / 2)[0] / 2, abs=1e-9)  # of each of two classes
    rare = np.array([0] * (9 * rows // 10) + [1] * (rows - 9 * rows // 10))
    assert compare(rare, rare, rare, 2).macro_f1_difference.high > high


def test_better_in_macro_f1_of_two_rows_is_chance():
    found = compare(np.array([0, 1]), np.array([0, 1]), np.array([1, 0]), 2)
    assert found.p_better_macro_f1 == pytest.approx(0.25, abs=0.03) == found.p_better
    assert not found.better("macro_f1")


def test_where_the_rows_that_differ_weigh_alike_the_randomization_test_is_mcnemars():
    labels = np.array([0, 1] * 100)
    first, second = labels.copy(), labels.copy()
    first[:4] ^= 1
    second[20:32] ^= 1
    found = compare(labels, first, second, 2)
    assert found.p_better == mcnemar(12, 4)
    assert found.p_better_macro_f1 == pytest.approx(found.p_better, abs=0.02)
    assert compare(labels, labels, labels, 2).p_better_macro_f1 == 1.0


def test_few_exchanges_are_counted_out():
    # a row of the rare class won, and two of the frequent class lost: of the 8 ways to exchange answers one is as high
    labels = np.array([0] * 20 + [1] * 3)
    first, second = labels.copy(), labels.copy()
    first[:2], second[20:] = 1, 0

    def difference(one, two):
        return metrics.f1_score(labels, one, average="macro") - metrics.f1_score(labels, two, average="macro")

    differ, seen, reached = np.flatnonzero(first != second), difference(first, second), 0
    for exchange in itertools.product([False, True], repeat=len(differ)):
        one, two = first.copy(), second.copy()
        at = differ[list(exchange)]
        one[at], two[at] = second[at], first[at]
        reached += difference(one, two) >= seen - 1e-12
    found = compare(labels, first, second, 2).p_better_macro_f1
    assert found == pytest.approx(reached / 2 ** len(differ), abs=0.012)


@pytest.mark.parametrize("rows", [50, 100])
@pytest.mark.parametrize("prior", [(0.5, 0.5), (0.85, 0.15)])
def test_of_challengers_below_the_margin_in_macro_f1_hardly_one_passes_for_not_worse(rows, prior):
    truth = below(np.array(prior), 0.03)
    margin = truth.macro_f1_of(truth.second) - truth.macro_f1
    passed = sum(found.not_worse(margin, "macro_f1") for found in compared(truth, rows, 200))
    assert passed <= 200 * 0.025 + 3  # 3: what chance adds to 5 in one of seven


@pytest.mark.parametrize("rows", [50, 1000])
def test_of_equals_in_macro_f1_hardly_one_is_called_better(rows):
    truth = below(np.array([0.8, 0.2]), 0.04, 0.04)
    assert sum(found.better("macro_f1") for found in compared(truth, rows, 200)) <= 8


def test_of_1000_rows_macro_f1_still_shows_what_accuracy_does():
    equal = compared(below(np.array([0.8, 0.2]), 0.035, 0.035), 1000, 100)
    assert sum(found.not_worse(0.03, "macro_f1") for found in equal) >= 65
    better = compared(below(np.array([0.8, 0.2]), 0.02, 0.05), 1000, 100)
    assert sum(found.better("macro_f1") for found in better) >= 80


@pytest.mark.parametrize(
    ("tango", "resampled", "macro_low", "accuracy", "macro"),
    [
        (-0.01, -0.01, -0.5, True, False),
        (-0.03, -0.01, -0.01, False, True),  # the wider of both intervals decides
        (-0.01, -0.03, -0.01, False, True),
        (-0.02, -0.01, -0.02, False, False),  # the margin itself is too much
        (-0.0199, -0.0199, -0.0199, True, True),
        (0.01, 0.01, 0.01, True, True),
    ],
)
def test_not_worse_needs_all_of_the_interval_above_the_margin(tango, resampled, macro_low, accuracy, macro):
    found = replace(
        TIE, accuracy_difference=interval(tango), accuracy_bootstrap=interval(resampled),
        macro_f1_difference=interval(macro_low),
    )  # fmt: skip
    assert found.difference().low == min(tango, resampled)
    assert (found.not_worse(0.02), found.not_worse(0.02, "accuracy")) == (accuracy, accuracy)
    assert found.not_worse(0.02, "macro_f1") == macro


def test_rows_needed_are_those_of_the_usual_formula_for_80_percent_power():
    # (1.959964 + 0.841621)^2 = 7.848880 times the share of rows that differ, over the margin squared
    assert replace(TIE, wins=30, losses=10).needed(0.01) == 7849
    assert replace(TIE, wins=1).needed(0.01) == TIE.needed(0.01) == 197  # of no unequal rows: as of one
    assert replace(TIE, wins=30, losses=10).needed(0.02) == 1963


def test_another_seed_resamples_otherwise_and_the_same_one_alike():
    draw = np.random.default_rng(0)
    labels, first, second = draw.integers(0, 3, (3, 200))
    assert compare(labels, first, second, 3, seed=5) == compare(labels, first, second, 3, seed=5)
    assert compare(labels, first, second, 3, seed=5) != compare(labels, first, second, 3)


def test_a_comparison_counts_what_each_has_right_alone():
    labels = np.array([0, 1] * 500, np.int32)
    first, second = labels.copy(), labels.copy()
    first[:30] ^= 1
    second[20:80] ^= 1
    found = compare(labels, first, second, 2)
    assert (found.rows, found.wins, found.losses) == (1000, 50, 20)
    assert found.accuracy_difference.value == found.accuracy_bootstrap.value == pytest.approx(0.03)
    assert (found.accuracy[0].value, found.accuracy[1].value) == (0.97, 0.94)
    assert found.macro_f1_difference.value == pytest.approx(found.macro_f1[0].value - found.macro_f1[1].value)
    assert found.p_better == pytest.approx(stats.binomtest(50, 70, alternative="greater").pvalue)
    assert found.p_value == pytest.approx(stats.binomtest(50, 70).pvalue)
    turned = compare(labels, second, first, 2)
    assert (turned.p_better, turned.wins, turned.accuracy_difference.low) == (
        found.p_worse, 20, pytest.approx(-found.accuracy_difference.high),
    )  # fmt: skip


def test_the_order_of_the_rows_changes_no_comparison():
    draw = np.random.default_rng(0)
    labels, first, second = draw.integers(0, 5, (3, 400))
    mixed = draw.permutation(400)
    assert compare(labels, first, second, 5) == compare(labels[mixed], first[mixed], second[mixed], 5)


def test_an_answer_of_none_is_wrong_and_no_class():
    labels, answers = np.array([0, 0, 1, 1]), np.array([0, -1, 1, 1])
    found = compare(labels, answers, labels, 2)
    assert (found.losses, found.accuracy[0].value, found.macro_f1[0].value) == (1, 0.75, pytest.approx((2 / 3 + 1) / 2))


@pytest.mark.parametrize("rows", [872, 25_000])
def test_of_1000_equal_pairs_at_most_37_are_called_better(rows):
    assert EQUAL.difference == pytest.approx(0)
    assert declared_better(EQUAL, rows) <= 0.037


def test_of_1000_pairs_2_points_apart_at_least_990_are_called_better():
    assert APART.difference == pytest.approx(0.02)
    assert declared_better(APART, 25_000) >= 0.99


@pytest.mark.parametrize("rows", [872, 25_000])
def test_intervals_of_accuracy_macro_f1_and_paired_difference_hold_the_truth_in_93_to_97_of_100(rows):
    found = coverage(APART, rows, seed=1)
    assert {name: 0.93 <= value <= 0.97 for name, value in found._asdict().items()} == dict.fromkeys(
        found._fields, True
    )
