"""Temperature, thresholds, costs and abstention do on new rows what they were fitted for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.components.evaluate.test_metrics import drawn
from tuneline.artifacts import Decision
from tuneline.calibration import (
    answers,
    check,
    cost_matrix,
    coverage_threshold,
    decide,
    fit,
    fit_abstention,
    fit_temperature,
    fit_thresholds,
    precision_threshold,
)
from tuneline.config import DecisionConfig
from tuneline.errors import InputError
from tuneline.evaluate.metrics import measure, score
from tuneline.predictions import NONE
from tuneline.thresholds import ROUNDS, _crossings

pytestmark = pytest.mark.medium


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What a softmax gives of the same logits divided by a temperature."""
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_left_out_is_found(true):
    labels, told = drawn(20_000, 5, sharp=true)
    assert fit_temperature(told, labels) == pytest.approx(true, rel=0.05)


def test_tempered_probabilities_are_calibrated_on_other_rows_and_answer_alike():
    temperature = fit_temperature(*reversed(drawn(3000, 4, seed=1, sharp=3.0)))
    labels, told = drawn(5000, 4, seed=2, sharp=3.0)
    better = temper(told, temperature)
    assert better.sum(1) == pytest.approx(np.ones(5000))
    assert np.array_equal(better.argmax(1), told.argmax(1))
    assert measure(labels, better)["calibration_error"].value < 0.03 < measure(labels, told)["calibration_error"].value
    assert score(labels, better)["log_loss"] < score(labels, told)["log_loss"]


def test_a_temperature_stays_within_reason():
    right, wrong = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([1, 0])
    assert 0.5 < fit_temperature(right, np.array([0, 1])) < 1  # two rows are no reason to be sure
    assert 1 < fit_temperature(right, wrong) < 20
    many = np.tile(right, (100_000, 1))
    assert fit_temperature(many, np.tile([0, 1], 100_000)) < 0.25
    assert fit_temperature(many, np.tile(wrong, 100_000)) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("sharp", [0.5, 3.0])
def test_the_temperature_of_texts_in_windows_is_that_of_their_mean(sharp):
    labels, told = drawn(900, 3, seed=4, sharp=sharp)
    windows = [1, 2, 3] * 150
    starts = np.cumsum(windows) - windows
    of_texts = labels[starts]

    def log_loss(temperature: float) -> float:
        means = np.add.reduceat(temper(told, temperature), starts) / np.array(windows)[:, None]
        return score(of_texts, means)["log_loss"]

    found = fit_temperature(told, np.repeat(of_texts, windows), windows)
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 200))
    assert log_loss(found) <= min(log_loss(temperature) for temperature in grid) + 1e-3
    assert log_loss(found) <= log_loss(1.0)


CHANCES = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.1, 0.1, 0.8]])


def test_the_most_probable_class_is_answered_where_nothing_is_asked():
    assert decide(CHANCES).tolist() == [0, 0, 2]


def test_a_threshold_is_the_probability_from_which_a_class_of_two_is_answered():
    chances = np.array([[0.71, 0.29], [0.69, 0.31]])
    assert decide(chances, thresholds=np.array([0.7, 0.3])).tolist() == [0, 1]


def test_the_answer_of_the_lowest_expected_cost_is_given():
    costs = np.array([[0, 1, 1], [10, 0, 10], [1, 1, 0]])  # to miss class 1 is dear
    assert decide(CHANCES, costs=costs).tolist() == [1, 1, 1 if 0.1 * 10 > 0.9 else 2]


def test_below_the_threshold_the_model_abstains():
    assert decide(CHANCES, abstain_below=0.5).tolist() == [0, -1, 2]
    assert decide(CHANCES, abstain_below=0.75, abstain=1).tolist() == [1, 1, 2]


def test_thresholds_raise_macro_f1_of_rare_classes_on_other_rows():
    def rare(seed):
        draw = np.random.default_rng(seed)
        labels = draw.choice(3, 4000, p=[0.9, 0.07, 0.03])
        logits = draw.normal(0, 1, (4000, 3)) + np.log([0.9, 0.07, 0.03])
        logits[np.arange(4000), labels] += 2
        chances = np.exp(logits)
        return labels, chances / chances.sum(1, keepdims=True)

    labels, chances = rare(0)
    thresholds = fit_thresholds(chances, labels)
    assert thresholds.sum() == pytest.approx(1)
    other, told = rare(1)
    before, after = score(other, told)["macro_f1"], score(other, told, decide(told, thresholds))["macro_f1"]
    assert after > before + 0.02


def test_thresholds_of_a_model_that_errs_nowhere_change_nothing():
    chances = np.array([[0.9, 0.1], [0.2, 0.8]] * 10)
    assert fit_thresholds(chances, np.array([0, 1] * 10)).tolist() == [0.5, 0.5]


def brute_force(chances, labels, metric):
    """The same search, which decides about all rows for each candidate."""
    classes = chances.shape[1]

    def reach(told):
        return score(labels, chances, told)[metric]

    thresholds, best = np.ones(classes), reach(chances.argmax(1))
    for _ in range(ROUNDS):
        before = best
        for index in range(classes):
            rivals = chances / thresholds
            rivals[:, index] = 0
            for candidate in _crossings(chances[:, index], rivals.max(1)):
                tried = thresholds.copy()
                tried[index] = candidate
                if (reached := reach(decide(chances, tried))) > best + 1e-12:
                    thresholds, best = tried, reached
        if best == before:
            break
    return thresholds / thresholds.sum()


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("metric", ["macro_f1", "accuracy"])
@pytest.mark.parametrize("ties", [True, False])
def test_thresholds_are_those_that_a_decision_about_all_rows_for_each_candidate_finds(classes, metric, ties):
    moved = 0
    for seed in range(4):
        labels, chances = drawn(60 + 40 * seed, classes, seed, sharp=1.5)
        chances = chances * np.random.default_rng(seed).uniform(0.3, 3, classes)
        chances = chances.round(1) if ties else chances.astype(np.float32)
        found = fit_thresholds(chances, labels, metric)
        assert found.tolist() == brute_force(chances, labels, metric).tolist()
        moved += not np.allclose(found, 1 / classes)
    assert moved


