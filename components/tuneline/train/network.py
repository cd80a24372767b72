"""The checkpoint as a classifier with a fresh output layer: from data only, whole, with dropout where it is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from tuneline import checkpoint, tokenizer
from tuneline.errors import InputError

# What transformers' families (BERT and RoBERTa; DistilBERT, BART and Llama; GPT-2) call dropout inside the encoder.
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
_ENCODER_DROPOUT = ("hidden_dropout_prob", "dropout", "resid_pdrop", "embd_pdrop", *_ATTENTION_DROPOUT)


def load_network(name: str, labels: list[str], encoder_dropout: bool = False) -> Any:
    """The checkpoint with a fresh output layer, one unit a label, in fp32; with dropout inside the encoder, or without.

    Raises:
        InputError: no safetensors weights, some of the encoder's missing, or no architecture for text classification.
    """
    folder = checkpoint.resolve(name)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if not list(folder.glob("*.safetensors")):
        raise InputError(f"model.name: {name}: no *.safetensors there; pickled weights are not loaded, convert them")
    names = dict(enumerate(labels))
    try:
        config = AutoConfig.from_pretrained(
            folder, num_labels=len(labels), id2label=names, label2id={label: index for index, label in names.items()},
            trust_remote_code=False,
        )  # fmt: skip
        _set_dropout(config, encoder_dropout)
        if config.pad_token_id is None:
            config.pad_token_id = _padding(folder, config)
        network, report = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise InputError(f"model.name: {name}: cannot be loaded as a text classifier: {error}") from None
    _require_encoder(name, network, report)
    _draw_output_layer(network, len(labels))
    return network


def _padding(folder: Path, config: Any) -> int | None:
    """What to pad with where config.json names nothing (GPT-2): what its tokenizer names, else the end of a text.

    They must agree: transformers finds the last token of a padded text by this number.
    """
    named = tokenizer.padding(folder)
    return named if named is not None and named < config.vocab_size else _end(config)


def _end(config: Any) -> int | None:
    ends = config.eos_token_id
    return ends[0] if isinstance(ends, list) else ends


def borrowed_padding(config: Any) -> int | None:
    """The token that pads and ends texts too, in a family without one for padding; None in all others."""
    return config.pad_token_id if config.pad_token_id == _end(config) else None


def _require_encoder(name: str, network: Any, report: dict[str, Any]) -> None:
    """Refuse weights that transformers would otherwise draw at random, or drop, without a word; a pooler may be new."""
    wrong = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    inside = sorted(key for key in wrong if key.startswith(f"{network.base_model_prefix}.") and ".pooler." not in key)
    if inside:
        raise InputError(
            f"model.name: {name}: {len(inside)} of the encoder's weights are missing or of another shape, such as "
            f"{inside[0]}; the checkpoint does not fit its config.json"
        )


def _draw_output_layer(network: Any, labels: int) -> None:
    """A checkpoint that already classifies has an output layer for its own labels: start from a new one always."""
    for layer in output_layers(network, labels):
        torch.nn.init.normal_(layer.weight, std=getattr(network.config, "initializer_range", 0.02))
        if layer.bias is not None:
            torch.nn.init.zeros_(layer.bias)


def output_layers(network: Any, labels: int) -> list[torch.nn.Linear]:
    """The output layer; several where a layer before it has as many units."""
    encoder = set(network.base_model.modules())
    return [
        layer for layer in network.modules()
        if isinstance(layer, torch.nn.Linear) and layer.out_features == labels and layer not in encoder
    ]  # fmt: skip


def _set_dropout(config: Any, inside: bool) -> None:
    """Leave dropout out of the encoder, or, without a GPU, only that of attention; the classifier's own stays.

    On a CPU attention with dropout loses its fused kernel (8 times slower).
    """
    if not inside and hasattr(config, "hidden_dropout_prob") and getattr(config, "classifier_dropout", None) is None:
        config.classifier_dropout = config.hidden_dropout_prob
    without = _ENCODER_DROPOUT if not inside else () if torch.cuda.is_available() else _ATTENTION_DROPOUT
    for key in without:
        if getattr(config, key, None):
            setattr(config, key, 0.0)
