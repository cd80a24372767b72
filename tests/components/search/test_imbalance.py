"""Treatments of unequal classes: what is compared is what was measured, and nothing is recommended by luck."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tuneline.artifacts import read_split
from tuneline.config import Recipe
from tuneline.dimensions import BALANCE
from tuneline.evaluate.metrics import score
from tuneline.recipe import validate
from tuneline.search.data import folds
from tuneline.search.engine import Engine
from tuneline.search.imbalance import PLAIN, THRESHOLDS, Trained, answers_of, compare, recommend, train_all
from tuneline.search.job import Result, TrialLost
from tuneline.search.paired import _resampled, of_answers, of_ranking

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


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_over_few_seeds_holds_the_truth_about_as_often_as_it_says(seeds):
    """Seeds that differ by far more than rows do: a bootstrap of three of them would hold it in 75%."""
    draw, held = np.random.default_rng(0), 0
    for _ in range(200):
        at = 0.5 + 0.02 * draw.normal(size=(1, seeds, 1)) + 0.001 * draw.normal(size=(1, seeds, 1001))
        _, low, high = _resampled(at).interval(0)
        held += low <= 0.5 <= high
    assert 0.9 * 200 <= held < 200


def test_one_seed_has_an_interval_of_rows_alone():
    values = 0.9 + 0.01 * np.random.default_rng(0).normal(size=(1, 1, 2001))
    values[0, 0, 0] = 0.9
    assert _resampled(values).interval(0)[1:] == pytest.approx(np.quantile(values[0, 0, 1:], [0.025, 0.975]))


def test_an_interval_of_a_share_ends_where_shares_do():
    values = np.concatenate([np.full((1, 1, 1001), 0.99), np.full((1, 1, 1001), 0.90)], 1)
    _, low, high = _resampled(values).interval(0)
    assert 0 <= low < 0.9
    assert high == 1


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


def test_what_another_class_loses_is_told_as_a_cost():
    """Thresholds that find more spam: some ham is lost by it, of which neither macro F1 nor spam's figures tell."""
    rows = compare(world({}, seeds=1, shift=-1.0))
    (mine,) = [row for row in rows if row["treatment"] == THRESHOLDS]
    assert mine["per_class_difference"]["ham"][2] < 0
    _, told = recommend(rows, "macro_f1", "spam")
    assert "It costs recall of 'ham' -0." in told


class Losing:
    """An engine some of whose trainings are lost; others answer at once."""

    def __init__(self, engine: Engine, lost: set[str], folder: Path) -> None:
        self.engine, self.lost, self.folder = engine, lost, folder
        self.asked: list[str] = []

    def each(self, work, items) -> None:
        self.engine.each(work, items)

    def trial(self, recipe, overrides, data, name, tags) -> Result:
        self.asked.append(overrides["balance"])
        if overrides["balance"] in self.lost:
            raise TrialLost("out of memory")
        answers = self.folder / f"{name}.npz"
        labels = read_split(data, "validation").column("label").to_numpy()
        np.savez(answers, probabilities=np.eye(2)[labels], labels=labels)
        return Result(overrides, 0, 1.0, {}, 0.0, len(labels), 1.0, str(answers), "")


def test_a_treatment_that_is_lost_is_left_out_and_the_others_are_compared(engine, recipe, data, tmp_path):
    losing = Losing(engine, {"focal"}, tmp_path)
    heard: list[tuple[int, int]] = []
    found = train_all(recipe, [data], 2, losing, lambda *at: heard.append(at))
    assert found.lost == {"focal": "out of memory"}
    assert losing.asked.count("focal") == 1  # with the next seed it would be lost again
    assert heard[-1] == (10, 10)
    assert {row["treatment"] for row in compare(found)} == {*BALANCE, THRESHOLDS} - {"focal"}


@pytest.mark.parametrize("lost", [{"none"}, set(BALANCE) - {"none"}])
def test_without_plain_training_or_with_it_alone_there_is_nothing_to_compare(engine, recipe, data, tmp_path, lost):
    with pytest.raises(TrialLost, match="out of memory"):
        train_all(recipe, [data], 1, Losing(engine, lost, tmp_path), lambda *_: None)


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
