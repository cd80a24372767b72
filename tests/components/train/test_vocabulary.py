"""Training with the unused embeddings set aside ends where training with all of them does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tests.components.train.test_loop import ignore, toy
from tuneline.config import TrainConfig
from tuneline.packing import classifier_for
from tuneline.train.loop import schedule, train_loop
from tuneline.train.vocabulary import bring_back, set_aside

SETTINGS = TrainConfig(epochs=2, batch_size=8, learning_rate=1e-3, weight_decay=0.5, precision="fp32")


def network() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels=2, pad_token_id=0, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.3,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def test_the_weights_are_those_of_training_on_all_rows():
    data, held_out = toy(40), toy(8, seed=1)
    whole, part = network(), network()
    before = whole.get_input_embeddings().weight.detach().clone()
    train_loop(classifier_for(whole), data, held_out, SETTINGS, ignore, ignore)

    classifier = classifier_for(part)
    aside = set_aside(part, data.input_ids, held_out.input_ids)
    assert aside
    assert part.get_input_embeddings().weight.shape == (len(aside.used), 16)
    small, small_held_out = (replace(one, input_ids=aside.ids(one.input_ids)) for one in (data, held_out))
    train_loop(classifier, small, small_held_out, SETTINGS, ignore, ignore)
    bring_back(part, aside, SETTINGS, len(data.labels), schedule(len(data.labels), SETTINGS)[0])

    found = part.state_dict()
    assert found.keys() == whole.state_dict().keys()
    for name, weight in whole.state_dict().items():
        if "key.bias" not in name:  # its true gradient is zero, so that AdamW follows rounding alone
            torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=1e-4, msg=name)
    assert not torch.equal(before[-1], part.get_input_embeddings().weight[-1])  # decay is seen
    assert part.get_input_embeddings().padding_idx == 0


@pytest.mark.parametrize("tokens", [60, 55])
def test_nothing_is_set_aside_where_nearly_all_rows_are_used(tokens):
    part = network()
    assert set_aside(part, [list(range(tokens))]) is None
    assert part.get_input_embeddings().num_embeddings == 60
