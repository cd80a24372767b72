"""The search: what it proposes, stops, repeats and spends, with a real study on SQLite and real trainings."""

from __future__ import annotations

import sqlite3
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from tuneline.artifacts import PreparedData
from tuneline.config import Recipe
from tuneline.dimensions import BALANCE
from tuneline.errors import DivergedError, InputError
from tuneline.recipe import validate
from tuneline.search import study as studies
from tuneline.search.budget import Budget
from tuneline.search.clock import SPENT
from tuneline.search.data import prepared
from tuneline.search.engine import configured
from tuneline.search.finals import standing
from tuneline.search.job import OutOfTime, Result, TrialLost
from tuneline.search.outcome import sentence
from tuneline.search.report import front
from tuneline.search.space import Choices, Range, own, readings, space_of, suggest, winner
from tuneline.search.sweep import Sweep, reading

pytestmark = pytest.mark.medium


@pytest.fixture
def sweep(recipe: Recipe, data: Path, engine: Any, tmp_path: Path) -> Any:
    """Makes a command's part in a study, over the recipe with this `sweep:` block."""

    def make(block: dict[str, Any], budget: str, owner: str = "here/1@1", lives=lambda _: True) -> Sweep:
        tree = recipe.model_dump(by_alias=True, mode="json") | {"sweep": block}
        chosen = validate(Recipe, tree)
        space = space_of(chosen, data)
        where = {reading(one): prepared(one.data, one.model, tmp_path / "search" / "data", "")
                 for one in readings(space, chosen)}  # fmt: skip
        found, _ = studies.open_study(f"sqlite:///{tmp_path / 'studies.db'}", "study", chosen, space)
        heard: list[str] = []
        made = Sweep(chosen, space, where, Budget.parse(budget), engine, found,
                     lambda *line: heard.append(line[3]), owner, lives)  # fmt: skip
        made.heard = heard  # type: ignore[attr-defined]
        return made

    return make


BAD, GOOD = 1e-7, 5e-3
ONE_RATE = {"space": {"train.learning_rate": [GOOD, BAD], "train.epochs": [8]}, "metric": "loss", "finalists": 1}


def test_a_bad_trial_is_stopped_long_before_its_last_epoch_and_a_good_one_is_not(sweep):
    search = sweep(ONE_RATE | {"seeds": 1, "sampler": "random"}, "7trials")
    search.run()
    trained = [trial for trial in search.study.trials if studies.state_of(trial) != "repeated"]
    by_rate = {trial.params["train.learning_rate"]: trial for trial in trained}
    assert len(trained) == len(by_rate) == 2
    assert studies.state_of(by_rate[BAD]) == "pruned"
    assert max(by_rate[BAD].intermediate_values) <= 4
    assert studies.state_of(by_rate[GOOD]) == "complete"
    assert search.standings()[0]["overrides"]["train.learning_rate"] == GOOD


def test_nothing_is_stopped_where_the_pruner_is_none(sweep):
    search = sweep(ONE_RATE | {"seeds": 1, "sampler": "random", "pruner": "none"}, "4trials")
    search.run()
    assert studies.count(search.study).pruned == 0
    assert studies.count(search.study).complete == 2


@pytest.mark.parametrize("budget", ["1h", "9trials"])
def test_a_space_that_holds_nothing_new_is_searched_no_longer_and_its_finalists_are_repeated(sweep, engine, budget):
    block = ONE_RATE | {"seeds": 2}
    search = sweep(block, budget)
    search.run()
    found = studies.count(search.study)
    assert (found.complete, found.pruned, found.spent) == (1, 1, 2)
    assert found.repeated >= studies.MOST_REPEATS
    runs = engine.run.api.search_runs([engine.run.experiment], "tags.`tuneline.step` = 'trial'")
    assert len(runs) == 3  # the good one, the bad one, and the good one with another seed
    assert [row["seeds"] for row in search.standings()] == [[0, 1]]
    assert search.heard.count("the space holds nothing new: the last 10 proposals repeat what was tried") == 1
    repeated = next(trial for trial in search.study.trials if studies.state_of(trial) == "repeated")
    twin = search.study.trials[repeated.user_attrs[studies.REPEATS]]
    assert (repeated.params, repeated.state) == (twin.params, twin.state)
    more = sweep(block, budget, owner="here/2@2")
    known = len(search.study.trials)
    more.run()  # another command may ask again, but no more often
    assert len(more.study.trials) == known + studies.MOST_REPEATS


