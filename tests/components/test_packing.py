"""Packed rows give what padded rows give, logits and gradients, for every family that is packed."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tuneline import attention, fused, packing
from tuneline.fused_gpu import GpuEncoder
from tuneline.packing import PackedClassifier, PaddedClassifier, can_pack, classifier_for, pack, pad

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40, "num_labels": 3, "pad_token_id": 1, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
FAMILIES = {
    "albert": SMALL | {"embedding_size": 8},
    "bert": SMALL,
    "camembert": SMALL | {"type_vocab_size": 1},
    "distilbert": {
        "vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40,
        "num_labels": 3, "pad_token_id": 1, "dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0,
    },
    "electra": SMALL | {"embedding_size": 8},
    "gpt2": {
        "vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "num_labels": 3,
        "pad_token_id": 1, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0,
    },
    "modernbert": SMALL | {"classifier_pooling": "cls", "local_attention": 8, "global_attn_every_n_layers": 2,
                           "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    "modernbert mean": SMALL | {"classifier_pooling": "mean", "local_attention": 8, "global_attn_every_n_layers": 2,
                                "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    "roberta": SMALL | {"type_vocab_size": 1},
    "xlm-roberta": SMALL | {"type_vocab_size": 1},
}  # fmt: skip
LENGTHS = (5, 1, 30, 12, 12)
PAIR_AT = [3, 1, 10, 11, 1]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.split()[0], **FAMILIES[name])
    model = AutoModelForSequenceClassification.from_config(config)
    for weight in model.parameters():  # large enough that a wrong neighbour is seen
        nn.init.normal_(weight, std=0.3)
    return model.eval()


def texts() -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(4, 40, (length,), generator=draw).tolist() for length in LENGTHS]


def answers(classifier: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits = classifier(texts())
    (logits * torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits)).sum().backward()
    return logits.detach(), {name: w.grad for name, w in classifier.network.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_family_answers_and_learns_as_a_padded_one_does(name):
    expected, slopes = answers(PaddedClassifier(network(name)))
    logits, found = answers(PackedClassifier(network(name)))
    assert torch.allclose(logits, expected, atol=1e-4)
    assert found.keys() == slopes.keys()
    scale = max(float(slope.abs().max()) for slope in slopes.values())
    for key, slope in slopes.items():
        assert torch.allclose(found[key], slope, atol=1e-4 * scale), key


@pytest.mark.parametrize("name", FAMILIES)
def test_the_shorter_way_through_the_encoder_is_taken_where_it_is_known(name):
    known = {"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
    assert PackedClassifier(network(name)).fused == (name in known)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gpus_way_through_network_and_attention_gives_the_same_on_a_cpu(name, monkeypatch):
    expected, slopes = answers(PaddedClassifier(network(name)))
    monkeypatch.setattr(packing, "Encoder", GpuEncoder)
    registered = attention.attend
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, attention.NAME, functools.partial(registered, text_by_text=False))
    logits, found = answers(PackedClassifier(network(name)))
    assert torch.allclose(logits, expected, atol=1e-4)
    scale = max(float(slope.abs().max()) for slope in slopes.values())
    for key, slope in slopes.items():
        assert torch.allclose(found[key], slope, atol=1e-4 * scale), key


@pytest.mark.parametrize("amx", [True, False])
def test_a_text_as_long_as_a_window_or_a_token_longer_sees_itself_alone(amx, monkeypatch):
    monkeypatch.setattr(fused, "has_amx", lambda: amx)
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(4, 40, (length,), generator=draw).tolist() for length in (16, 17, 15, 32, 33, 1, 31)]
    found, expected = PackedClassifier(network("bert")), PaddedClassifier(network("bert"))
    assert torch.allclose(found(rows), expected(rows), atol=1e-5)
    with torch.inference_mode():  # another kernel
        assert torch.allclose(found(rows), expected(rows), atol=1e-5)
    found(rows).square().sum().backward()
    expected(rows).square().sum().backward()
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-4 * float(other.grad.abs().max()) + 1e-6)


def test_what_goes_through_the_layers_has_few_lengths_for_which_kernels_are_made():
    classifier, seen = PackedClassifier(network("bert")), []
    classifier.network.bert.encoder.layer[0].attention.output.LayerNorm.register_forward_hook(
        lambda _module, inputs, _output: seen.append(len(inputs[0]))
    )
    for count in (1, 31, 32, 33, 40):
        classifier([[5] * (count // 2), [6] * (count - count // 2)] if count > 1 else [[5]])
    assert seen == [32, 32, 32, 64, 64]


def test_what_fills_a_row_up_spoils_no_gradient(fills_with_nan):
    logits, slopes = answers(PackedClassifier(network("bert")))
    assert logits.isfinite().all()
    assert all(slope.isfinite().all() for slope in slopes.values())


@pytest.fixture
def fills_with_nan():
    """Memory that nothing was written to holds no numbers, as it may anyway."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_dropout_in_the_encoder_still_drops_and_only_in_training(name):
    dropout = {"hidden_dropout_prob": 0.5} if name == "bert" else {"dropout": 0.5}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(name, **FAMILIES[name] | dropout))
    classifier = PackedClassifier(model.train())
    assert classifier.fused
    assert not torch.equal(classifier(texts()), classifier(texts()))
    classifier.eval()
    assert torch.equal(classifier(texts()), classifier(texts()))


