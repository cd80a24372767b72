"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from tuneline.evaluate.metrics import confusion, losses, measure, per_class, ranking, reliability, score
from tuneline.statistics import mean

LABELS = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.1, 0.7, 0.2], [0.6, 0.4, 0.0], [0.2, 0.5, 0.3]]
)
PREDICTED = PROBABILITIES.argmax(1)  # 0 0 1 1 0 1


def test_accuracy_macro_f1_and_log_loss_by_hand():
    found = score(LABELS, PROBABILITIES)
    assert found["accuracy"] == pytest.approx(3 / 6)
    # class 0: precision 2/3, recall 2/3; class 1: precision 1/3, recall 1/2; class 2 is never found
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)
    assert found["log_loss"] == pytest.approx(-sum(map(math.log, (0.8, 0.5, 0.2, 0.7, 0.4, 0.3))) / 6)


def test_an_interval_holds_its_value_also_with_two_rows_a_class():
    draw, classes = np.random.default_rng(0), 150
    labels = np.repeat(np.arange(classes), 2)
    answers = np.where(draw.random(len(labels)) < 0.7, labels, draw.integers(0, classes, len(labels)))
    for value, low, high in measure(labels, np.eye(classes)[answers]).values():
        assert low <= value <= high


def test_macro_f1_leaves_out_a_class_that_neither_occurs_nor_is_predicted():
    found = score(np.array([0, 1]), np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]))
    assert found["macro_f1"] == 1.0


@pytest.mark.parametrize(("right", "loss"), [(1.0, 0.0), (0.5, math.log(2)), (0.0, -math.log(1e-12))])
def test_log_loss_stays_finite_where_the_true_class_got_nothing(right, loss):
    assert score(np.array([0]), np.array([[right, 1 - right]]))["log_loss"] == pytest.approx(loss)


def values(row):
    return [row[name] for name in ("label", "n", "precision", "recall", "f1")]


def test_every_class_has_its_own_numbers():
    first, second, third = per_class(LABELS, PREDICTED, ["a", "b", "c"])
    assert values(first) == ["a", 3, pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3)]
    assert values(second) == ["b", 2, pytest.approx(1 / 3), 0.5, pytest.approx(0.4)]
    assert values(third) == ["c", 1, 0.0, 0.0, 0.0]
    assert (first["recall_low"], first["recall_high"]) == pytest.approx((0.2077, 0.9385), abs=1e-4)  # Wilson, 2 of 3
    # F1 = 2J / (1 + J): 2 of the 4 rows that are of class a or called so are both
    assert (first["f1_low"], first["f1_high"]) == pytest.approx((2 * 0.15 / 1.15, 2 * 0.85 / 1.85), abs=1e-3)


def test_a_class_without_test_texts_is_listed_with_zeros():
    found = per_class(np.array([0, 0]), np.array([0, 0]), ["a", "b"])
    assert values(found[1]) == ["b", 0, 0.0, 0.0, 0.0]
    assert (found[1]["recall_low"], found[1]["recall_high"]) == (0.0, 1.0)


