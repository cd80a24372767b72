"""A study that several processes share: each of them really is one, and all ask at the same moment."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import optuna
import pytest

from tests.components.search.askers import race
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.recipe import validate
from tuneline.search import study as studies
from tuneline.search.space import Choices, Range, study_name

pytestmark = pytest.mark.medium

RATE = "train.learning_rate"
SPACE = {RATE: Range(1e-3, 1e-2, log=True)}


def test_workers_that_ask_at_the_same_moment_start_no_trial_more_than_the_budget_and_none_less(
    recipe: Recipe, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    budgets = {"one": 1, "once more": 1, "three": 3, "as many as workers": 4, "ten": 10}
    race(url, recipe, SPACE, 4, budgets)
    for name, most in budgets.items():
        study = optuna.load_study(study_name=name, storage=url)
        found = studies.count(study)
        assert (found.complete, found.spent) == (most, most), name
        rates = [trial.params[RATE] for trial in study.trials if trial.state.name == "COMPLETE"]
        assert len(set(rates)) == most, name
        # The first trial is given back where it was one too many when its worker counted; its settings wait again.
        assert rates.count(recipe.train.learning_rate) + (studies.state_of(study.trials[0]) == "lost") >= 1, name
        assert rates.count(recipe.train.learning_rate) <= 1, name


def test_another_origin_is_another_study_and_a_study_s_name_is_not_taken_for_it(recipe: Recipe, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    names = {study_name(recipe, SPACE, "pin", origin) for origin in ("these", "those")}
    assert len(names) == 2
    studies.open_study(url, "study", recipe, SPACE, "these")
    studies.open_study(url, "study", recipe, SPACE, "these")
    studies.open_study(url, "study", recipe, SPACE)
    with pytest.raises(InputError, match="--study: study holds trials of other weights"):
        studies.open_study(url, "study", recipe, SPACE, "those")


def test_a_proposal_that_was_given_back_is_the_next_to_be_tried(recipe: Recipe, tmp_path: Path) -> None:
    study, _ = studies.open_study(f"sqlite:///{tmp_path / 'studies.db'}", "study", recipe, SPACE)
    trial = study.ask()
    studies.lose(study, trial, "given back")
    drawn = study.ask().suggest_float(RATE, 1e-3, 1e-2, log=True)
    assert drawn == recipe.train.learning_rate
    assert [studies.state_of(one) for one in study.trials] == ["lost", "running"]


def test_a_study_that_has_its_trials_gives_no_more_whether_they_ended_well_or_not(
    recipe: Recipe, tmp_path: Path
) -> None:
    study, _ = studies.open_study(f"sqlite:///{tmp_path / 'studies.db'}", "study", recipe, SPACE)
    states = optuna.trial.TrialState
    for state in (states.COMPLETE, states.PRUNED, states.FAIL):
        trial = studies.ask(study, "me", 4)
        assert trial is not None
        trial.set_user_attr(studies.ERROR, "diverged")
        study.tell(trial, 0.5 if state == states.COMPLETE else None, state=state)
    lost = studies.ask(study, "me", 4)
    assert lost is not None
    assert studies.ask(study, "another", 4) is None
    studies.lose(study, lost, "its command was killed")
    assert studies.ask(study, "another", 4) is not None
    assert studies.ask(study, "me", None) is not None


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def study(recipe: Recipe, url: str) -> optuna.Study:
    return studies.open_study(url, "study", recipe, SPACE)[0]


def dead(_owner: str) -> bool:
    return False


def started(study: optuna.Study, owner: str = "dead") -> optuna.Trial:
    """The next trial, under way."""
    trial = studies.ask(study, owner, None)
    assert trial is not None
    trial.suggest_float(RATE, 1e-3, 1e-2, log=True)
    return trial


def test_settings_that_three_commands_died_of_are_given_up_and_what_was_stopped_does_not_count(
    study: optuna.Study,
) -> None:
    for _ in range(2):
        started(study)
        assert studies.recover(study, dead, {}) == 1
        studies.lose(study, started(study), "the command was stopped")
    started(study)
    assert studies.recover(study, dead, {}) == 0
    assert [studies.state_of(one) for one in study.trials] == ["lost", "lost", "lost", "lost", "failed"]
    assert len({one.params[RATE] for one in study.trials}) == 1
    assert study.trials[4].user_attrs[studies.ERROR] == "given up: 3 commands or pods died while they trained it"


def test_of_several_that_a_command_was_training_nobody_knows_which_one_it_died_of(study: optuna.Study) -> None:
    for _ in range(4):
        started(study)
        started(study)
        assert studies.recover(study, dead, {}) == 2


def test_settings_that_three_pods_died_of_whose_heartbeat_stopped_are_given_up_too(
    study: optuna.Study, tmp_path: Path
) -> None:
    for again in (1, 1, 0):
        started(study)
        with sqlite3.connect(tmp_path / "studies.db") as database:
            database.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
        assert studies.recover(study, lambda _: True, {}) == again
    assert [studies.state_of(one) for one in study.trials] == ["lost", "lost", "failed"]


def test_a_trial_without_an_owner_is_dead_after_a_minute_of_this_process_whatever_another_s_clock_says(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.ask()
    with sqlite3.connect(tmp_path / "studies.db") as database:  # of a time zone in which it is earlier
        database.execute("UPDATE trials SET datetime_start = '2020-01-01 00:00:00.000000'")
    ownerless: dict[int, float] = {}
    assert studies.recover(study, dead, ownerless) == 0
    monkeypatch.setattr(studies, "OWNERLESS_SECONDS", 0.1)
    time.sleep(0.2)
    assert studies.recover(study, dead, {}) == 0  # another process sees it for the first time
    assert studies.recover(study, dead, ownerless) == 1
    (lost, again) = study.trials
    assert (studies.state_of(lost), studies.state_of(again)) == ("lost", "waiting")
    assert again.user_attrs[studies.DEATHS] == 0


def test_whoever_s_trial_was_taken_for_dead_before_it_had_an_owner_asks_again(
    study: optuna.Study, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, other = study.ask, optuna.load_study(study_name="study", storage=url)

    def slow() -> optuna.Trial:
        monkeypatch.undo()
        trial = ask()
        studies.lose(other, other.trials[trial.number], "its command was killed")
        return trial

    monkeypatch.setattr(study, "ask", slow)
    trial = studies.ask(study, "me", 1)
    assert trial is not None
    assert [studies.state_of(one) for one in study.trials] == ["lost", "running"]
    assert trial.number == 1


def test_of_two_that_recover_a_trial_at_once_one_proposes_it_again(
    study: optuna.Study, recipe: Recipe, url: str
) -> None:
    started(study)
    other, _ = studies.open_study(url, "study", recipe, SPACE)
    found = []

    def lives(_owner: str) -> bool:
        found.append(studies.recover(other, dead, {}))
        return False

    assert studies.recover(study, lives, {}) == 0
    assert found == [1]
    assert [studies.state_of(one) for one in study.trials] == ["lost", "waiting"]


@pytest.mark.parametrize(("space", "most"), [
    (SPACE, 4), ({"train.epochs": Range(2, 9, whole=True)}, 9), ({"train.epochs": Choices((2, 6))}, 6),
])  # fmt: skip
def test_hyperband_counts_to_the_epochs_that_trials_have(recipe: Recipe, url: str, space: dict, most: int) -> None:
    tree = recipe.model_dump(by_alias=True, mode="json") | {"sweep": {"pruner": "hyperband"}}
    study, _ = studies.open_study(url, "study", validate(Recipe, tree), space)
    assert recipe.train.epochs == 4
    assert study.pruner._max_resource == most
