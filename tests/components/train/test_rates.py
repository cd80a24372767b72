"""Learning rates that fall from layer to layer."""

from __future__ import annotations

import pytest
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification, BertConfig, BertForSequenceClassification

from tests.components.train.test_loop import ignore, toy
from tuneline.config import TrainConfig
from tuneline.errors import InputError
from tuneline.packing import classifier_for
from tuneline.train.loop import Examples, optimizer_for, schedule, train_loop
from tuneline.train.rates import factors
from tuneline.train.vocabulary import bring_back, set_aside

SIZES = {
    "vocab_size": 20, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def bert(layers: int = 3) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, num_hidden_layers=layers, pad_token_id=0))


def test_each_layer_has_the_factor_of_its_depth_and_the_head_the_whole_rate():
    model = bert()
    settings = TrainConfig(layer_decay=0.5, weight_decay=0.1)
    found = {}
    for group in optimizer_for(classifier_for(model), settings).param_groups:
        found |= dict.fromkeys(group["params"], (group["factor"], group["weight_decay"]))
    assert len(found) == len(list(model.parameters()))
    assert found[model.classifier.weight] == (1.0, 0.1)
    assert found[model.bert.pooler.dense.bias] == (1.0, 0.0)
    layers = model.bert.encoder.layer
    assert [found[layer.output.dense.weight][0] for layer in layers] == [0.125, 0.25, 0.5]
    assert found[model.bert.embeddings.word_embeddings.weight] == (0.0625, 0.1)


def test_a_parameter_moves_by_its_own_rate_in_the_loop():
    def moves(decay: float) -> float:
        model = bert(1)
        before = model.bert.encoder.layer[0].output.dense.bias.clone()
        settings = TrainConfig(epochs=1, batch_size=64, learning_rate=1e-3, warmup_share=0.0, layer_decay=decay)
        train_loop(classifier_for(model.eval()), toy(64), toy(4), settings, ignore, ignore)
        return float((model.bert.encoder.layer[0].output.dense.bias - before).detach().abs().max())

    assert moves(0.5) == pytest.approx(moves(1.0) / 2, rel=0.05)


def test_embeddings_that_no_text_uses_are_decayed_by_their_own_rate():
    settings = TrainConfig(epochs=2, batch_size=4, learning_rate=1e-2, weight_decay=0.5, layer_decay=0.5)
    data = Examples([[2, 5, 3], [2, 6, 3]] * 4, [0, 1] * 4)
    whole, part = bert().eval(), bert().eval()
    train_loop(classifier_for(whole), data, data, settings, ignore, ignore)
    aside = set_aside(part, data.input_ids)
    assert aside is not None
    own = Examples(aside.ids(data.input_ids), data.labels)
    train_loop(classifier_for(part), own, own, settings, ignore, ignore)
    bring_back(part, aside, settings, 8, schedule(8, settings)[0])
    torch.testing.assert_close(
        part.get_input_embeddings().weight, whole.get_input_embeddings().weight, atol=1e-6, rtol=1e-4
    )


def test_a_family_whose_layers_are_one_is_refused():
    config = AlbertConfig(**SIZES, num_hidden_layers=2, embedding_size=8)
    with pytest.raises(InputError, match=r"^train.layer_decay: 0.9 given; albert shares one layer.*set it to 1"):
        factors(AlbertForSequenceClassification(config), 0.9)