def test_thresholds_of_a_single_class_and_of_many_are_found():
    assert fit_thresholds(np.ones((5, 1)), np.zeros(5, int)).tolist() == [1.0]
    labels, chances = drawn(600, 150)
    assert fit_thresholds(chances, labels).shape == (150,)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_where_abstaining_on_all_pays_no_row_is_answered_however_sure(kind):
    confidence = np.array([0.5, 0.6, 1.0], kind)
    threshold = fit_abstention(confidence, np.zeros(3, bool), np.ones(3, bool))
    assert not (confidence >= threshold).any()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_threshold_between_neighbouring_numbers_parts_them(kind):
    low = kind(0.7)
    confidence = np.array([low, np.nextafter(low, kind(1))], kind)
    threshold = precision_threshold(confidence, np.array([False, True]), 1.0)
    assert (confidence >= threshold).tolist() == [False, True]


def test_abstention_is_fitted_where_it_pays():
    chances = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.5, 0.5, 0], [0.4, 0.6, 0], [0.45, 0.55, 0]])
    settings = DecisionConfig(abstain_label="c")
    threshold = fit(settings, list("abc"), chances, np.array([0, 0, 2, 2, 2]))["abstain_below"]
    assert 0.6 < threshold < 0.8
    assert decide(chances, abstain_below=threshold, abstain=2).tolist() == [0, 0, 2, 2, 2]
    assert fit(settings, list("abc"), chances, np.array([0, 0, 0, 1, 1]))["abstain_below"] == 0.0


def test_a_wanted_precision_is_reached_with_the_most_answers():
    confidence = np.array([0.5, 0.6, 0.7, 0.7, 0.8, 0.9])
    right = np.array([False, True, False, True, True, True])
    assert precision_threshold(confidence, right, 0.75) == pytest.approx(0.55)  # 4 of 5; of all, 4 of 6
    assert precision_threshold(confidence, right, 0.9) == pytest.approx(0.75)  # equal confidences stay together
    assert precision_threshold(confidence, right, 0.5) == 0.0
    assert precision_threshold(confidence, np.arange(6) == 2, 0.9) == pytest.approx(0.65)  # never: the most often right


def test_a_wanted_share_of_the_texts_is_answered_and_no_more_than_ties_ask_for():
    confidence = np.array([0.5, 0.6, 0.7, 0.7, 0.8, 0.9])
    for wanted, answered in [(1.0, 6), (0.8, 5), (0.5, 4), (0.34, 4), (1 / 3, 2), (0.01, 1), (0.0, 1)]:
        assert (confidence >= coverage_threshold(confidence, wanted)).sum() == answered, wanted
    assert coverage_threshold(confidence, 1.0) == 0.0


def test_thresholds_for_accuracy_undo_a_model_that_leans_to_a_rare_class():
    labels, chances = drawn(4000, 2, seed=3)
    leaning = chances * [1, 4]
    leaning /= leaning.sum(1, keepdims=True)
    thresholds = fit_thresholds(leaning, labels, "accuracy")
    assert thresholds == pytest.approx([0.2, 0.8], abs=0.07)


def test_costs_that_are_not_named_are_1_and_a_right_answer_costs_nothing():
    assert cost_matrix({"a": {"b": 10}, "b": {"b": 0.5}}, ["a", "b", "c"]).tolist() == [
        [0, 10, 1], [1, 0.5, 1], [1, 1, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"abstain_label": "oss"}, "train.decision.abstain_label: 'oss' is no label of the data; did you mean 'oos'? "),
        ({"costs": {"oos": {"x": 2}}}, "train.decision.costs: 'x' is no label of the data; they are: pay, oos"),
        ({"costs": {"x": {}}}, "train.decision.costs: 'x' is no label of the data; they are: pay, oos"),
    ],
)
def test_a_label_that_the_data_do_not_have_is_refused_before_the_training(settings, told):
    with pytest.raises(InputError) as caught:
        check(DecisionConfig.model_validate(settings), ["pay", "oos"])
    assert str(caught.value).startswith(told)


def test_what_was_fitted_is_what_a_stored_decision_answers():
    labels, chances = drawn(500, 3, seed=5)
    settings = DecisionConfig(thresholds="macro_f1", abstain_precision=0.9)
    found = Decision(list("abc"), 16, "head", "pkg:x", "0", **fit(settings, list("abc"), chances, labels))
    told = answers(found, chances)
    thresholds = np.array(list(found.thresholds.values()))
    assert told.tolist() == decide(chances, thresholds, abstain_below=found.abstain_below).tolist()
    assert 0 < (told == NONE).sum() < 500
    assert (told == labels)[told != NONE].mean() >= 0.9
    plain = Decision(list("abc"), 16, "head", "pkg:x", "0", **fit(DecisionConfig(), list("abc"), chances, labels))
    assert plain.plain
    assert answers(plain, chances).tolist() == chances.argmax(1).tolist()
