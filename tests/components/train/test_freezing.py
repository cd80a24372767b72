"""Which parameters are tuned in each mode, for every family that is packed; below the cut nothing is dropped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests.components.test_packing import FAMILIES, network, texts
from tuneline.config import TrainConfig
from tuneline.errors import InputError
from tuneline.packing import PackedClassifier
from tuneline.train.freezing import freeze, told

LAYERED = [name for name in FAMILIES if name != "albert"]
BIASED = [name for name in FAMILIES if not name.startswith("modernbert")]


def tuned(name: str, **settings: Any) -> tuple[set[str], set[str]]:
    """Names of the parameters that are tuned, and of those that are not."""
    model = network(name)
    freeze(model, TrainConfig(**settings))
    all_names = {key: weight.requires_grad for key, weight in model.named_parameters()}
    return {key for key, yes in all_names.items() if yes}, {key for key, yes in all_names.items() if not yes}


def layer_of(key: str) -> str | None:
    """The number of the layer that a parameter belongs to."""
    return next((part for part in key.split(".") if part.isdigit()), None)


def in_encoder(name: str, names: set[str]) -> set[str]:
    start = f"{network(name).base_model_prefix}."
    return {key.removeprefix(start) for key in names if key.startswith(start)}


@pytest.mark.parametrize("name", FAMILIES)
def test_all_are_tuned_by_default(name):
    assert not tuned(name)[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_and_the_pooler_are_tuned_in_every_mode(name):
    modes = ["head", *(["top_layers"] if name in LAYERED else []), *(["bitfit"] if name in BIASED else [])]
    for mode in modes:
        found, frozen = tuned(name, tune=mode)
        prefix = f"{network(name).base_model_prefix}."
        assert all(key.startswith(prefix) and ".pooler." not in key for key in frozen), mode
        assert found


@pytest.mark.parametrize("name", FAMILIES)
def test_head_leaves_the_encoder_alone(name):
    assert {key.split(".")[0] for key in in_encoder(name, tuned(name, tune="head")[0])} <= {"pooler"}


@pytest.mark.parametrize("name", LAYERED)
def test_top_layers_tunes_the_last_layer_and_what_follows_and_neither_the_first_nor_the_embeddings(name):
    found, frozen = (in_encoder(name, part) for part in tuned(name, tune="top_layers", top_layers=1))
    assert {layer_of(key) for key in found} - {None} == {"1"}
    assert any("embeddings" in key or "wte" in key for key in frozen)
    assert not any("embeddings" in key or "wte" in key or "wpe" in key for key in found)
    assert not any("final_norm" in key or "ln_f" in key for key in frozen)


@pytest.mark.parametrize("name", BIASED)
def test_bitfit_tunes_the_biases_and_no_matrix_of_the_encoder(name):
    found, frozen = (in_encoder(name, part) for part in tuned(name, tune="bitfit"))
    assert {key for key in found if not key.startswith("pooler.")} == {key for key in found if key.endswith("bias")} - {
        "pooler.dense.bias", "pooler.bias",
    }  # fmt: skip
    assert not any(key.endswith("bias") for key in frozen)


def test_layers_that_share_their_weights_cannot_be_parted():
    with pytest.raises(InputError, match=r"^train.tune: 'top_layers' given; albert shares one layer's weights"):
        freeze(network("albert"), TrainConfig(tune="top_layers"))


def test_more_layers_than_there_are_is_told():
    with pytest.raises(InputError, match=r"^train.top_layers: 3 given; the checkpoint has 2 layers"):
        freeze(network("bert"), TrainConfig(tune="top_layers", top_layers=3))


def test_bitfit_without_biases_is_told():
    with pytest.raises(InputError, match=r"^train.tune: 'bitfit' given; modernbert has no biases"):
        freeze(network("modernbert"), TrainConfig(tune="bitfit"))


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2"])
def test_below_the_cut_nothing_is_dropped_and_above_it_is(name):
    kinds = {"bert": "hidden_dropout_prob", "distilbert": "dropout", "gpt2": "resid_pdrop"}
    config = AutoConfig.for_model(name, **FAMILIES[name] | {kinds[name]: 0.5})
    model = AutoModelForSequenceClassification.from_config(config)
    freeze(model, TrainConfig(tune="top_layers", top_layers=1))
    shares = {key: part.p for key, part in model.base_model.named_modules() if isinstance(part, nn.Dropout)}
    below = {key for key in shares if ".1." not in key}
    assert not any(shares[key] for key in below)
    assert any(shares[key] for key in shares.keys() - below)
    assert not torch.equal(*(PackedClassifier(model.train())(texts()) for _ in range(2)))


def test_the_log_tells_how_much_is_tuned():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 2))
    model[0].requires_grad_(False)
    assert told(model) == "22 of 132 parameters are tuned"