def test_what_waits_to_be_tried_is_tried_also_where_the_last_proposals_were_repeats(sweep):
    search = sweep(ONE_RATE | {"seeds": 1}, "1h")
    search.search()
    assert studies.exhausted(search.study, search.owner)
    search.study.enqueue_trial({"train.learning_rate": BAD})
    assert not studies.exhausted(search.study, search.owner)


def test_a_budget_of_trials_counts_every_training_and_a_larger_one_goes_on(sweep, engine):
    block = {"space": {"train.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}, "train.epochs": [1]},
             "pruner": "none", "finalists": 2, "seeds": 2}  # fmt: skip
    search = sweep(block, "6trials")
    search.run()
    assert studies.count(search.study).spent == 4
    assert len(engine.run.api.search_runs([engine.run.experiment], "tags.`tuneline.step` = 'trial'")) == 6
    assert search.study.trials[0].params["train.learning_rate"] == GOOD  # the recipe's own
    first, second = search.standings()
    assert first["seeds"] == second["seeds"] == [0, 1]
    assert first["score"] == pytest.approx(np.mean(first["scores"]))
    assert first["score"] >= second["score"]
    drawn = {trial.params["train.learning_rate"] for trial in search.study.trials}
    more = sweep(block, "9trials")
    more.run()
    assert studies.count(more.study).spent == 7
    assert len(engine.run.api.search_runs([engine.run.experiment], "tags.`tuneline.step` = 'trial'")) <= 9
    again = {trial.params["train.learning_rate"] for trial in more.study.trials}
    assert drawn < again
    assert len(again) == 7  # the second command draws other values than the first did


def test_a_budget_of_time_is_kept_also_by_trials_that_are_under_way(sweep):
    block = {"space": {"train.learning_rate": [GOOD, 4e-3, 3e-3]}, "pruner": "none"}
    search = sweep(block, "5s")
    search.recipe = validate(Recipe, search.recipe.model_dump(by_alias=True) | {
        "train": search.recipe.train.model_dump() | {"epochs": 1000}})  # fmt: skip
    started = time.monotonic()
    search.run()
    assert time.monotonic() - started < 5 + 30
    states = [studies.state_of(trial) for trial in search.study.trials]
    assert "running" not in states


def test_a_budget_of_time_that_is_spent_starts_nothing_more_and_counts_what_dead_commands_spent(sweep):
    block = {"space": {"train.learning_rate": [GOOD]}, "pruner": "none"}
    first = sweep(block, "1h", owner="dead/1@1")
    first.study.set_user_attr("spent dead/1@1", 3599.5)  # as an older version told it
    first.study.set_user_attr("spent alive/2@1", 9999.0)
    search = sweep(block, "1h", lives=lambda owner: owner == "alive/2@1")
    assert 3599 < search.clock.elapsed < 3700
    search.clock.started -= 1
    search.run()
    assert [studies.state_of(trial) for trial in search.study.trials] == ["waiting"]


def test_seconds_of_a_command_on_another_host_count_once_it_has_ended(sweep):
    """As of a container, whose host's name the next one does not have; it is never seen to be dead."""
    block = {"space": {"train.learning_rate": [GOOD, 4e-3]}, "pruner": "none", "seeds": 1, "finalists": 1}
    first = sweep(block, "1trials", owner="container/1@1")
    first.clock.started -= 1000
    first.run()
    assert sweep(block, "1h", owner="another/1@1").clock.elapsed >= 1000


@pytest.mark.parametrize(("ago", "counts"), [(10, False), (299, False), (301, True)])
def test_seconds_of_a_command_that_tells_no_more_count_after_as_long_as_a_heartbeat_may_be_late(sweep, ago, counts):
    block = {"space": {"train.learning_rate": [GOOD]}}
    told = {"seconds": 1000.0, "at": time.time() - ago, "ended": False}
    sweep(block, "1h").study.set_user_attr(f"{SPENT}elsewhere/1@1", told)
    assert (sweep(block, "1h").clock.elapsed >= 1000) == counts


def test_a_command_that_works_has_not_ended(sweep):
    search = sweep({"space": {"train.learning_rate": [GOOD]}}, "1h")
    with search._alive():
        search.clock.note()
        assert not search.study.user_attrs[f"{SPENT}{search.owner}"]["ended"]
    assert search.study.user_attrs[f"{SPENT}{search.owner}"]["ended"]


def test_the_search_leaves_the_finalists_their_part_of_a_budget_of_time(sweep):
    block = {"space": {"train.epochs": [1, 2, 3]}, "pruner": "none", "finalists": 1, "seeds": 2}
    search, deadlines = sweep(block, "100s"), []
    known = search.study.ask({"train.epochs": optuna.distributions.CategoricalDistribution([1, 2, 3])})
    known.set_user_attr(studies.OVERRIDES, known.params)
    known.set_user_attr(studies.RESULT, Result({}, 0, 10.0, {"macro_f1": (0.5, 0.5, 0.5)}, 1.0, 9, 1.0, "").row())
    search.study.tell(known, 0.5)

    def trial(*_given: Any, deadline: float, **_named: Any) -> Any:
        deadlines.append(deadline - time.monotonic())
        search.clock.started -= 100
        raise OutOfTime

    search.engine.trial = trial
    search.study.enqueue_trial({"train.epochs": next(one for one in (1, 2, 3) if one != known.params["train.epochs"])})
    search.search()
    search.clock.started += 100
    search.repeat(search.finals())
    of_search, of_finals = deadlines
    assert of_search == pytest.approx(100 - 11, abs=5)  # the finalist's ten seconds, and a tenth
    assert of_finals == pytest.approx(100, abs=5)


def test_a_trial_that_runs_into_the_part_of_finalists_unknown_when_it_began_is_stopped_and_proposed_again(sweep):
    block = {"space": {"train.epochs": [1, 2, 3]}, "pruner": "none", "finalists": 1, "seeds": 2}
    search = sweep(block, "100s")

    def trial(*_given: Any, on_epoch: Any, **_named: Any) -> Any:
        known = search.study.ask({"train.epochs": optuna.distributions.CategoricalDistribution([1, 2, 3])})
        known.set_user_attr(studies.OVERRIDES, known.params)
        known.set_user_attr(studies.RESULT, Result({}, 0, 10.0, {"macro_f1": (0.5, 0.5, 0.5)}, 1.0, 9, 1.0, "").row())
        search.study.tell(known, 0.5)  # beside it, and its finalist wants eleven seconds
        search.clock.started -= 95
        on_epoch(1, {"validation_macro_f1": 0.4})
        raise AssertionError("it went on")

    search.engine.trial = trial
    search.search()
    states = [studies.state_of(one) for one in search.study.trials]
    assert states.count("lost") == 1
    assert "waiting" in states


def test_what_a_dead_command_was_training_is_proposed_again_and_a_living_one_s_is_left(sweep):
    block = {"space": {"train.learning_rate": [GOOD]}, "pruner": "none", "seeds": 1}
    search = sweep(block, "3trials", lives=lambda owner: owner == "alive")
    for owner in ("dead", "alive"):
        trial = search.study.ask()
        trial.set_user_attr(studies.OWNER, owner)
        trial.suggest_categorical("train.learning_rate", [GOOD])
    assert studies.recover(search.study, search.lives, {}) == 1
    states = [studies.state_of(trial) for trial in search.study.trials]
    assert states == ["lost", "running", "waiting"]
    assert search.study.trials[2].system_attrs["fixed_params"] == {"train.learning_rate": GOOD}
    assert studies.count(search.study).spent == 1


def test_a_trial_that_is_lost_twice_by_its_own_fault_is_not_tried_a_third_time(sweep):
    search = sweep({"space": {"train.learning_rate": [GOOD]}}, "9trials")
    for expected in ("lost", "failed"):
        trial = search.study.ask()
        trial.suggest_categorical("train.learning_rate", [GOOD])
        studies.lose(search.study, trial, "killed", blame=True)
        assert studies.state_of(search.study.trials[-1 if expected == "failed" else 0]) == expected
    assert [studies.state_of(trial) for trial in search.study.trials] == ["lost", "failed"]


@pytest.mark.parametrize("when", ["while it trains", "after its last epoch"])
def test_a_trial_that_was_failed_from_outside_is_lost_alone(sweep, when):
    """As by another pod that has heard no heartbeat for five minutes."""
    search = sweep({"space": {"train.learning_rate": [GOOD, 4e-3]}, "pruner": "none", "seeds": 1}, "2trials")
    trained, failed = search.engine.trial, optuna.trial.TrialState.FAIL

    def trial(*given: Any, on_epoch: Any, **named: Any) -> Any:
        def heard(epoch: int, numbers: dict[str, float]) -> bool:
            if search.study.trials[0].state.name == "RUNNING" and when == "while it trains":
                search.study.tell(0, state=failed)
            return on_epoch(epoch, numbers)

        result = trained(*given, on_epoch=heard, **named)
        if search.study.trials[0].state.name == "RUNNING":
            search.study.tell(0, state=failed)
        return result

    search.engine.trial = trial
    search.run()
    states = [studies.state_of(one) for one in search.study.trials]
    assert [state for state in states if state != "repeated"] == ["lost", "complete", "complete"]
    assert any("trial 0: lost: another worker took it for dead" in line for line in search.heard)


def test_a_command_that_slept_does_not_take_its_own_trials_for_dead(sweep):
    search = sweep({"space": {"train.learning_rate": [GOOD]}}, "9trials")
    trial = search._ask()
    search._running.add(trial._trial_id)
    search.study._storage._backend.grace_period = 1
    time.sleep(2.5)
    search._ask()
    assert [studies.state_of(one) for one in search.study.trials[:2]] == ["running", "running"]


def test_the_heartbeat_goes_on_after_a_hiccup_of_the_database(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("tuneline.search.sweep.TICK_SECONDS", 0.1)
    search = sweep({"space": {"train.learning_rate": [GOOD]}}, "9trials")
    trial = search._ask()
    search._running.add(trial._trial_id)
    database = sqlite3.connect(tmp_path / "studies.db", isolation_level=None)

    def beat() -> str:
        return database.execute("SELECT heartbeat FROM trial_heartbeats").fetchone()[0]

    with search._alive():
        database.execute(
            "ALTER TABLE study_user_attributes RENAME TO away"
        )  # what any statement on it meets is an error
        wait_for(lambda: any("database" in line for line in search.heard))
        database.execute("ALTER TABLE away RENAME TO study_user_attributes")
        before = beat()
        wait_for(lambda: beat() > before)
    told = [line for line in search.heard if "database" in line]
    assert told == ["the study's database: no such table: study_user_attributes; tried again"]


def test_a_database_that_is_away_for_a_moment_ends_neither_the_command_nor_a_trial(sweep, tmp_path):
    block = {"space": {"train.learning_rate": [GOOD, 4e-3], "train.epochs": [2]}, "pruner": "none", "seeds": 1}
    search = sweep(block, "2trials")
    trained = search.engine.trial
    database = sqlite3.connect(tmp_path / "studies.db", isolation_level=None, check_same_thread=False, timeout=60)

    def goes_away() -> None:
        database.execute("ALTER TABLE trial_values RENAME TO away")
        threading.Timer(1, database.execute, ["ALTER TABLE away RENAME TO trial_values"]).start()

    def trial(*given: Any, on_epoch: Any, **named: Any) -> Any:
        def heard(epoch: int, numbers: dict[str, float]) -> bool:
            if epoch == 1:
                goes_away()
            return on_epoch(epoch, numbers)

        result = trained(*given, on_epoch=heard, **named)
        time.sleep(1.5)
        goes_away()
        return result

    search.engine.trial = trial
    search.run()
    states = [studies.state_of(one) for one in search.study.trials]
    assert [state for state in states if state != "repeated"] == ["complete", "complete"]
    told = {line for line in search.heard if "database" in line}
    assert told == {"the study's database: no such table: trial_values; tried again"}
    database.close()


def test_ctrl_c_waits_for_no_database_that_is_away(sweep, tmp_path):
    search, started = sweep({"space": {"train.learning_rate": [GOOD]}}, "9trials"), time.monotonic()
    with pytest.raises(KeyboardInterrupt), search._alive():
        with sqlite3.connect(tmp_path / "studies.db") as database:
            database.execute("ALTER TABLE study_user_attributes RENAME TO away")
        raise KeyboardInterrupt
    assert time.monotonic() - started < 60


def wait_for(what: Any) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_settings_that_cannot_be_trained_at_all_end_the_search_in_one_line(sweep):
    block = {"space": {"train.class_weights": [True], "train.sampling": ["balanced"]}, "seeds": 1}
    with pytest.raises(InputError, match=r"no trial could be trained; the last one: .*class_weights"):
        sweep(block, "9trials").run()


def failed(study: optuna.Study, count: int) -> None:
    for number in range(count):
        trial = study.ask()
        trial.suggest_float("train.learning_rate", 1e-3, 1e-2)
        trial.set_user_attr(studies.ERROR, f"diverged {number}")
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)


def test_a_search_is_not_given_up_for_the_first_of_many_that_end_while_others_train(sweep):
    study = sweep({"space": {"train.learning_rate": {"low": 1e-3, "high": 1e-2}}}, "30s").study
    running = [study.ask() for _ in range(3)]
    failed(study, studies.HOPELESS)
    assert not studies.hopeless(study, "me")
    failed(study, 3)
    assert studies.hopeless(study, "me")
    running[0].report(0.3, 1)
    assert not studies.hopeless(study, "me")


def test_settings_whose_process_was_lost_are_trained_again_where_they_are_drawn_again(sweep):
    search = sweep({"space": {"train.learning_rate": [GOOD]}}, "9trials")
    for _ in range(2):
        trial = search.study.ask()
        trial.set_user_attr(studies.OVERRIDES, {"train.learning_rate": trial.suggest_categorical(
            "train.learning_rate", [GOOD])})  # fmt: skip
        studies.lose(search.study, trial, "out of memory", blame=True)
    assert studies.state_of(search.study.trials[-1]) == "failed"
    assert studies.twin(search.study, {"train.learning_rate": GOOD}) is None


@pytest.mark.parametrize("error", [TrialLost("its process was killed"), DivergedError("the loss is no number")])
def test_a_search_none_of_whose_trials_lives_or_converges_is_given_up_long_before_its_budget_is_spent(sweep, error):
    search = sweep({"space": {"train.learning_rate": {"low": 1e-3, "high": 1e-2}}}, "30s")

    def trial(*_given: Any, **_named: Any) -> Any:
        raise error

    search.engine.trial = trial
    with pytest.raises(InputError, match=f"no trial could be trained; the last one: {error}"):
        search.run()
    assert len(search.study.trials) <= 2 * studies.HOPELESS + 1


def test_two_workers_share_the_study(sweep, engine):
    engine.workers = 2
    block = {"space": {"train.learning_rate": {"low": 1e-3, "high": 1e-2}, "train.epochs": [2]}, "pruner": "none",
             "finalists": 2, "seeds": 2}  # fmt: skip
    search = sweep(block, "6trials")
    search.run()
    assert studies.count(search.study).spent == 4
    assert [row["seeds"] for row in search.standings()] == [[0, 1], [0, 1]]
    runs = engine.run.api.search_runs([engine.run.experiment], "tags.`tuneline.step` = 'trial'")
    spans = sorted((run.info.start_time, run.info.end_time) for run in runs)
    assert any(later[0] < earlier[1] for earlier, later in pairwise(spans))


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


@pytest.mark.parametrize(("spec", "expected"), [
    ("train.focal_gamma: {low: 0, high: 5}", Range(0, 5)),
    ("train.epochs: {low: 2.0, high: 8}", Range(2, 8, whole=True)),
    ("train.learning_rate: [1e-5, 5e-3]", Choices((1e-5, 5e-3))),
    ("train.batch_size: ['8', 16.0]", Choices((8, 16))),
    ("model.max_length: [12.0, 16]", Choices((12, 16))),
    ("train.tune: [all, head]", Choices(("all", "head"))),
    ("train.encoder_dropout: [true, false]", Choices((True, False))),
    ("balance: [none, focal]", Choices(("none", "focal"))),
])  # fmt: skip
def test_values_are_taken_as_their_field_takes_them_however_they_are_written(recipe, data, spec, expected):
    block = {"space": yaml.safe_load(f"{{{spec}}}")}
    chosen = validate(Recipe, recipe.model_dump(by_alias=True, mode="json") | {"sweep": block})
    space = space_of(chosen, data)
    (key,) = space
    assert repr(space[key]) == repr(expected)  # in which 2 and 2.0 differ
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), space) for _ in range(9)]
    for overrides in drawn:
        configured(chosen, overrides)
    if key == "train.focal_gamma":
        assert any(overrides[key] % 1 for overrides in drawn)
    if key == "train.learning_rate":
        assert own(space, chosen) == {key: 5e-3}


