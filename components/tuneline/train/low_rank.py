"""Changes of low rank to the matrices that make queries and values, in their place until the training's end.

Each matrix W of the checkpoint stays as it is, and W + s B A stands for it, where A has `rank` rows and B as many
columns (LoRA, Hu et al. 2021). torch's parametrization puts the sum where the network reads its weight, so that every
path through the network, the fused one too, sees it; a wrapper around the layer, as peft has it, would be passed by
there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from tuneline.errors import InputError

NAMES = (
    "query", "value", "q_lin", "v_lin", "query_proj", "value_proj", "q_proj", "v_proj",
    "Wqkv", "c_attn", "query_key_value",
)  # fmt: skip
"""What families call the layers that make queries and values; the last three make keys too."""
ALPHA = 16
"""s is ALPHA / rank, so that a learning rate serves more than one rank."""


class LowRank(nn.Module):
    """W -> W + s B A; nothing is changed at first, since B is zero.

    Args:
        weight: W, [rows, columns].
        rank: rows of A.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        self.scale = ALPHA / rank
        self.a = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """W + s B A."""
        return torch.addmm(weight, self.b, self.a, alpha=self.scale)


def add(network: Any, rank: int) -> None:
    """Put changes of this rank, all zero, to the encoder's queries and values; only they have gradients there.

    Raises:
        InputError: no layer of the encoder has a name that is known.
    """
    layers = _layers(network.base_model, "weight")
    if not layers:
        raise InputError(
            f"train.tune: 'lora' given; {network.config.model_type} has no layers that are known to make queries and "
            f"values; take all, top_layers or head"
        )
    for layer in layers:
        change = LowRank(layer.weight, min(rank, *layer.weight.shape))
        parametrize.register_parametrization(layer, "weight", change)


def merge(network: Any) -> None:
    """Write the sums into the weights, under their own names, for good."""
    for layer in _layers(network.base_model, "parametrizations"):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _layers(base: nn.Module, having: str) -> list[Any]:
    return [
        module for name, module in base.named_modules()
        if name.rpartition(".")[2] in NAMES and getattr(module, having, None) is not None
    ]  # fmt: skip
