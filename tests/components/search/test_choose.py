"""Which checkpoint: the score tells what frozen features know, halving gives up the worse, and the advice is honest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuneline.artifacts import PreparedData
from tuneline.errors import DivergedError, InputError
from tuneline.search import report
from tuneline.search.advice import recommend, settings
from tuneline.search.budget import Budget
from tuneline.search.choose import BAG, FROZEN, LINEAR, TUNED, Candidate, Choosing
from tuneline.search.data import prepared
from tuneline.search.engine import Engine, configured
from tuneline.search.job import OutOfTime, TrialLost
from tuneline.search.transfer import head_proba, logme

pytestmark = pytest.mark.medium

ROWS = 600


def features(signal: float, seed: int = 0, width: int = 24) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, ROWS)
    centres = draw.normal(size=(3, width))
    return draw.normal(size=(ROWS, width)) + signal * centres[labels], labels


def test_logme_is_higher_where_features_tell_more_and_does_not_fall_for_width():
    scores = [logme(*features(signal), 3) for signal in (0.0, 0.3, 1.0)]
    assert scores == sorted(scores)
    known, labels = features(0.3)
    noise = np.random.default_rng(1).normal(size=(ROWS, 300))
    assert logme(np.hstack([known, noise]), labels, 3) < logme(known, labels, 3)


def test_logme_is_the_highest_evidence_of_any_two_variances():
    """Against the log density of the targets, a normal vector under the model, over a grid of both variances."""
    known, labels = features(0.5)
    known, labels = known[:80] - known[:80].mean(0), (labels[:80] == 0).astype(int)
    target = labels - labels.mean()

    def density(prior: float, noise: float) -> float:
        covariance = np.eye(80) / noise + known @ known.T / prior
        root = np.linalg.cholesky(covariance)
        along = np.linalg.solve(root, target)
        return float(-(along @ along) / 2 - np.log(np.diag(root)).sum() - 40 * np.log(2 * np.pi)) / 80

    best = max(density(prior, noise) for prior in np.geomspace(1, 1e4, 40) for noise in np.geomspace(1, 100, 20))
    assert logme(known, labels, 2) == pytest.approx(best, abs=0.01)


def test_the_head_answers_what_features_tell():
    known, labels = features(1.0)
    chances = head_proba(known[:400], labels[:400], known[400:], 3)
    assert chances.sum(1) == pytest.approx(1)
    assert (chances.argmax(1) == labels[400:]).mean() > 0.9


def test_the_head_of_rows_that_are_all_of_one_class_answers_that_class():
    known, _ = features(1.0)
    chances = head_proba(known[:50], np.full(50, 2), known[50:], 3)
    assert (chances == [0, 0, 1]).all()


def candidate(name: str, how: str, right: float, latency: float | None, seed: int = 0, reached: int = 2) -> Candidate:
    labels = np.arange(1000) % 2
    wrong = np.random.default_rng(seed).random(1000) >= right
    answers = np.where(wrong, 1 - labels, labels)
    value = float((answers == labels).mean())
    return Candidate(name, how, 500, {"accuracy": (value, value - 0.02, value + 0.02)}, answers, 1.0, latency,
                     round=reached if how == TUNED else 0)  # fmt: skip


LABELS = np.arange(1000) % 2


@pytest.mark.parametrize(
    ("baseline", "frozen", "small", "taken", "told"),
    [
        (0.94, 0.80, 0.80, LINEAR, "Take the linear baseline, or more labels"),
        (0.80, 0.94, 0.80, "large", "frozen under a logistic head"),
        (0.80, 0.80, 0.93, "small", "2.0 times as quickly"),
        (0.80, 0.80, 0.85, "large", "beyond chance worse"),
        (0.80, 0.98, 0.85, "large", "Take large frozen under a logistic head: validation accuracy 0.9"),
        (0.98, 0.80, 0.85, LINEAR, "Take the linear baseline, or more labels: validation accuracy 0.9"),
    ],
)
def test_the_cheapest_that_the_best_does_not_beat_is_recommended(baseline, frozen, small, taken, told):
    found = [candidate("large", TUNED, 0.945, 10.0, 1), candidate("small", TUNED, small, 5.0, 2),
             candidate("large", FROZEN, frozen, 10.0, 3), candidate(LINEAR, BAG, baseline, None, 4)]  # fmt: skip
    one, sentence = recommend(found, LABELS, 2, "accuracy")
    assert one.model == taken
    assert told in sentence


def test_a_checkpoint_that_was_given_up_early_is_not_recommended_for_being_near():
    found = [candidate("large", TUNED, 0.94, 10.0, 1), candidate("small", TUNED, 0.94, 1.0, 2, reached=1),
             candidate(LINEAR, BAG, 0.6, None, 4)]  # fmt: skip
    one, sentence = recommend(found, LABELS, 2, "accuracy")
    assert one.model == "large"
    assert "beyond chance better than the linear baseline" in sentence


def test_of_two_that_are_as_good_the_one_that_answers_sooner_is_taken_frozen_or_not():
    found = [candidate("large", TUNED, 0.945, 10.0, 1), candidate("small", TUNED, 0.94, 1.0, 2),
             candidate("large", FROZEN, 0.94, 10.0, 3), candidate("small", FROZEN, 0.7, 1.0, 5),
             candidate(LINEAR, BAG, 0.6, 0.1, 4)]  # fmt: skip
    one, sentence = recommend(found, LABELS, 2, "accuracy")
    assert (one.model, one.how) == ("small", TUNED)
    assert "10.0 times as quickly" in sentence
    assert settings(one) == "model.name=small"
    assert settings(replace(one, model="./my model", how=FROZEN)) == "'model.name=./my model' train.tune=head"


def test_a_frozen_encoder_that_beats_all_that_was_fine_tuned_is_taken_and_not_the_baseline_that_does_so_too():
    found = [candidate("large", TUNED, 0.53, 10.0, 1), candidate("large", FROZEN, 0.9, 10.0, 3),
             candidate(LINEAR, BAG, 0.67, 0.1, 4)]  # fmt: skip
    one, sentence = recommend(found, LABELS, 2, "accuracy")
    assert (one.model, one.how) == ("large", FROZEN)
    assert "; large, fine-tuned on 500 rows comes to 0.5" in sentence
    assert ", the linear baseline to 0.6" in sentence


def test_what_a_few_rows_cannot_rule_out_is_told():
    """Seventeen of a hundred rows differ, twelve of them for the best one: p is 0.07, and that is no equality."""
    labels, best, baseline = np.zeros(100, int), np.zeros(100, int), np.zeros(100, int)
    baseline[:12] = 1
    best[12:17] = 1

    def made(name: str, how: str, answers: np.ndarray) -> Candidate:
        value = float((answers == 0).mean())
        return Candidate(name, how, 50, {"accuracy": (value, value, value)}, answers, 1.0, 1.0, round=1)

    one, sentence = recommend([made("large", TUNED, best), made(LINEAR, BAG, baseline)], labels, 2, "accuracy")
    assert one.model == LINEAR
    assert "beyond chance on 100 validation rows, +0.0700 (-0.0" in sentence
    assert "points better is not ruled out; more validation rows would tell." in sentence
    assert settings(one) == ""


def test_names_that_end_alike_are_told_apart():
    assert report.labels_of(["./a/final", "./b/final", "pkg:c"]) == {
        "./a/final": "./a/final", "./b/final": "./b/final", "pkg:c": "pkg:c"
    }  # fmt: skip
    assert report.labels_of(["./a/one", "./b/two"]) == {"./a/one": "one", "./b/two": "two"}


@pytest.mark.parametrize("count", [1, 100])
def test_one_candidate_and_a_hundred_are_drawn_and_what_is_not_known_is_left_out(tmp_path, count):
    path = tmp_path / "picture.png"
    quality, costs = (
        [(0.5, 0.51, 0.6)] * count,
        {"ms": [1.0 + number for number in range(count)], "usd": [None] * count},
    )
    report.draw_tradeoffs(path, ["$a$"] * count, [TUNED] * count, quality, costs, "accuracy")
    assert path.read_bytes().startswith(b"\x89PNG")


class Paced:
    """Choosing without its trainings: each checkpoint's accuracy is told, and what befalls it."""

    def __init__(self, choosing: Choosing, fate: dict[tuple[str, int], Exception]) -> None:
        self.trained: list[tuple[str, int]] = []
        self.fate = fate
        choosing._frozen = lambda name: self.made(choosing, name, FROZEN, 0)  # type: ignore[method-assign]
        choosing._tune = lambda name, number, part: self.made(choosing, name, TUNED, number)  # type: ignore[method-assign]
        choosing.shares = lambda count: [0.1, 0.4]  # type: ignore[method-assign]

    def made(self, choosing: Choosing, name: str, how: str, number: int) -> Candidate:
        if error := self.fate.get((name, number)):
            raise error
        if how == TUNED:
            self.trained.append((name, number))
        value = 0.9 - 0.1 * choosing.models.index(name)
        metrics = {"accuracy": (value, value, value), "log_loss": (1.0, 1.0, 1.0)}
        return Candidate(name, how, 10, metrics, np.zeros(3, int), 1.0, 1.0, 1.0, 0.5, number)


