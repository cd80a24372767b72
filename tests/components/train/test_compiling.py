"""torch.compile is asked for where it pays, and nowhere else; test_packing_on_a_gpu.py tests what it gives."""

from __future__ import annotations

import pytest

from tests.components.test_packing import network
from tuneline import packing
from tuneline.config import TrainConfig
from tuneline.fused_gpu import GpuEncoder
from tuneline.packing import PackedClassifier, PaddedClassifier
from tuneline.train import compiling
from tuneline.train.compiling import compile_where_it_pays


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(packing, "Encoder", GpuEncoder)
    return PackedClassifier(network("bert"))


def test_a_cpu_has_nothing_to_compile():
    assert not compile_where_it_pays(PackedClassifier(network("bert")), [30], TrainConfig(compile="always"), True)


def test_always_compiles_what_can_be_and_never_does_not(as_on_a_gpu):
    assert not compile_where_it_pays(as_on_a_gpu, [30], TrainConfig(compile="never"), True)
    assert not compile_where_it_pays(as_on_a_gpu, [30], TrainConfig(compile="always"), low=False)
    assert not compile_where_it_pays(PaddedClassifier(network("bert")), [30], TrainConfig(compile="always"), True)
    assert compile_where_it_pays(as_on_a_gpu, [30], TrainConfig(compile="always"), True)


@pytest.mark.parametrize(("seconds", "expected"), [(100.0, False), (300.0, True)])
def test_auto_compiles_only_what_takes_long_enough(as_on_a_gpu, seconds, expected, monkeypatch):
    monkeypatch.setattr(compiling, "_seconds", lambda *_: seconds)
    assert compile_where_it_pays(as_on_a_gpu, [30], TrainConfig(), True) == expected


def test_a_familys_other_code_is_not_compiled():
    assert not compile_where_it_pays(PackedClassifier(network("gpt2")), [30], TrainConfig(compile="always"), True)
