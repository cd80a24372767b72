"""Treatments of unequal classes: what is compared is what was measured, and nothing is recommended by luck."""

from __future__ import annotations

import numpy as np
import pytest

from tuneline.config import Recipe
from tuneline.dimensions import BALANCE
from tuneline.evaluate.metrics import score
from tuneline.recipe import validate
from tuneline.search.data import folds
from tuneline.search.imbalance import PLAIN, THRESHOLDS, Trained, answers_of, compare, recommend, train_all
from tuneline.search.paired import of_answers, of_ranking

pytestmark = pytest.mark.medium

ROWS, RARE = 1500, 0.05


def world(lift: dict[str, float], seeds: int = 3, seed: int = 0, shift: float = 0.0) -> Trained:
    """Two classes, the second rare; each treatment's scores of it stand so far above the other class's."""
    draw = np.random.default_rng(seed)
    labels = (draw.random(ROWS) < RARE).astype(int)
    shared = draw.normal(size=ROWS)
    found = {}
    for name in BALANCE:
        logits = shared + draw.normal(size=(seeds, ROWS)) * 0.3 + lift.get(name, 1.5) * labels - 2.5 + shift
        chance = 1 / (1 + np.exp(-2 * logits))
        found[name] = np.stack([1 - chance, chance], 2)
    parts = np.arange(ROWS) % 5
    return Trained(labels, parts, found, dict.fromkeys(BALANCE, 1.0), ["ham", "spam"], 1, [1425, 75])


def test_values_are_the_ones_that_evaluation_measures():
    found = world({})
    probabilities = found.probabilities[PLAIN]
    answers = probabilities.argmax(2)
    measured = of_answers(found.labels, answers[None], 2)
    expected = np.mean([score(found.labels, each)["macro_f1"] for each in probabilities])
    assert measured["macro_f1"].value[0] == pytest.approx(expected)
    assert measured["accuracy"].value[0] == pytest.approx((answers == found.labels).mean())
    recall = np.mean([(each == 1)[found.labels == 1].mean() for each in answers])
    assert measured["recall_1"].value[0] == pytest.approx(recall)


def test_average_precision_is_scikit_learn_s():
    from sklearn.metrics import average_precision_score

    found = world({})
    scores = found.probabilities[PLAIN][0, :, 1]
    mine = of_ranking(found.labels == 1, scores[None, None])
    assert mine.value[0] == pytest.approx(average_precision_score(found.labels == 1, scores))


def test_rows_of_one_score_stand_or_fall_together_whatever_their_order():
    from sklearn.metrics import average_precision_score

    found = world({})
    positive, scores = found.labels == 1, found.probabilities[PLAIN][0, :, 1].round(1)
    turned = np.argsort(positive)  # the positive rows last, then first
    for order in (turned, turned[::-1]):
        mine = of_ranking(positive[order], scores[order][None, None])
        assert mine.value[0] == pytest.approx(average_precision_score(positive, scores))
        assert mine.drawn[0].mean() == pytest.approx(mine.value[0], abs=0.05)


def test_the_interval_of_a_difference_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(20):
        found = world({}, seed=seed)
        scores = np.stack([found.probabilities[name][:, :, 1] for name in ("none", "focal")])
        _, low, high = of_ranking(found.labels == 1, scores, seed).difference(1, 0)
        held += low <= 0 <= high
    assert held >= 16


def test_a_treatment_that_ranks_better_is_recommended_by_its_key():
    rows = compare(world({"focal": 3.5}))
    name, told = recommend(rows, "average_precision", "spam")
    assert name == "focal"
    assert "set train.focal_gamma=2.0" in told
    assert "average precision of 'spam', +" in told
    assert {row["treatment"] for row in rows} == {*BALANCE, THRESHOLDS}


def test_where_all_are_alike_nothing_is_recommended():
    wrong = 0
    for seed in range(5):
        name, told = recommend(compare(world({}, seed=seed)), "average_precision", "spam")
        wrong += name != PLAIN
        assert name != PLAIN or "Nothing beats plain cross-entropy" in told
    assert wrong <= 1


def test_thresholds_help_where_only_the_cut_is_wrong_and_cost_is_told():
    rows = compare(world({}, shift=-1.0))
    name, told = recommend(rows, "macro_f1", "spam")
    assert name == THRESHOLDS
    assert "fit thresholds on the validation split" in told
    (mine,) = [row for row in rows if row["treatment"] == THRESHOLDS]
    assert mine["difference"]["average_precision"] == (0.0, 0.0, 0.0)


def test_a_row_s_own_label_has_no_part_in_its_threshold():
    found = world({}, shift=-1.0)
    before = answers_of(found)[THRESHOLDS]
    other = found.labels.copy()
    here = found.parts == 2
    other[here] = 1 - other[here]
    found.labels = other
    after = answers_of(found)[THRESHOLDS]
    assert np.array_equal(before[:, here], after[:, here])
    assert not np.array_equal(before, after)


@pytest.mark.slow
def test_folds_and_seeds_are_all_trained_and_their_rows_pooled(engine, recipe, data, tmp_path):
    quick = validate(Recipe, recipe.model_dump(by_alias=True) | {"train": recipe.train.model_dump() | {"epochs": 1}})
    heard: list[tuple[int, int]] = []
    found = train_all(quick, folds(data, 2, tmp_path / "folds"), 2, engine, lambda *at: heard.append(at))
    assert heard[-1] == (20, 20)
    rows = len(found.labels)
    assert {name: values.shape for name, values in found.probabilities.items()} == dict.fromkeys(BALANCE, (2, rows, 2))
    assert not np.allclose(found.probabilities["none"], found.probabilities["focal"])
    assert not np.allclose(found.probabilities["none"][0], found.probabilities["none"][1])
    again = train_all(quick, folds(data, 2, tmp_path / "folds"), 2, engine, lambda *_: None)
    assert np.array_equal(again.probabilities["focal"], found.probabilities["focal"])
    runs = engine.run.api.search_runs([engine.run.experiment], "tags.`tuneline.treatment` = 'focal'")
    assert len(runs) == 8
