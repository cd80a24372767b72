"""tune=lora: the sum that stands for a matrix, what is trained of it, and that nothing is left of it in the end."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    ModernBertConfig,
    RobertaConfig,
    T5Config,
)

from tests.components.train.test_loop import ignore, network, toy
from tuneline.config import TrainConfig
from tuneline.errors import InputError
from tuneline.packing import PaddedClassifier, classifier_for
from tuneline.train import low_rank
from tuneline.train.freezing import freeze
from tuneline.train.loop import train_loop

SMALL = {"vocab_size": 30, "num_labels": 3, "pad_token_id": 0, "initializer_range": 0.2}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, **SMALL}
FAMILIES = [
    (BertConfig(**BERT), 4), (RobertaConfig(**BERT, max_position_embeddings=64), 4), (ElectraConfig(**BERT), 4),
    (DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, **SMALL), 4), (AlbertConfig(**BERT), 2),
    (GPT2Config(n_embd=16, n_layer=2, n_head=2, **SMALL), 2),
    (ModernBertConfig(**BERT, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2), 2),
]  # fmt: skip
ROWS = [[1, 5, 6, 7, 2], [1, 9, 2]]


@pytest.mark.parametrize(("config", "layers"), FAMILIES, ids=lambda value: getattr(value, "model_type", ""))
def test_every_family_is_adapted_packed_as_padded_and_merged_to_the_same_answers(config, layers):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    freeze(model, TrainConfig(tune="lora", lora_rank=4))
    changes = [module for module in model.modules() if isinstance(module, low_rank.LowRank)]
    assert len(changes) == layers
    with torch.no_grad():
        padded = PaddedClassifier(model)
        first = padded(ROWS)
        for change in changes:
            change.b.normal_(std=4)
        tuned = padded(ROWS)
        assert not torch.allclose(first, tuned, atol=1e-5)
        torch.testing.assert_close(classifier_for(model)(ROWS), tuned, atol=1e-4, rtol=1e-4)
        low_rank.merge(model)
        torch.testing.assert_close(classifier_for(model)(ROWS), tuned, atol=1e-4, rtol=1e-4)
    assert {name: weight.shape for name, weight in model.state_dict().items()} == {
        name: weight.shape for name, weight in before.items()
    }


def test_the_sum_is_the_formula_and_zero_at_first():
    torch.manual_seed(0)
    weight = torch.randn(5, 7)
    change = low_rank.LowRank(weight, 2)
    torch.testing.assert_close(change(weight), weight)
    with torch.no_grad():
        change.b.normal_()
    torch.testing.assert_close(change(weight), weight + 16 / 2 * change.b @ change.a)


def test_only_changes_pooler_and_head_are_trained_and_the_rest_stays_bit_for_bit():
    model = network(spread=0.2)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings = TrainConfig(tune="lora", lora_rank=4, epochs=12, batch_size=8, learning_rate=2e-2)
    freeze(model, settings)
    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all("parametrizations.weight.0" in name or name.startswith(("classifier", "bert.pooler")) for name in names)
    metrics = train_loop(classifier_for(model), toy(96), toy(32, seed=1), settings, ignore, ignore)
    assert metrics["validation_accuracy"] >= 0.9
    low_rank.merge(model)
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert {name for name in changed if not name.startswith(("classifier", "bert.pooler"))} == {
        f"bert.encoder.layer.0.attention.self.{part}.weight" for part in ("query", "value")
    }


def test_a_family_without_known_layers_is_refused():
    model = AutoModelForSequenceClassification.from_config(
        T5Config(vocab_size=30, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8, num_labels=2, pad_token_id=0)
    )
    with pytest.raises(InputError, match=r"^train.tune: 'lora' given; t5 has no layers"):
        freeze(model, TrainConfig(tune="lora"))
