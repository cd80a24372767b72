"""bf16 is used where it is asked for, or where the machine declares it."""

from __future__ import annotations

import pytest
import torch

from tests.components.train.test_loop import ignore, network, toy
from tuneline.config import TrainConfig
from tuneline.packing import classifier_for
from tuneline.train.loop import train_loop
from tuneline.train.precision import uses_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(("asked", "used"), [("bf16", True), ("fp32", False)])
def test_what_is_asked_for_is_used(asked, used, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not used})
    assert uses_bf16(asked, CPU) is used


@pytest.mark.parametrize(
    ("capabilities", "used"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_bf16": False, "avx2": True}, False)],
)
def test_auto_asks_the_processor(capabilities, used, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert uses_bf16("auto", CPU) is used


def curve(precision: str) -> list[float]:
    losses: list[float] = []
    model = network()
    settings = TrainConfig(epochs=2, batch_size=8, learning_rate=1e-2, precision=precision)
    train_loop(
        classifier_for(model), toy(64), toy(8), settings,
        lambda _step, _total, facts: losses.append(facts["loss"]), ignore,
    )  # fmt: skip
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    return losses


def test_training_in_bf16_keeps_fp32_weights_and_learns_about_the_same():
    low, full = curve("bf16"), curve("fp32")
    assert low != full
    assert low == pytest.approx(full, abs=0.05)