@pytest.fixture
def choosing(engine, recipe, data, tmp_path) -> Choosing:
    names = ["a", "b", "c", "d"]
    return Choosing(recipe, names, dict.fromkeys(names, data), engine, tmp_path / "data", "accuracy", print)


def test_a_checkpoint_that_is_lost_is_left_out_and_the_others_go_on(choosing):
    Paced(choosing, {("a", 0): TrialLost("out of memory"), ("b", 1): DivergedError("no number"),
                     ("c", 2): TrialLost("killed")})  # fmt: skip
    tuned = [one for one in choosing.run() if one.how == TUNED]
    assert [(one.model, one.round) for one in tuned] == [("d", 2), ("c", 1)]
    assert choosing.lost == {"a": "out of memory", "b": "no number", "c": "killed"}


def test_where_all_are_lost_that_is_told_with_the_reasons(choosing):
    Paced(choosing, {(name, 1): TrialLost(f"{name} is gone") for name in choosing.models})
    with pytest.raises(TrialLost, match="a: a is gone; b: b is gone; c: c is gone; d: d is gone"):
        choosing.run()


def test_a_round_that_the_budget_does_not_suffice_for_is_left_away_whole(choosing):
    choosing.budget = Budget.parse("5trials")
    paced = Paced(choosing, {})
    tuned = [one for one in choosing.run() if one.how == TUNED]
    assert len(paced.trained) == 4
    assert [one.round for one in tuned] == [1] * 4
    assert choosing.ended == "The budget of 5trials lasted for 1 of 2 rounds"


