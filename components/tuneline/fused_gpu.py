"""The encoder of fused.py on a GPU: the same savings, by other operators.

Between the matrix products a GPU waits for its memory, so that a layer is one function of tensors that torch.compile
can put together: casts of the weights, biases, dropout, residuals, activation and normalization then take few passes
over the tokens. Without compilation the function runs as it stands.

In bf16 all of it is bf16 but the sums inside the kernels: autocast would normalize in fp32, and pass the result on so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from tuneline.attention import full, offsets, packed, places, varlen, varlen_fits
from tuneline.fused import Encoder, Layer, Lengths

Activation = Callable[[torch.Tensor], torch.Tensor]


class Weights(NamedTuple):
    """The parameters of a layer but for those of its attention, in fp32."""

    out: torch.Tensor
    out_bias: torch.Tensor
    out_norm: torch.Tensor
    out_norm_bias: torch.Tensor
    up: torch.Tensor
    up_bias: torch.Tensor
    down: torch.Tensor
    down_bias: torch.Tensor
    down_norm: torch.Tensor
    down_norm_bias: torch.Tensor

    @classmethod
    def of(cls, layer: Layer) -> Weights:
        """Of this layer."""
        modules: list[Any] = [layer.out, layer.out_norm, layer.up, layer.down, layer.down_norm]
        return cls._make(weight for module in modules for weight in (module.weight, module.bias))


class Rest(NamedTuple):
    """What a layer is, beside its parameters."""

    heads: int
    activation: Activation
    out_dropout: float
    down_dropout: float
    out_epsilon: float
    down_epsilon: float

    def whole(
        self, hidden: torch.Tensor, projections: tuple[torch.Tensor, ...], ends: torch.Tensor, longest: int,
        weights: Weights,
    ) -> torch.Tensor:  # fmt: skip
        """A layer by torch's attention for texts of various lengths: [T, width] -> [T, width]."""
        query, key, value = project(hidden, projections, self.heads)
        return self.after_attention(hidden, varlen(query, key, value, ends, longest).flatten(1), weights)

    def after_attention(self, hidden: torch.Tensor, attended: torch.Tensor, weights: Weights) -> torch.Tensor:
        """All that follows attention, token by token: [T, width] each."""
        one = Weights._make(weight.to(hidden.dtype) for weight in weights)
        width = (hidden.shape[-1],)
        out = _drop(functional.linear(attended, one.out, one.out_bias), self.out_dropout)
        hidden = functional.layer_norm(hidden + out, width, one.out_norm, one.out_norm_bias, self.out_epsilon)
        up = self.activation(functional.linear(hidden, one.up, one.up_bias))
        down = _drop(functional.linear(up, one.down, one.down_bias), self.down_dropout)
        return functional.layer_norm(hidden + down, width, one.down_norm, one.down_norm_bias, self.down_epsilon)


def project(hidden: torch.Tensor, projections: tuple[torch.Tensor, ...], heads: int) -> tuple[torch.Tensor, ...]:
    """Query, key and value by one product with their weights and biases, in turn: [T, heads, size] each."""
    weight, bias = torch.cat(projections[::2]), torch.cat(projections[1::2])
    found = functional.linear(hidden, weight.to(hidden.dtype), bias.to(hidden.dtype))
    # In three columns, not by unbind: its gradient is a stack, which compiles to a kernel seven times slower than cat.
    return tuple(part.view(len(hidden), heads, -1) for part in found.chunk(3, 1))


def _drop(values: torch.Tensor, share: float) -> torch.Tensor:
    return functional.dropout(values, share) if share else values


class GpuEncoder(Encoder):
    """See fused.Encoder.

    Args:
        layers: of the encoder.
        heads: of each layer.
        module: the encoder.
    """

    def __init__(self, layers: list[Layer], heads: int, module: nn.Module) -> None:
        super().__init__(layers, heads, module)
        self.compiled: dict[Rest, Callable[..., torch.Tensor]] | None = None

    def compile(self) -> None:
        """Have the layers compiled when they first train; all layers share the result, whatever the texts' lengths."""
        # The activation is a module of its own in each layer: one stands for all, so that one compilation does.
        self.layers = [replace(layer, activation=self.layers[0].activation) for layer in self.layers]
        self.compiled = {}

    def layers_before(self, hidden: torch.Tensor, segments: Lengths, start: int, stop: int) -> torch.Tensor:
        """See fused.Encoder."""
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            hidden = hidden.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            for layer in self.layers[start:stop]:
                hidden = self._layer(layer, hidden, segments)
        return hidden

    def _layer(self, layer: Layer, hidden: torch.Tensor, lengths: Lengths) -> torch.Tensor:
        linears = (layer.query, layer.key, layer.value)
        projections = tuple(weight for linear in linears for weight in (linear.weight, linear.bias))
        if varlen_fits(hidden.dtype, hidden.shape[1] // self.heads, hidden.device):
            ends = offsets(lengths, hidden.device)
            return self._whole(self._rest_of(layer))(hidden, projections, ends, max(lengths), Weights.of(layer))
        query, key, value = project(hidden, projections, self.heads)
        return self._rest(layer, hidden, packed(query, key, value, lengths).flatten(1))

    def _rest_of(self, layer: Layer) -> Rest:
        drops = (layer.out_dropout, layer.down_dropout) if self.module.training else (0.0, 0.0)
        return Rest(self.heads, layer.activation, *drops, layer.out_norm.eps, layer.down_norm.eps)

    def _whole(self, rest: Rest) -> Callable[..., torch.Tensor]:
        if self.compiled is None or not torch.is_grad_enabled():
            return rest.whole
        if rest not in self.compiled:
            self.compiled[rest] = torch.compile(rest.whole, dynamic=True)
        return self.compiled[rest]

    def _rest(self, layer: Layer, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return self._rest_of(layer).after_attention(hidden, attended.to(hidden.dtype), Weights.of(layer))

    def _sums(self, looks: torch.Tensor, shifts: torch.Tensor, hidden: torch.Tensor, lengths: Lengths) -> torch.Tensor:
        """See fused.Encoder: for all texts at once, in rows padded for it."""
        index = places(lengths, hidden.device)
        rows = hidden[index.token]
        scores = full(torch.bmm(rows, looks.to(rows.dtype).transpose(1, 2))) + shifts.transpose(1, 2)
        chances = scores.masked_fill(~index.filled[..., None], -torch.inf).softmax(1)
        return full(torch.bmm(chances.to(rows.dtype).transpose(1, 2), rows))
