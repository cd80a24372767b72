"""The search: what it proposes, stops, repeats and shares, with a real study on SQLite and real trainings."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from itertools import pairwise
from typing import Any

import numpy as np
import optuna
import pytest

from tests.conftest import until
from tuneline.artifacts import PreparedData
from tuneline.errors import DivergedError, InputError
from tuneline.search import study as studies
from tuneline.search.job import TrialLost
from tuneline.search.report import front

pytestmark = pytest.mark.medium


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
    drawn = {trial.user_attrs[studies.OVERRIDES]["train.learning_rate"] for trial in search.study.trials}
    more = sweep(block, "9trials")
    more.run()
    assert studies.count(more.study).spent == 7
    assert len(engine.run.api.search_runs([engine.run.experiment], "tags.`tuneline.step` = 'trial'")) <= 9
    # By what is trained, of three digits: what is proposed may repeat it with more of them, and counts for nothing.
    again = {trial.user_attrs[studies.OVERRIDES]["train.learning_rate"] for trial in more.study.trials}
    assert drawn < again
    assert len(again) == 7  # the second command draws other values than the first did


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


def test_a_command_that_slept_does_not_take_its_own_trials_for_dead(sweep, tmp_path):
    search = sweep({"space": {"train.learning_rate": [GOOD]}}, "9trials")
    trial = search._ask()
    search._running.add(trial._trial_id)
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
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
        until(lambda: any("database" in line for line in search.heard))
        database.execute("ALTER TABLE away RENAME TO study_user_attributes")
        before = beat()
        until(lambda: beat() > before)
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


def test_each_maximal_length_has_data_of_its_own(sweep):
    search = sweep({"space": {"model.max_length": [8, 16]}}, "9trials")
    lengths = {PreparedData.load(folder).max_length for folder in search.data.values()}
    assert lengths == {8, 16}


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
