"""Early stopping: which epoch is kept, when training ends, and that an interruption changes nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from tests.components.train.test_loop import ignore, network, toy
from tuneline.config import TrainConfig
from tuneline.packing import classifier_for
from tuneline.storage import LocalStore
from tuneline.train.best import Best
from tuneline.train.checkpoints import Checkpoints
from tuneline.train.group import Group
from tuneline.train.loop import Examples, measure, train_loop

pytestmark = pytest.mark.medium

FLIPPED = Examples(toy(40).input_ids, [1 - label for label in toy(40).labels])
"""What a model that learns the task gets wrong, the more the longer it learns: its first epoch is its best."""


def settings(**changes: object) -> TrainConfig:
    plain = {"epochs": 8, "batch_size": 8, "learning_rate": 1e-2, "early_stopping": 2, "precision": "fp32"}
    return TrainConfig.model_validate(plain | changes)


@pytest.mark.parametrize(
    ("metric", "values", "best", "ends"),
    [
        ("loss", [3.0, 2.0, 2.5, 2.0, 1.0], 2, 4),
        ("accuracy", [0.5, 0.6, 0.6, 0.6, 0.9], 2, 4),
        ("macro_f1", [0.1, 0.2, 0.3, 0.4, 0.5], 5, 0),
    ],
)
def test_the_first_of_equal_epochs_is_best_and_patience_counts_from_it(metric, values, best, ends):
    model, kept = network(), Best(metric, 2)
    ended = 0
    for epoch, value in enumerate(values, start=1):
        if kept.after(epoch, {f"validation_{metric}": value}, model):
            ended = epoch
            break
    assert (kept.epoch, ended) == (best, ends)


def test_training_ends_when_validation_gets_worse_and_keeps_the_best_epochs_weights():
    model, epochs, answers = network(spread=0.2), [], []
    metrics = train_loop(
        classifier_for(model), toy(64), FLIPPED, settings(), ignore, lambda number, facts: epochs.append(facts),
        on_answers=answers.append,
    )  # fmt: skip
    best = int(metrics["train_best_epoch"])
    assert len(epochs) == best + 2 < 8
    assert metrics["train_steps"] == best * 8
    assert metrics["validation_loss"] == pytest.approx(epochs[best - 1]["validation_loss"])
    assert measure(classifier_for(model), FLIPPED, 8, Group())["validation_loss"] == pytest.approx(
        metrics["validation_loss"], abs=1e-6
    )
    assert len(answers) == 1
    assert -answers[0][range(40), FLIPPED.labels].log().mean() == pytest.approx(metrics["validation_loss"])


def test_without_patience_the_last_epoch_is_kept():
    metrics = train_loop(
        classifier_for(network(spread=0.2)), toy(64), FLIPPED, settings(early_stopping=0, epochs=3), ignore, ignore
    )
    assert "train_best_epoch" not in metrics
    assert metrics["train_steps"] == 24


class Killed(BaseException):
    """Ends a training as kill -9 does, as far as it can tell."""


@pytest.mark.parametrize("at", [1, 7, 8, 9, 16, 20])
@pytest.mark.parametrize("moment", ["step", "epoch"])
def test_a_training_killed_anywhere_keeps_the_same_epoch_and_ends_with_the_same_weights(tmp_path: Path, at, moment):
    def run(folder: Path, stop: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        def on_step(step: int, *_: object) -> None:
            if moment == "step" and step == stop:
                raise Killed

        def on_epoch(epoch: int, _facts: object) -> None:
            if moment == "epoch" and stop and epoch == -(-stop // 8):
                raise Killed

        model = network(spread=0.2)
        checkpoints = Checkpoints(LocalStore(folder), Group(), 0, Best.of(settings()))
        metrics = train_loop(
            classifier_for(model), toy(64), FLIPPED, settings(), on_step, on_epoch, checkpoints=checkpoints
        )
        return model.state_dict(), metrics

    whole, told = run(tmp_path / "whole")
    with contextlib.suppress(Killed):
        run(tmp_path / "parts", at)
    resumed, again = run(tmp_path / "parts")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert again["train_best_epoch"] == told["train_best_epoch"]
