"""Trials are stopped by what others had at the same share of their own epochs."""

from __future__ import annotations

import optuna
import pytest

from tuneline.search.halving import Halving
from tuneline.search.study import EPOCHS


@pytest.fixture(params=["maximize", "minimize"])
def study(request: pytest.FixtureRequest) -> optuna.Study:
    return optuna.create_study(direction=request.param, pruner=Halving())


def stopped_at(study: optuna.Study, epochs: int, scores: list[float], **params: str) -> int | None:
    """The epoch after which a trial of so many epochs is stopped, whose reports are these; None where it is not."""
    sign = 1 if study.direction.name == "MAXIMIZE" else -1
    study.enqueue_trial({name.replace("_", "."): value for name, value in params.items()})
    trial = study.ask()
    trial.set_user_attr(EPOCHS, epochs)
    for name in params:
        trial.suggest_categorical(name.replace("_", "."), ["quick", "slow"])
    for epoch, score in enumerate(scores, start=1):
        trial.report(sign * score, epoch)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return epoch
    study.tell(trial, sign * scores[-1])
    return None


def test_a_long_schedule_is_not_stopped_for_starting_below_a_short_one(study: optuna.Study) -> None:
    assert stopped_at(study, 2, [0.8, 0.85]) is None
    assert stopped_at(study, 2, [0.79, 0.9]) == 1
    assert stopped_at(study, 16, [0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.9, *[0.9] * 8]) is None


def test_at_the_same_share_the_lower_half_is_stopped_and_the_better_goes_on(study: optuna.Study) -> None:
    assert stopped_at(study, 8, [0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9]) is None
    assert stopped_at(study, 16, [0.9, 0.9, 0.9, 0.4, 0.9]) == 4  # a quarter of 16; what it had before is not asked
    assert stopped_at(study, 8, [0.55, 0.5]) == 2
    assert stopped_at(study, 8, [0.56, 0.65, 0.9, 0.75]) == 4
    assert stopped_at(study, 8, [0.57, 0.66, 0.9, 0.85, 0.1, 0.1, 0.1, 0.1]) is None  # past half nothing stops it


@pytest.mark.parametrize(("epochs", "at"), [(1, []), (2, [1]), (3, [1, 2]), (5, [2, 3]), (10, [3, 5]), (16, [4, 8])])
def test_the_shares_are_met_at_the_first_epoch_that_comes_to_them_and_not_to_the_next(
    epochs: int, at: list[int]
) -> None:
    for epoch in range(1, epochs + 1):
        study = optuna.create_study(direction="maximize", pruner=Halving())
        assert stopped_at(study, epochs, [1.0] * epochs) is None
        fallen = [1.0] * (epoch - 1) + [0.0] * (epochs - epoch + 1)
        following = [one for one in at if one >= epoch]
        assert stopped_at(study, epochs, fallen) == (following[0] if following else None)


@pytest.mark.parametrize("key", ["train_tune", "model_name"])
def test_what_learns_otherwise_is_not_compared_with(study: optuna.Study, key: str) -> None:
    assert stopped_at(study, 4, [0.7, 0.8, 0.85, 0.86], **{key: "quick"}) is None
    assert stopped_at(study, 4, [0.2, 0.5, 0.8, 0.89], **{key: "slow"}) is None
    assert stopped_at(study, 4, [0.19, 0.5, 0.8, 0.89], **{key: "slow"}) == 1
    assert stopped_at(study, 4, [0.69, 0.8, 0.85, 0.86], **{key: "quick"}) == 1


def test_what_is_no_number_is_stopped_and_stops_nobody(study: optuna.Study) -> None:
    assert stopped_at(study, 4, [float("nan")]) == 1
    assert stopped_at(study, 4, [0.1, 0.1, 0.1, 0.1]) is None


def test_a_trial_that_does_not_tell_its_epochs_is_never_stopped(study: optuna.Study) -> None:
    assert stopped_at(study, 4, [0.5, 0.5, 0.5, 0.5]) is None
    trial = study.ask()
    trial.report(0.0, 1)
    assert not trial.should_prune()