def test_a_round_whose_time_comes_halfway_ranks_nobody(choosing):
    choosing.budget = Budget.parse("1h")
    Paced(choosing, {("a", 2): OutOfTime()})
    tuned = [one for one in choosing.run() if one.how == TUNED]
    assert {one.round for one in tuned} == {1}
    assert "1 of 2 rounds" in choosing.ended
    assert choosing.lost == {}


@pytest.mark.parametrize("fate", [{("a", 0): OutOfTime()}, {("d", 1): OutOfTime()}])
def test_a_budget_that_does_not_last_for_a_first_round_is_told_in_one_line(choosing, fate):
    choosing.budget = Budget.parse("1s")
    Paced(choosing, fate)
    with pytest.raises(InputError, match="--budget: 1s does not last until each checkpoint is fine-tuned once"):
        choosing.run()


def test_a_budget_of_no_time_ends_a_real_training(engine, recipe, data, tmp_path):
    name = recipe.model.name
    choosing = Choosing(recipe, [name], {name: data}, engine, tmp_path / "data", "accuracy", print,
                        budget=Budget.parse("0.001s"))  # fmt: skip
    with pytest.raises(InputError, match=r"--budget: 0\.001s does not last"):
        choosing.run()
    assert choosing.seconds == {}


@pytest.fixture
def four(tiny_checkpoint: Path, tmp_path: Path) -> list[str]:
    """The tiny checkpoint, and others of its kind: with one layer, and with other random weights."""
    import shutil

    import torch
    from transformers import BertConfig, BertModel

    names = [str(tiny_checkpoint)]
    for number, layers in enumerate((1, 2, 2)):
        folder = tmp_path / f"checkpoint{number}"
        torch.manual_seed(10 + number)
        config = BertConfig.from_pretrained(tiny_checkpoint)
        config.num_hidden_layers = layers
        BertModel(config).save_pretrained(folder)
        shutil.copy(tiny_checkpoint / "tokenizer.json", folder)
        names.append(str(folder))
    return names