def test_the_default_space_surrounds_the_recipe_and_asks_for_balance_only_where_classes_are_unequal(recipe, data):
    space = space_of(recipe, data)
    assert space["train.learning_rate"] == Range(1e-3, 0.05, log=True, wider=True)
    assert space["train.epochs"] == Range(2, 8, whole=True)
    assert space["train.batch_size"] == Choices((8, 16, 32))
    assert space["train.tune"] == Choices(("all", "top_layers", "lora"))
    assert "balance" not in space
    manifest = PreparedData.load(data)
    manifest.class_counts["train"][0] //= 4
    manifest.save(data)
    assert space_of(recipe, data)["balance"] == Choices(
        ("none", "class_weights", "focal", "balanced_sampling", "logit_adjustment")
    )
    assert own(space, recipe) == {"train.learning_rate": 5e-3, "train.epochs": 4, "train.batch_size": 16,
                                  "train.tune": "all"}  # fmt: skip


def test_a_treatment_of_the_recipe_s_own_is_a_choice_and_is_tried_first(recipe, data):
    manifest = PreparedData.load(data)
    manifest.class_counts["train"][0] //= 4
    manifest.save(data)
    own_gamma = configured(recipe, {"train.focal_gamma": 1.5})
    space = space_of(own_gamma, data)
    study = optuna.create_study()
    studies.propose_first(study, space, own_gamma)
    first = suggest(study.ask(), space)
    assert configured(own_gamma, first).train == own_gamma.train
    assert winner(own_gamma, first)["train"]["focal_gamma"] == 1.5
    assert set(space["balance"].values) == {*BALANCE, first["balance"]}


