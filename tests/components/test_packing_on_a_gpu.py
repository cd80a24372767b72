"""On a GPU: packed rows give what padded rows give on the CPU, logits and gradients, for every family."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.components.test_packing import FAMILIES, answers, network, texts
from tuneline import attention
from tuneline.config import TrainConfig
from tuneline.packing import PackedClassifier, PaddedClassifier
from tuneline.train.cache import above_the_cut
from tuneline.train.freezing import freeze
from tuneline.train.group import Group
from tuneline.train.loop import Examples, train_loop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def _distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Of all gradients together: |found - expected| / |expected|."""
    assert found.keys() == expected.keys()
    parts = [(found[name].cpu() - slope, slope) for name, slope in expected.items()]
    return float(sum(gap.square().sum() for gap, _ in parts) / sum(slope.square().sum() for _, slope in parts)) ** 0.5


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_answers_and_learns_as_a_padded_one_does_on_the_cpu(name):
    expected, slopes = answers(PaddedClassifier(network(name)))
    logits, found = answers(PackedClassifier(network(name).cuda()))
    assert torch.allclose(logits.cpu(), expected, atol=1e-4)
    assert _distance(found, slopes) < 1e-4


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_in_bf16_it_answers_and_learns_nearly_so(name, compiled):
    assert attention._has_varlen(torch.device("cuda", 0))
    packed = PackedClassifier(network(name).cuda())
    if compiled and not packed.compile_layers():
        pytest.skip("no layers of its own to compile")
    expected, slopes = answers(PaddedClassifier(network(name)))
    with torch.autocast("cuda", torch.bfloat16):
        logits, found = answers(packed)
    assert float((logits.cpu() - expected).norm() / expected.norm()) < 0.05
    assert _distance(found, slopes) < 0.1


@pytest.mark.parametrize("name", ["bert", "gpt2", "modernbert"])
def test_texts_of_other_lengths_and_number_need_no_other_code(name):
    rows, packed = texts(), PackedClassifier(network(name).cuda())
    packed.compile_layers()
    with torch.autocast("cuda", torch.bfloat16):
        for few in (rows, rows[:3], rows[2:], rows * 3):
            found, alone = packed(few), torch.cat([packed([row]) for row in few])
            found.sum().backward()
            assert float(((found - alone).norm() / alone.norm()).detach()) < 0.05


@pytest.mark.parametrize("tune", ["all", "top_layers", "head", "bitfit", "lora"])
def test_every_way_of_tuning_ends_near_the_cpus_weights(tune, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNELINE_CHECKPOINTS", str(tmp_path))
    labels = [number % 3 for number in range(40)]
    rows = [[label + 4, *texts()[number % 5]] for number, label in enumerate(labels)]
    splits = {"train": Examples(rows, labels), "validation": Examples(rows[:9], labels[:9])}
    settings = TrainConfig(tune=tune, top_layers=1, epochs=2, batch_size=8, precision="fp32", learning_rate=1e-3)

    def trained(device: str) -> dict[str, torch.Tensor]:
        model = network("bert")
        freeze(model, settings)
        classifier = PackedClassifier(model.to(device))
        with above_the_cut(classifier, splits, settings, Group(), {"device": device}) as (tuned, parts):
            train_loop(tuned, parts["train"], parts["validation"], settings, lambda *_: None, lambda *_: None)
        # A key's bias has no slope but rounding, which AdamW makes steps of.
        named = model.named_parameters()
        return {
            name: weight.detach().cpu() for name, weight in named if weight.requires_grad and "key.bias" not in name
        }

    found, expected, before = trained("cuda"), trained("cpu"), dict(network("bert").named_parameters())
    change = {name: weight - before[name] if name in before else weight for name, weight in expected.items()}
    gap = sum(float((found[name] - weight).square().sum()) for name, weight in expected.items())
    assert gap**0.5 < 0.05 * sum(float(one.square().sum()) for one in change.values()) ** 0.5


def test_attention_with_dropout_and_a_head_of_odd_size_goes_through_padded_rows():
    draw = torch.Generator("cuda").manual_seed(0)
    one, other, third = (torch.randn(9, 2, 5, device="cuda", generator=draw, dtype=torch.bfloat16) for _ in range(3))
    found = attention.packed(one, other, third, (4, 5))
    texts = zip(*(part.split((4, 5)) for part in (one, other, third)), strict=True)
    expected = [nn.functional.scaled_dot_product_attention(*(p.transpose(0, 1) for p in text)) for text in texts]
    assert torch.allclose(found, torch.cat(expected, 1).transpose(0, 1), atol=0.02)
    assert not torch.equal(attention.packed(one, other, third, (4, 5), dropout=0.5), found)
