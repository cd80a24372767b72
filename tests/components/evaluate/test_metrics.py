"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuneline.evaluate.metrics import confusion, per_class, score

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


def test_macro_f1_leaves_out_a_class_that_neither_occurs_nor_is_predicted():
    found = score(np.array([0, 1]), np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]))
    assert found["macro_f1"] == 1.0


@pytest.mark.parametrize(("right", "loss"), [(1.0, 0.0), (0.5, math.log(2)), (0.0, -math.log(1e-12))])
def test_log_loss_stays_finite_where_the_true_class_got_nothing(right, loss):
    assert score(np.array([0]), np.array([[right, 1 - right]]))["log_loss"] == pytest.approx(loss)


def test_every_class_has_its_own_numbers():
    first, second, third = per_class(LABELS, PREDICTED, ["a", "b", "c"])
    assert first == {
        "label": "a", "n": 3, "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
    }  # fmt: skip
    assert second == {"label": "b", "n": 2, "precision": pytest.approx(1 / 3), "recall": 0.5, "f1": pytest.approx(0.4)}
    assert third == {"label": "c", "n": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_a_class_without_test_texts_is_listed_with_zeros():
    found = per_class(np.array([0, 0]), np.array([0, 0]), ["a", "b"])
    assert found[1] == {"label": "b", "n": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_confusion_counts_true_classes_in_rows_and_predicted_ones_in_columns():
    assert confusion(LABELS, PREDICTED, 4) == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