@pytest.mark.slow
def test_all_are_scored_the_better_half_gets_more_rows_and_the_baseline_stands_beside_them(
    engine, recipe, four, tmp_path, monkeypatch
):
    data = {}
    for name in four:
        own = configured(recipe, {"model.name": name})
        data[name] = prepared(own.data, own.model, tmp_path / "data", "")
    heard: list[str] = []
    choosing = Choosing(recipe, four, data, engine, tmp_path / "data", "accuracy", heard.append, last=1.0)
    choosing.shares = lambda count: [0.3, 1.0]  # type: ignore[method-assign]
    found = choosing.run()
    tuned = [one for one in found if one.how == TUNED]
    assert sorted(one.model for one in tuned) == sorted(four)
    assert [one.round for one in tuned] == [2, 2, 1, 1]
    rows = PreparedData.load(data[four[0]]).rows["train"]
    assert tuned[0].rows == rows
    assert tuned[-1].rows == pytest.approx(0.3 * rows, abs=2)
    assert [one.how for one in found[4:]] == [FROZEN] * 4 + [BAG]
    assert all(one.score is not None and one.latency_ms and one.size_mb for one in found[:8])
    by_name = {one.model: one for one in tuned}
    assert by_name[four[1]].size_mb < by_name[four[0]].size_mb
    assert len(found[-1].answers) == len(choosing.labels())
    runs = engine.run.api.search_runs([engine.run.experiment], "tags.`mlflow.parentRunId` LIKE '%'")
    assert len(runs) == 4 + 2 + 4 + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert found[-1].latency_ms > 0
    assert found[-1].size_mb > 0
    again = Choosing(recipe, four, data, engine, tmp_path / "data", "accuracy", heard.append, last=1.0)
    again.shares = choosing.shares  # type: ignore[method-assign]
    monkeypatch.setattr(engine, "call", None)  # an earlier command has trained and embedded all
    assert [one.metrics for one in again.run()[:8]] == [one.metrics for one in found[:8]]
    assert again.seconds["fine-tuning"] == 0


def test_a_checkpoint_of_other_weights_under_the_same_name_is_embedded_anew(engine, overwritten, tmp_path):
    recipe, overwrite = overwritten
    name = recipe.model.name
    data = {name: prepared(recipe.data, recipe.model, tmp_path / "data", "")}

    def embedded() -> np.ndarray:
        command = Engine(engine.folder, engine.run)
        choosing = Choosing(recipe, [name], data, command, tmp_path / "data", "accuracy", print)
        return np.load(choosing._embed(name)[1])["train"]

    first = embedded()
    assert np.array_equal(embedded(), first)
    overwrite()
    assert not np.allclose(embedded(), first)


def test_the_shares_end_at_the_last_and_never_fall_below_what_can_be_trained(engine, recipe, data):
    choosing = Choosing(recipe, ["a"], {"a": data}, engine, data, "accuracy", print)
    assert choosing.shares(2) == [0.5]
    assert choosing.shares(4) == [0.5]  # of 143 rows: a fourth of that half would be too few
    manifest = PreparedData.load(data)
    manifest.rows["train"] = 100_000
    manifest.save(data)
    assert choosing.shares(4) == [0.125, 0.5]
    assert choosing.shares(8) == [0.03125, 0.125, 0.5]
