"""What a training is told to cost, against sums made by hand."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, GPT2Config, ModernBertConfig

from tests.components.train.test_loop import ignore, network, toy
from tuneline.config import TrainConfig
from tuneline.packing import PaddedClassifier, classifier_for
from tuneline.train.cut import AboveEncoder, AboveLayer
from tuneline.train.freezing import freeze
from tuneline.train.loop import train_loop
from tuneline.train.meters import Meter, Work, peak_flops, peak_memory_mb

WIDTH, INNER, LAYERS = 16, 32, 3
LAYER = 4 * WIDTH * WIDTH + 2 * WIDTH * INNER
"""Weights of a BERT layer's matrices."""


def bert():
    config = BertConfig(
        vocab_size=20, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=INNER,
        max_position_embeddings=32, pad_token_id=0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return AutoModelForSequenceClassification.from_config(config)


def work(**settings: object) -> Work | None:
    model = bert()
    freeze(model, TrainConfig.model_validate(settings))
    return Work.of(classifier_for(model))


def test_all_tuned_takes_six_operations_a_weight_and_token():
    assert work() == Work(6 * LAYER * LAYERS, 12 * WIDTH * LAYERS)


def test_a_frozen_layer_is_computed_forward_alone():
    assert work(tune="top_layers", top_layers=1) == Work((6 + 2 + 2) * LAYER, (12 + 4 + 4) * WIDTH)
    assert work(tune="head") == Work(2 * LAYER * LAYERS, 4 * WIDTH * LAYERS)


def test_gradients_pass_through_what_is_not_tuned_itself():
    assert work(tune="bitfit") == Work(4 * LAYER * LAYERS, 12 * WIDTH * LAYERS)
    changes = 2 * 2 * 4 * WIDTH  # a and b of query and value
    assert work(tune="lora", lora_rank=4) == Work(LAYERS * (4 * (LAYER + changes) + 2 * changes), 12 * WIDTH * LAYERS)


def test_what_a_cache_has_computed_is_not_counted():
    model = bert()
    freeze(model, TrainConfig(tune="top_layers", top_layers=2))
    packed = classifier_for(model)
    assert Work.of(AboveLayer(packed, 1)) == Work(6 * LAYER * 2, 12 * WIDTH * 2)
    assert Work.of(AboveEncoder(packed)) is None


def test_other_families_have_their_matrices_counted():
    gpt = AutoModelForSequenceClassification.from_config(
        GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=32, pad_token_id=0)
    )
    assert Work.of(classifier_for(gpt)) == Work(6 * 2 * 12 * 16 * 16, 12 * 16 * 2)
    modern = AutoModelForSequenceClassification.from_config(
        ModernBertConfig(
            vocab_size=20,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            pad_token_id=0,
            cls_token_id=1,
            sep_token_id=2,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    assert Work.of(classifier_for(modern)) == Work(6 * 2 * (4 * 16 * 16 + 3 * 16 * 32), 12 * 16 * 2)


def test_texts_add_up_tokens_and_pairs_of_tokens():
    assert Work(10.0, 3.0).total([2, 5]) == 10 * 7 + 3 * (4 + 25)


def test_a_device_has_a_peak_that_bf16_and_fp32_have_their_own_of():
    cpu = torch.device("cpu")
    assert 1e9 < peak_flops(cpu, False) < 1e15
    assert peak_flops(cpu, False) == peak_flops(cpu, False)  # measured once
    assert 50 < peak_memory_mb(cpu) < 1e6


def test_padding_is_the_share_of_places_without_a_token():
    meter = Meter(PaddedClassifier(bert()), torch.device("cpu"), False, 1, {})
    meter.last = 1.0
    meter.step([2, 4])
    meter.step([5, 5])
    assert meter.totals(0)["train_padding_share"] == pytest.approx(1 - 16 / 18)
    packed = Meter(classifier_for(bert()), torch.device("cpu"), False, 1, {})
    packed.last = 1.0
    packed.step([2, 4])
    assert packed.totals(0)["train_padding_share"] == 0


def test_utilisation_is_work_over_time_and_peak():
    meter = Meter(classifier_for(bert()), torch.device("cpu"), False, 2, {})
    meter.last = 0.5
    facts = meter.step([4, 6])
    assert meter.peak == 2 * peak_flops(torch.device("cpu"), False)
    assert facts["mfu"] == pytest.approx((6 * LAYER * LAYERS * 10 + 12 * WIDTH * LAYERS * 52) / 0.5 / meter.peak)
    assert meter.totals(0)["train_mfu"] == pytest.approx(facts["mfu"])
    assert (facts["tokens_per_second"], facts["examples_per_second"]) == (20, 4)


def test_cost_is_that_of_all_seconds_and_told_only_with_a_price():
    meter = Meter(classifier_for(bert()), torch.device("cpu"), False, 1, {"compute": 3000.0, "validation": 600.0})
    assert meter.totals(2.5)["train_cost"] == pytest.approx(2.5)
    assert "train_cost" not in meter.totals(0)


def test_measuring_the_peak_leaves_training_as_it_is(monkeypatch):
    def weights():
        model = network(dropout=0.1)
        torch.manual_seed(1)
        train_loop(classifier_for(model), toy(16), toy(4), TrainConfig(epochs=1, batch_size=8), ignore, ignore)
        return model.state_dict()

    first = weights()
    monkeypatch.setattr("tuneline.train.loop.Meter.step", lambda *_: {})
    assert all(torch.equal(value, first[name]) for name, value in weights().items())
