"""Which of a network's parameters are tuned: all, the upper layers and the head, the head, or the head with biases or
changes of low rank (low_rank.py) of the encoder.

Where the lower part is frozen its dropout is switched off too, so that a text's states there are the same in every
epoch: cache.py computes them once.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tuneline.config import TrainConfig
from tuneline.errors import InputError
from tuneline.train import low_rank

PLACES = ("encoder.layer", "transformer.layer", "layers", "h")
"""Where an encoder keeps its layers: BERT and its like, DistilBERT, ModernBERT, GPT-2."""

ABOVE = ("pooler", "final_norm", "ln_f")
"""What follows the last layer inside the encoder: a pooler, or a normalization."""


def freeze(network: Any, settings: TrainConfig) -> None:
    """Leave gradients to the parameters that `train.tune` names; pooler and head have them always.

    Args:
        network: a sequence classifier of transformers.
        settings: tune and top_layers.

    Raises:
        InputError: the network has no layers of its own to part, fewer than asked for, or no biases.
    """
    if settings.tune == "all":
        return
    base = network.base_model
    above = tuned_modules(network, settings)
    biases = {name for name, _ in base.named_parameters() if settings.tune == "bitfit" and name.endswith("bias")}
    if settings.tune == "bitfit" and not biases:
        raise InputError(
            f"train.tune: 'bitfit' given; {network.config.model_type} has no biases to tune; take head or top_layers"
        )
    for name, weight in base.named_parameters():
        weight.requires_grad_(name in biases)
    for module in above:
        module.requires_grad_(True)
    if settings.tune == "lora":
        low_rank.add(network, settings.lora_rank)
    if settings.tune in ("top_layers", "head"):
        _still(base, {part for module in above for part in module.modules()})


def tuned_modules(network: Any, settings: TrainConfig) -> list[nn.Module]:
    """Those parts of the encoder that are tuned as a whole, in order."""
    base = network.base_model
    names = ABOVE if settings.tune == "top_layers" else ABOVE[:1]
    ends = [module for name in names if (module := getattr(base, name, None)) is not None]
    if settings.tune != "top_layers":
        return ends
    owner, name = layers_place(network)
    layers = list(getattr(owner, name))
    if settings.top_layers > len(layers):
        raise InputError(f"train.top_layers: {settings.top_layers} given; the checkpoint has {len(layers)} layers")
    return [*layers[len(layers) - settings.top_layers :], *ends]


def layers_place(
    network: Any, asked: str = "train.tune: 'top_layers' given", instead: str = "take all, head, lora or bitfit"
) -> tuple[nn.Module, str]:
    """The module that holds the list of layers, and the list's name in it.

    Args:
        network: a sequence classifier of transformers.
        asked: what needs the layers, for the message.
        instead: what to do without, for the message.

    Raises:
        InputError: the family shares one layer's weights among all, or keeps its layers elsewhere.
    """
    for place in PLACES:
        owner, _, name = f".{place}".rpartition(".")
        module: Any = network.base_model
        for part in filter(None, owner.split(".")):
            module = getattr(module, part, None)
        if isinstance(getattr(module, name, None), nn.ModuleList):
            return module, name
    kind = network.config.model_type
    why = "shares one layer's weights among all layers" if kind == "albert" else "has no list of layers that is known"
    raise InputError(f"{asked}; {kind} {why}; {instead}")


def _still(base: nn.Module, above: set[nn.Module]) -> None:
    """No dropout below the cut."""
    for module in base.modules():
        if module in above:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):  # ModernBERT's is no module
            vars(module)["attention_dropout"] = 0.0


def told(network: nn.Module) -> str:
    """How many parameters are tuned, for the log."""
    counts = [(weight.numel(), weight.requires_grad) for weight in network.parameters()]
    tuned, total = sum(count for count, yes in counts if yes), sum(count for count, _ in counts)
    return f"{tuned:,} of {total:,} parameters are tuned"