def test_confusion_counts_true_classes_in_rows_and_predicted_ones_in_columns():
    assert confusion(LABELS, PREDICTED, 4) == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def drawn(rows, classes, seed=0, sharp=1.0):
    """Labels, and probabilities that are calibrated where sharp is 1."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (rows, classes))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chances.cumsum(1) < draw.random((rows, 1))).sum(1).clip(max=classes - 1)
    told = chances**sharp
    return labels, told / told.sum(1, keepdims=True)


@pytest.mark.parametrize(("rows", "classes"), [(500, 2), (800, 5), (2000, 40)])
def test_every_metric_is_that_of_scikit_learn_and_lies_in_its_interval(rows, classes):
    labels, chances = drawn(rows, classes)
    chances = chances.round(2) + 1e-9  # ties
    chances /= chances.sum(1, keepdims=True)
    found, answers = measure(labels, chances), chances.argmax(1)
    each = [(labels == index, chances[:, index]) for index in range(classes)]
    wanted = {
        "accuracy": sklearn.accuracy_score(labels, answers),
        "macro_f1": sklearn.f1_score(labels, answers, average="macro"),
        "micro_f1": sklearn.f1_score(labels, answers, average="micro"),
        "weighted_f1": sklearn.f1_score(labels, answers, average="weighted"),
        "mcc": sklearn.matthews_corrcoef(labels, answers),
        "log_loss": sklearn.log_loss(labels, chances),
        "roc_auc": np.mean([sklearn.roc_auc_score(*one) for one in each]),
        "average_precision": np.mean([sklearn.average_precision_score(*one) for one in each]),
    }
    assert {name: found[name].value for name in wanted} == pytest.approx(wanted)
    assert all(estimate.low < estimate.value < estimate.high for name, estimate in found.items() if name in wanted)


def test_what_is_all_right_is_not_told_to_be_certain():
    labels = np.array([0, 1] * 30)
    found = measure(labels, np.eye(2)[labels])
    for name in ("accuracy", "macro_f1", "weighted_f1", "mcc"):
        assert (found[name].value, found[name].high) == (1.0, 1.0)
        assert found[name].low == pytest.approx(0.940, abs=1e-3)


@pytest.mark.parametrize(("rare", "low"), [(30, 0.886), (5, 0.566), (1, 0.207)])
def test_a_ranking_without_a_fault_is_as_uncertain_as_its_rarer_side_is_small(rare, low):
    labels = np.array([0] * (60 - rare) + [1] * rare)
    for found in ranking(labels, np.eye(2)[labels]).values():
        assert found == (1.0, pytest.approx(low, abs=1e-3), 1.0)
    assert ranking(labels, np.eye(2)[1 - labels])["roc_auc"] == (0.0, 0.0, pytest.approx(1 - low, abs=1e-3))
    alike = ranking(labels, np.full((60, 2), 0.5))["roc_auc"]
    assert alike.low < alike.value == 0.5 < alike.high


def test_rows_of_one_class_have_no_ranking():
    assert ranking(np.zeros(5, int), np.full((5, 2), 0.5)) == {}


def test_an_answer_of_none_counts_as_wrong():
    labels, chances = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    answers = np.array([0, -1, 1, 1])
    assert score(labels, chances, answers)["accuracy"] == 0.75
    found = measure(labels, chances, answers)
    assert found["micro_f1"].value == pytest.approx(2 * 3 / 7)
    assert found["macro_f1"].value == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("classes", [2, 6])
def test_intervals_of_ranking_and_log_loss_hold_the_truth(classes):
    def estimates(labels, chances):
        return ranking(labels, chances) | {"log_loss": mean(losses(labels, chances))}

    truth = {name: estimate.value for name, estimate in estimates(*drawn(200_000, classes, seed=99)).items()}
    hits = dict.fromkeys(truth, 0)
    for seed in range(500):
        found = estimates(*drawn(600, classes, seed))
        hits = {name: hits[name] + (found[name].low <= truth[name] <= found[name].high) for name in truth}
    assert all(0.925 <= count / 500 <= 0.975 for count in hits.values()), hits


def test_calibration_error_is_the_mean_gap_of_bins_of_equal_size():
    labels = np.array([0] * 6 + [1] * 4)
    chances = np.array([[0.6, 0.4]] * 5 + [[0.9, 0.1]] * 5)
    bins = reliability(labels, chances, bins=2)
    assert [(row["n"], row["right"], row["confidence"]) for row in bins] == [
        (5, 5, pytest.approx(0.6)), (5, 1, pytest.approx(0.9)),
    ]  # fmt: skip
    calm, sure = (measure(*drawn(20_000, 3, sharp=sharp))["calibration_error"] for sharp in (1.0, 3.0))
    assert calm.value < 0.015 < 0.1 < sure.value
    assert sure.low < sure.value < sure.high