@pytest.mark.parametrize("tune", ["all", "lora"])
@pytest.mark.parametrize("rate", [1e-5, 0.05, 0.06, 0.3, 0.9])
def test_the_recipe_s_learning_rate_stands_in_the_default_space_and_all_of_it_can_be_trained(recipe, data, tune, rate):
    high = configured(recipe, {"train.learning_rate": rate, "train.tune": tune})
    space = space_of(high, data)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    studies.propose_first(study, space, high)
    drawn = [suggest(study.ask(), space) for _ in range(40)]
    assert drawn[0]["train.learning_rate"] == rate
    for overrides in drawn:
        configured(high, overrides)


@pytest.mark.parametrize("tune", ["all", "lora"])
def test_each_way_of_tuning_is_tried_for_long_before_anything_is_drawn(recipe, data, tune):
    chosen = configured(recipe, {"train.tune": tune, "train.learning_rate": 5e-4 if tune == "all" else 5e-3})
    space, study = space_of(chosen, data), optuna.create_study()
    studies.propose_first(study, space, chosen)
    first = [suggest(study.ask(), space) for _ in range(4)]
    assert first[0] == {key: getattr(chosen.train, key.removeprefix("train.")) for key in space}
    tried = [(one["train.tune"], one["train.learning_rate"], one["train.epochs"]) for one in first[1:]]
    assert tried == [("top_layers", 1e-3, 8), ("lora", 1e-2, 8), ("all", 1e-3, 8)]
    assert {one["train.batch_size"] for one in first} == {chosen.train.batch_size}


