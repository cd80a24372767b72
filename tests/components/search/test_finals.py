"""The finalists of a search: over which seeds they are compared, how surely, and the sentence about it."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import optuna
import pytest

from tests.conftest import until
from tuneline.search import finals as finals_module
from tuneline.search import study as studies
from tuneline.search.clock import SPENT
from tuneline.search.finals import attribute, give_back, standing, take
from tuneline.search.job import Result
from tuneline.search.outcome import sentence

pytestmark = pytest.mark.medium


@pytest.fixture
def finals(sweep):
    """Gives the standings of finalists that were trained with these seeds, the first trial the best by its first."""

    def standings(*seeds: tuple[int, ...]) -> tuple[list[dict[str, Any]], list[str]]:
        search = sweep({"space": {"train.epochs": [1, 2, 3, 4]}, "finalists": len(seeds), "seeds": 3}, "9trials")
        for place, trained in enumerate(seeds):
            trial, score = (
                search.study.ask({"train.epochs": optuna.distributions.IntDistribution(1, 4)}),
                0.9 - place / 10,
            )
            trial.set_user_attr(studies.OVERRIDES, {"train.epochs": place + 1})
            for seed in trained:
                result = Result({}, seed, 1.0, {"macro_f1": (score, score, score)}, 1.0, 9, 1.0, "").row()
                if seed:
                    search.study.set_user_attr(f"final {trial.number} {seed}", result)
                else:
                    trial.set_user_attr(studies.RESULT, result)
            search.study.tell(trial, score)
        return search.standings(), search.heard

    return standings


def test_finalists_are_compared_over_the_same_seeds_also_where_a_training_was_lost(finals):
    rows, heard = finals((0, 1, 2), (0, 2), (0, 1, 2))
    assert [row["seeds"] for row in rows] == [[0, 2]] * 3
    assert heard == []


def test_a_finalist_whose_other_seeds_are_lost_does_not_cut_the_others_to_one_seed(finals):
    rows, heard = finals((0,), (0, 1, 2), (0, 1, 2))
    assert [(row["trial"], row["seeds"]) for row in rows] == [(1, [0, 1, 2]), (2, [0, 1, 2])]
    assert heard == ["trial 0: left out of the ranking: not trained with other seeds that the rest has"]


def test_finalists_that_no_other_seed_was_trained_for_are_compared_over_the_first(finals):
    rows, _ = finals((0,), (0,))
    assert [row["seeds"] for row in rows] == [[0], [0]]


NOW = time.time()


@pytest.mark.parametrize(("lives", "heard", "free"), [
    (True, {}, False),
    (True, {"seconds": 9.0, "at": NOW, "ended": False}, False),
    (True, {"seconds": 9.0, "at": NOW - 301, "ended": False}, False),  # it took the training after that
    (True, {"seconds": 9.0, "at": NOW, "ended": True}, True),
    (False, {"seconds": 9.0, "at": NOW, "ended": False}, True),
    (False, {}, True),
])  # fmt: skip
def test_a_training_that_a_command_has_taken_is_left_to_it_until_that_is_over(lives, heard, free):
    study = optuna.create_study()
    for_it = {"study": study, "result": attribute(3, 1)}
    assert take(**for_it, owner="other", lives=lambda _: True)
    if heard:
        study.set_user_attr(f"{SPENT}other", heard)
    assert take(**for_it, owner="other", lives=lambda _: True)
    assert take(study, attribute(3, 2), "own", lambda _: lives)
    assert take(**for_it, owner="own", lives=lambda _: lives) == free
    give_back(study, attribute(3, 1))
    assert take(**for_it, owner="own", lives=lambda _: lives)


def test_a_training_of_a_command_that_cannot_be_seen_and_is_silent_for_minutes_is_taken_over(monkeypatch):
    study = optuna.create_study()
    assert take(study, attribute(3, 1), "elsewhere", lambda _: True)
    assert not take(study, attribute(3, 1), "own", lambda _: True)
    later = time.time() + 400
    monkeypatch.setattr(time, "time", lambda: later)
    assert take(study, attribute(3, 1), "own", lambda _: True)


def test_commands_on_one_study_share_the_finalists_trainings_and_wait_for_each_other(sweep, engine, monkeypatch):
    block = {"space": {"train.learning_rate": [5e-3, 4e-3]}, "finalists": 2, "seeds": 3, "pruner": "none"}
    first = sweep(block, "1h", owner="here/1@1")
    first.search()
    second, trained = sweep(block, "1h", owner="here/2@2"), list[str]()
    alone = engine.trial

    def trial(*given: Any, **named: Any) -> Any:
        if given[3].endswith("seed 1"):
            both.wait(600)  # else one of them would have trained all before the other came to it
        trained.append(given[3])
        return alone(*given, **named)

    both, engine.trial = threading.Barrier(2), trial
    monkeypatch.setattr(finals_module, "SETTLE_SECONDS", 3.0)  # this machine may be busy
    commands = [threading.Thread(target=one.run) for one in (first, second)]
    for command in commands:
        command.start()
    for command in commands:
        command.join(600)
        assert not command.is_alive()
    assert sorted(trained) == [f"trial {number} seed {seed}" for number in (0, 1) for seed in (1, 2)]
    for one in (first, second):
        assert [row["seeds"] for row in one.standings()] == [[0, 1, 2]] * 2


def test_a_pod_waits_for_what_a_dead_one_elsewhere_has_taken_until_that_is_silent_for_minutes(sweep):
    block = {"space": {"train.learning_rate": [5e-3]}, "finalists": 1, "seeds": 2, "pruner": "none"}
    pod = sweep(block, "1h", owner="second/repeat 0@2")
    pod.search()
    trainings = pod.finals()
    result = attribute(trainings[0][0].number, trainings[0][1])
    assert take(pod.study, result, "first/repeat 0@1", lambda _: True)
    repeat = threading.Thread(target=pod.repeat, args=(trainings,))
    repeat.start()
    until(lambda: "waiting for finalists that another command on this study trains" in pod.heard)
    pod.study.set_user_attr(f"taken {result}", {"owner": "first/repeat 0@1", "at": time.time() - 301})
    repeat.join(600)
    assert not repeat.is_alive()
    assert result in pod.study.user_attrs


def test_what_another_command_has_taken_and_lost_is_trained_by_who_waits_for_it(sweep):
    block = {"space": {"train.learning_rate": [5e-3]}, "finalists": 1, "seeds": 2, "pruner": "none"}
    search = sweep(block, "1h")
    search.search()
    ((trial, seed),) = search.finals()
    assert take(search.study, attribute(trial.number, seed), "other", lambda _: True)
    command = threading.Thread(target=search.run)
    command.start()
    until(lambda: "waiting for finalists that another command on this study trains" in search.heard)
    assert [row["seeds"] for row in search.standings()] == [[0]]
    give_back(search.study, attribute(trial.number, seed))
    command.join(600)
    assert not command.is_alive()
    assert [row["seeds"] for row in search.standings()] == [[0, 1]]


def finalist(scores: list[float], metric: str = "macro_f1", arm: float = 0.0) -> dict[str, Any]:
    trial = optuna.trial.create_trial(value=0.5, user_attrs={studies.OVERRIDES: {}})
    key = "log_loss" if metric == "loss" else metric
    results = [Result({}, seed, 1.0, {key: (score, score - arm, score + 2 * arm)}, 1.0, 9, 1.0, "")
               for seed, score in enumerate(scores)]  # fmt: skip
    return standing(trial, results, metric)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_a_finalist_s_interval_is_of_rows_and_of_seeds(seeds):
    from scipy.stats import t

    scores = [0.5 + 0.001 * (seed % 2) for seed in range(seeds)]
    arm = t.ppf(0.975, seeds - 1) * np.std(scores, ddof=1) / np.sqrt(seeds)
    found = finalist(scores, arm=0.01)
    assert found["score"] == pytest.approx(np.mean(scores))
    assert found["score"] - found["low"] == pytest.approx(np.hypot(0.01, arm), rel=1e-3)
    assert found["high"] - found["score"] == pytest.approx(np.hypot(0.02, arm), rel=1e-3)


def test_a_finalist_s_interval_ends_where_its_metric_does_and_with_one_seed_is_the_rows_own():
    found = finalist([0.8, 0.9])
    assert (found["low"], found["high"]) == (pytest.approx(0.2147, abs=1e-4), 1.0)
    found = finalist([0.8, 1.1], metric="loss")
    assert found["low"] == 0.0
    assert found["high"] > 2
    found = finalist([0.7], arm=0.1)
    assert (found["low"], found["high"]) == (pytest.approx(0.6), pytest.approx(0.9))


@pytest.mark.parametrize(("scores", "others", "told"), [
    ([0.8], [0.7], "with one seed, which is an anecdote; the next one is 0.1000 behind."),
    ([0.8, 0.8], [0.7, 0.7], "the mean of 2 seeds; the next one is 0.1000 behind."),
    ([0.79, 0.81], [0.78, 0.78], "is 0.0200 behind, within the interval of 0.6729 to 0.9271."),
])  # fmt: skip
def test_the_sentence_says_what_the_lead_is_worth(scores, others, told):
    best, second = ({"overrides": {"train.epochs": 2}, **finalist(of)} for of in (scores, others))
    found = sentence({"best": best, "finalists": [best, second], "metric": "macro_f1"})
    assert found.endswith(told)


@pytest.mark.parametrize(("seconds", "told"), [(95.0, "to 0.9271."), (40.0, ", and took 40 seconds instead of 100.")])
def test_the_sentence_says_where_one_that_is_hardly_behind_was_quicker(seconds, told):
    best, second = ({"overrides": {}, **finalist(of)} for of in ([0.79, 0.81], [0.78, 0.78]))
    best["seconds"], second["seconds"] = 100.0, seconds
    assert sentence({"best": best, "finalists": [best, second], "metric": "macro_f1"}).endswith(told)
