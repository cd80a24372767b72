"""The losses against their formulas written out, and in the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.components.train.test_loop import ignore, network, toy
from tuneline.config import TrainConfig
from tuneline.errors import InputError
from tuneline.packing import classifier_for
from tuneline.train.loop import Examples, train_loop
from tuneline.train.losses import Loss
from tuneline.train.train import weigh

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 1.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 0])
WEIGHTS = [0.5, 2.0, 1.5]


def test_plain_is_the_sum_of_cross_entropies():
    torch.testing.assert_close(Loss()(LOGITS, LABELS, None), cross_entropy(LOGITS, LABELS, reduction="sum"))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_is_the_formula(weights, gamma, smoothing):
    wanted = 0.0
    for row, label, weight in zip(LOGITS, LABELS, weights or [1.0] * 3, strict=True):
        chances = row.softmax(0)
        target = torch.full((3,), smoothing / 3, dtype=torch.float64)
        target[label] += 1 - smoothing
        wanted += float(weight * (1 - chances[label]) ** gamma * -(target * chances.log()).sum())
    assert float(Loss(smoothing, gamma)(LOGITS, LABELS, weights)) == pytest.approx(wanted)


def test_a_sure_answer_has_a_finite_slope():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    Loss(focal_gamma=0.5)(logits, torch.tensor([0, 0]), None).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_class_weights_multiply_a_windows_own():
    plain = Examples([[2, 3]] * 3, [0, 1, 1])
    assert weigh(plain, [3.0, 0.5]).weights == [3.0, 0.5, 0.5]
    assert weigh(Examples([[2, 3]] * 3, [0, 1, 1], weights=[1.0, 2.0, 0.5]), [3.0, 0.5]).weights == [3.0, 1.0, 0.25]


def test_data_without_class_weights_are_told():
    with pytest.raises(InputError, match=r"^train.class_weights: the prepared data hold none"):
        weigh(Examples([[2, 3]], [0]), [])


def first_loss(**changes: Any) -> float:
    losses: list[float] = []
    settings = TrainConfig(epochs=1, batch_size=6, precision="fp32", **changes)
    model = classifier_for(network(spread=0.5))
    train_loop(model, toy(6), toy(4), settings, lambda _s, _t, facts: losses.append(facts["loss"]), ignore)
    return losses[0]


def test_the_loop_minimizes_what_is_asked_for():
    model = network(spread=0.5)
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor([row])).logits for row in toy(6).input_ids])
    labels = torch.tensor(toy(6).labels)
    for changes in ({}, {"label_smoothing": 0.3}, {"focal_gamma": 2.0}):
        wanted = float(Loss(**changes)(logits, labels, None)) / 6
        assert first_loss(**changes) == pytest.approx(wanted, abs=1e-5)


def test_adjusted_logits_are_shifted_by_the_logarithm_of_each_labels_share():
    labels, weights = [0, 0, 0, 1], [1.0, 1.0, 2.0, 1.0]
    found = Loss.of(TrainConfig(logit_adjustment=2.0), labels, weights)(LOGITS[:, :2], LABELS.clamp(max=1), None)
    shift = 2 * torch.tensor([0.8, 0.2], dtype=torch.float64).log()
    torch.testing.assert_close(found, cross_entropy(LOGITS[:, :2] + shift, LABELS.clamp(max=1), reduction="sum"))


def test_a_label_without_training_rows_is_adjusted_to_a_finite_loss():
    loss = Loss.of(TrainConfig(logit_adjustment=1.0), [1, 1, 1])(LOGITS, LABELS, None)
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    "two", [{"class_weights": True, "sampling": "balanced"}, {"sampling": "balanced", "logit_adjustment": 1.0}]
)
def test_two_ways_to_balance_at_once_are_refused(two):
    with pytest.raises(ValueError, match="take one, each balances the classes"):
        TrainConfig.model_validate(two)
