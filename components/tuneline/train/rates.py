"""The factor of each parameter's learning rate: smaller from layer to layer downwards, where that is asked for."""

from __future__ import annotations

from typing import Any

from torch import nn

from tuneline.train.freezing import ABOVE, layers_place


def factors(network: Any, decay: float) -> dict[nn.Parameter, float]:
    """The factor of each parameter of the encoder (discriminative fine-tuning, Howard and Ruder 2018).

    1 for what follows the last layer, `decay` for the last layer, decay^2 for the one below and so on; the embeddings
    lie below the first layer. What is not named, the head, has the whole rate.

    Raises:
        InputError: the network has no list of layers.
    """
    base = network.base_model
    owner, name = layers_place(network, f"train.layer_decay: {decay} given", "set it to 1")
    layers = list(getattr(owner, name))
    found = {weight: decay ** (len(layers) + 1) for weight in base.parameters()}
    for module in filter(None, (getattr(base, part, None) for part in ABOVE)):
        found |= dict.fromkeys(module.parameters(), 1.0)
    for number, layer in enumerate(reversed(layers), start=1):
        found |= dict.fromkeys(layer.parameters(), decay**number)
    return found


def embedding_factor(network: Any, decay: float) -> float:
    """The factor of the embeddings."""
    return 1.0 if decay == 1 else factors(network, decay)[network.get_input_embeddings().weight]