@pytest.mark.parametrize(("block", "waiting"), [
    ({"sampler": "random"}, 1),
    ({"space": {"train.epochs": [1, 2], "train.learning_rate": {"low": 1e-3, "high": 1e-2}}}, 1),
    ({"space": {"train.epochs": {"low": 1, "high": 9}, "train.batch_size": [8, 16]}}, 2),
])  # fmt: skip
def test_nothing_but_the_recipe_is_tried_first_where_chance_or_a_list_decides(recipe, data, block, waiting):
    chosen = validate(Recipe, recipe.model_dump(by_alias=True, mode="json") | {"sweep": block})
    space, study = space_of(chosen, data), optuna.create_study()
    studies.propose_first(study, space, chosen)
    assert len(study.trials) == waiting
    studies.propose_first(study, space, chosen)
    assert len(study.trials) == waiting
    for _ in range(6):
        configured(chosen, suggest(study.ask(), space))


def test_what_tunes_few_parameters_gets_a_larger_learning_rate(recipe, data):
    space = space_of(recipe, data) | {
        "train.tune": Choices(("lora",)),
        "train.learning_rate": Range(0.01, 0.02, wider=True),
    }
    drawn = suggest(optuna.create_study().ask(), space)
    assert 0.1 <= drawn["train.learning_rate"] <= 0.2
    given = validate(Recipe, recipe.model_dump(by_alias=True) | {
        "sweep": {"space": {"train.learning_rate": {"low": 0.1, "high": 0.2}, "train.tune": ["lora"]}}})  # fmt: skip
    assert 0.1 <= suggest(optuna.create_study().ask(), space_of(given, data))["train.learning_rate"] <= 0.2


