"""A study that several processes share: each of them really is one, and all ask at the same moment."""

from __future__ import annotations

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
        if most >= 4:  # nobody had to give back the first ones
            assert rates.count(recipe.train.learning_rate) == 1, name


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


@pytest.mark.parametrize(("space", "most"), [
    (SPACE, 4), ({"train.epochs": Range(2, 9, whole=True)}, 9), ({"train.epochs": Choices((2, 6))}, 6),
])  # fmt: skip
def test_hyperband_counts_to_the_epochs_that_trials_have(recipe: Recipe, url: str, space: dict, most: int) -> None:
    tree = recipe.model_dump(by_alias=True, mode="json") | {"sweep": {"pruner": "hyperband"}}
    study, _ = studies.open_study(url, "study", validate(Recipe, tree), space)
    assert recipe.train.epochs == 4
    assert study.pruner._max_resource == most
