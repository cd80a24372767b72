"""Budgets, and the seconds of one: kept, shared with commands before and beside, and left to the finalists."""

from __future__ import annotations

import time
from typing import Any

import optuna
import pytest

from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.recipe import validate
from tuneline.search import study as studies
from tuneline.search.budget import Budget
from tuneline.search.clock import SPENT
from tuneline.search.job import OutOfTime, Result

pytestmark = pytest.mark.medium
GOOD = 5e-3
"""The recipe's learning rate."""


def test_a_budget_of_time_is_kept_also_by_trials_that_are_under_way(sweep):
    block = {"space": {"train.learning_rate": [GOOD, 4e-3, 3e-3]}, "pruner": "none"}
    search = sweep(block, "5s")
    search.recipe = validate(Recipe, search.recipe.model_dump(by_alias=True) | {
        "train": search.recipe.train.model_dump() | {"epochs": 1000}})  # fmt: skip
    search.run()
    states = {studies.state_of(trial) for trial in search.study.trials}
    assert states & {"complete", "running"} == set()


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
def test_seconds_of_a_command_that_tells_no_more_count_after_as_long_as_a_heartbeat_may_be_late(
    sweep, monkeypatch, ago, counts
):
    block, now = {"space": {"train.learning_rate": [GOOD]}}, time.time()
    monkeypatch.setattr(time, "time", lambda: now)  # however long it takes to make the study
    told = {"seconds": 1000.0, "at": now - ago, "ended": False}
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
    search, kept = sweep(block, "100s"), []
    known = search.study.ask({"train.epochs": optuna.distributions.CategoricalDistribution([1, 2, 3])})
    known.set_user_attr(studies.OVERRIDES, known.params)
    known.set_user_attr(studies.RESULT, Result({}, 0, 10.0, {"macro_f1": (0.5, 0.5, 0.5)}, 1.0, 9, 1.0, "").row())
    search.study.tell(known, 0.5)

    def trial(*_given: Any, deadline: float, **_named: Any) -> Any:
        kept.append(search.clock.left - (deadline - time.monotonic()))
        search.clock.started -= 100
        raise OutOfTime

    search.engine.trial = trial
    search.study.enqueue_trial({"train.epochs": next(one for one in (1, 2, 3) if one != known.params["train.epochs"])})
    search.search()
    search.clock.started += 100
    search.repeat(search.finals())
    assert kept == pytest.approx([11.55, 0], abs=1)  # the finalist's ten and a half seconds, and a tenth


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