def test_every_family_that_is_packed_is_tested():
    assert {name.split()[0] for name in FAMILIES} == set(packing.POOLING)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_family_reads_pairs_as_a_padded_one_does(name):
    expected = PaddedClassifier(network(name))(texts(), PAIR_AT)
    assert torch.allclose(PackedClassifier(network(name))(texts(), PAIR_AT), expected, atol=1e-4)
    told_apart = not torch.allclose(PaddedClassifier(network(name))(texts()), expected, atol=1e-4)
    assert told_apart == (name in {"albert", "bert", "electra"} or FAMILIES[name].get("type_vocab_size", 0) > 1)


def test_the_second_text_has_the_second_token_type_up_to_its_end():
    assert pack([[5, 6, 7], [8, 9]]).token_types([1, 2]).tolist() == [[0, 1, 1, 0, 0]]
    assert pad([[5, 6, 7], [8, 9]], 0, [2, 1])["token_type_ids"].tolist() == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("name", ["bert", "gpt2", "modernbert"])
def test_plain_attention_stands_in_where_the_private_kernel_is_missing(name, monkeypatch):
    expected, _ = answers(PackedClassifier(network(name)))
    monkeypatch.setattr(attention, "has_kernel", lambda: False)
    classifier = PackedClassifier(network(name))
    assert torch.allclose(answers(classifier)[0], expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(classifier(texts()), expected, atol=1e-5)


def test_the_private_kernel_is_found_wherever_it_is_first_asked_for():
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        attention.has_kernel.cache_clear()
        assert attention.has_kernel()


def test_a_text_does_not_see_its_neighbours():
    classifier = PackedClassifier(network("bert"))
    rows = texts()
    alone = torch.cat([classifier([row]) for row in rows])
    assert torch.allclose(classifier(rows), alone, atol=1e-5)


@pytest.mark.parametrize("amx", [True, False])
def test_in_bf16_the_gradients_stay_near_those_of_fp32(amx, monkeypatch):
    monkeypatch.setattr(fused, "has_amx", lambda: amx)

    def slopes(low: bool) -> torch.Tensor:
        classifier = PackedClassifier(network("bert"))
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            classifier(texts()).square().mean().backward()
        return torch.cat([weight.grad.flatten() for weight in classifier.parameters()])

    low, full = slopes(True), slopes(False)
    assert nn.functional.cosine_similarity(low, full, dim=0) > 0.98


def test_attention_dropout_still_drops():
    config = AutoConfig.for_model("bert", **SMALL | {"attention_probs_dropout_prob": 0.5})
    classifier = PackedClassifier(AutoModelForSequenceClassification.from_config(config).train())
    assert not torch.equal(classifier(texts()), classifier(texts()))


def test_positions_start_anew_in_each_text():
    row = pack([[5, 6, 7], [8]], first_position=2)
    assert row.input_ids.tolist() == [[5, 6, 7, 8]]
    assert row.position_ids.tolist() == [[2, 3, 4, 2]]
    assert row.lengths == (3, 1)


def test_a_family_outside_the_registry_is_padded():
    config = AutoConfig.for_model("mpnet", **SMALL)
    model = AutoModelForSequenceClassification.from_config(config)
    assert not can_pack(model)
    assert isinstance(classifier_for(model), PaddedClassifier)
    assert can_pack(network("bert"))
    assert isinstance(classifier_for(network("bert")), PackedClassifier)


def test_rows_are_padded_at_their_end_to_the_longest():
    inputs = pad([[2, 5, 3], [2, 3], [9]], pad_id=7)
    assert inputs["input_ids"].tolist() == [[2, 5, 3], [2, 3, 7], [9, 7, 7]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert {value.dtype for value in inputs.values()} == {torch.int64}


def test_a_pad_token_inside_a_text_is_not_masked():
    assert pad([[0, 0, 3]], pad_id=0)["attention_mask"].tolist() == [[1, 1, 1]]