def test_each_maximal_length_has_data_of_its_own(sweep):
    search = sweep({"space": {"model.max_length": [8, 16]}}, "9trials")
    lengths = {PreparedData.load(folder).max_length for folder in search.data.values()}
    assert lengths == {8, 16}


def test_the_winner_s_recipe_holds_what_won_and_no_defaults(recipe):
    tree = winner(recipe, {"train.epochs": 7, "balance": "focal", "model.max_length": 24})
    assert (tree["train"]["epochs"], tree["train"]["focal_gamma"], tree["model"]["max_length"]) == (7, 2.0, 24)
    assert "sweep" not in tree
    assert validate(Recipe, tree).data == recipe.data


@pytest.mark.parametrize(
    ("text", "trials", "seconds"),
    [("2h", None, 7200), ("30m", None, 1800), ("90s", None, 90), ("20trials", 20, None), ("1 trial", 1, None),
     ("1.5H", None, 5400), ("5usd", None, 9000)],
)  # fmt: skip
def test_a_budget_is_read(text, trials, seconds):
    found = Budget.parse(text, 2.0)
    assert (found.trials, found.seconds) == (trials, seconds)


@pytest.mark.parametrize("text", ["", "20", "0h", "-3m", "2.5trials", "2 weeks", "usd"])
def test_another_budget_is_refused(text):
    with pytest.raises(InputError, match="--budget"):
        Budget.parse(text, 2.0)


def test_dollars_need_a_price():
    with pytest.raises(InputError, match="--usd-per-hour"):
        Budget.parse("5usd")


def test_a_database_that_is_not_there_is_one_line_without_its_password(recipe):
    with pytest.raises(InputError, match=r"--storage: postgresql://db") as told:
        studies.open_study("postgresql://me:secret@db/none", "study", recipe, {})
    assert "secret" not in str(told.value)


def test_a_study_s_name_is_not_taken_for_another_search(sweep):
    sweep({"space": {"train.epochs": [1, 2]}}, "9trials")
    with pytest.raises(InputError, match="--study: study has searched another space or metric"):
        sweep({"space": {"train.epochs": [1, 3]}}, "9trials")


def test_the_front_is_what_nothing_beats_in_both():
    points = [(1.0, 0.8), (2.0, 0.7), (3.0, 0.9), (3.0, 0.95), (9.0, 0.95)]
    assert front(points) == [0, 3]
    assert front([(1, 0.5), (2, 0.4), (3, 0.45)], minimal=True) == [0, 1]
