"""The encoder of BERT-like families for packed rows, with less to do than their own code, and the same result.

Three things are spared. Query, key and value are one projection. Attention goes the way that is quicker on this
processor. And of the last layer only what the classification head reads is computed, each text's first token: with a
single query, keys and values need not be made at all.

In bf16 (autocast) the activations stay in bf16 from the embeddings to the head; the parameters stay in fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from tuneline import attention
from tuneline.attention import Lengths, full, offsets
from tuneline.linear import linear

BERT_LIKE = ("bert", "camembert", "electra", "roberta", "xlm-roberta")

ROUND = 16
"""Windows on texts are a multiple of so many tokens."""
FILL = 32
"""So is what goes through the layers at once: without it every batch has kernels of its own, 9 MB of them."""


@dataclass(frozen=True)
class Layer:
    """The parts of a layer that normalizes after each residual sum, whatever its family calls them."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    out_dropout: float
    out_norm: nn.LayerNorm
    up: nn.Linear
    activation: Callable[[torch.Tensor], torch.Tensor]
    down: nn.Linear
    down_dropout: float
    down_norm: nn.LayerNorm


def fuse(network: Any, kind: type[Encoder]) -> bool:
    """Let the network's encoder take packed rows by this module, where its family allows it.

    Its encoder then needs `segments`, the tokens of each text, and gives one vector a text: [texts, 1, width].

    Args:
        network: a classifier of transformers.
        kind: what stands in for the encoder on the device where the network is.

    Returns:
        Whether it does; else nothing has changed.
    """
    encoder = encoder_of(network)
    layers = layers_of(network, encoder)
    if encoder is None or not layers:
        return False
    encoder.forward = kind(layers, network.config.num_attention_heads, encoder)
    return True


def encoder_of(network: Any) -> Any:
    """The module that holds the layers of a BERT-like network; None where there is none."""
    base: Any = network.base_model
    return base.transformer if network.config.model_type == "distilbert" else getattr(base, "encoder", None)


def layers_of(network: Any, encoder: Any) -> list[Layer]:
    """The encoder's layers; none where the family, or attention with dropout, is not for this module."""
    config = network.config
    if config.model_type == "distilbert":
        return [] if config.attention_dropout else [_distilbert(layer) for layer in encoder.layer]
    if config.model_type not in BERT_LIKE or config.is_decoder or config.attention_probs_dropout_prob:
        return []
    return [_bert(layer) for layer in encoder.layer]


def _bert(layer: Any) -> Layer:
    own, out, down = layer.attention.self, layer.attention.output, layer.output
    return Layer(
        own.query, own.key, own.value, out.dense, out.dropout.p, out.LayerNorm,
        layer.intermediate.dense, layer.intermediate.intermediate_act_fn, down.dense, down.dropout.p, down.LayerNorm,
    )  # fmt: skip


def _distilbert(layer: Any) -> Layer:
    own, ffn = layer.attention, layer.ffn
    return Layer(
        own.q_lin, own.k_lin, own.v_lin, own.out_lin, 0.0, layer.sa_layer_norm,
        ffn.lin1, ffn.activation, ffn.lin2, ffn.dropout.p, layer.output_layer_norm,
    )  # fmt: skip


class Encoder:
    """What stands in for an encoder's own forward."""

    def __init__(self, layers: list[Layer], heads: int, module: nn.Module) -> None:
        self.layers, self.heads, self.module = layers, heads, module

    def __call__(self, hidden_states: torch.Tensor, *_: Any, segments: Lengths, **__: Any) -> Any:
        """[1, T, width] -> last_hidden_state [texts, 1, width]."""
        return self.rest_of(hidden_states[0], segments, 0)

    def layers_before(self, hidden: torch.Tensor, segments: Lengths, start: int, stop: int) -> torch.Tensor:
        """All tokens through the layers from `start` up to, and without, `stop`: [T, width] -> [T, width]."""
        if torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        count = len(hidden)
        if start < stop and count % FILL:
            hidden = functional.pad(hidden, (0, 0, 0, -count % FILL))
        for layer in self.layers[start:stop]:
            fused = _project(hidden, layer.query, layer.key, layer.value)
            hidden = self._rest(layer, hidden, _attend(fused, segments, self.heads))
        return hidden[:count]

    def rest_of(self, hidden: torch.Tensor, segments: Lengths, start: int) -> Any:
        """What layer `start` is given, [T, width], through it and all that follow, as `__call__` gives it."""
        hidden, last = self.layers_before(hidden, segments, start, len(self.layers) - 1), self.layers[-1]
        first = hidden[offsets(segments, hidden.device)[:-1]]
        pooled = self._rest(last, first, self._attend_first(last, hidden, first, segments))
        return self.output(pooled)

    @staticmethod
    def output(pooled: torch.Tensor) -> Any:
        """[texts, width] as an encoder's output of one token a text."""
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=pooled[:, None])

    def _attend_first(self, layer: Layer, hidden: torch.Tensor, first: torch.Tensor, lengths: Lengths) -> torch.Tensor:
        """Attention of each text's first token alone, [texts, width] in fp32.

        A score is q . (K x + k) = (K' q) . x + q . k, and the sum of p (V x + v) is V (sum of p x) + v: so K and V meet
        one vector a head and a text, not every token.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            first = full(first)
            by_head = (self.heads, -1, hidden.shape[1])
            query = layer.query(first).unflatten(1, (self.heads, -1))
            query = query * query.shape[-1] ** -0.5
            looks = torch.einsum("nhs,hsw->nhw", query, layer.key.weight.view(by_head))
            shifts = torch.einsum("nhs,hs->nh", query, layer.key.bias.view(self.heads, -1))[..., None]
            sums = self._sums(looks, shifts, hidden, lengths)
            attended = torch.einsum("nhw,hsw->nhs", sums, layer.value.weight.view(by_head))
            return attended.flatten(1) + layer.value.bias

    def _sums(self, looks: torch.Tensor, shifts: torch.Tensor, hidden: torch.Tensor, lengths: Lengths) -> torch.Tensor:
        """The sum of p x for each head and text, [texts, heads, width]: p is the softmax of look . x + shift."""
        sums = [
            torch.addmm(shift, look, text.T).softmax(-1) @ text
            for shift, look, text in zip(shifts, looks, full(hidden).split(lengths), strict=True)
        ]
        return torch.stack(sums)

    def _rest(self, layer: Layer, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """All that follows attention, token by token: [T, width] each."""
        out = self._drop(_through(layer.out, attended), layer.out_dropout)
        hidden = layer.out_norm(hidden + out)
        inner = layer.activation(_through(layer.up, hidden))
        down = self._drop(_through(layer.down, inner), layer.down_dropout)
        return layer.down_norm(hidden + down)

    def _drop(self, values: torch.Tensor, share: float) -> torch.Tensor:
        return functional.dropout(values, share, self.module.training) if share else values


def _project(hidden: torch.Tensor, *linears: nn.Linear) -> torch.Tensor:
    """Several projections as one: [T, width of all]."""
    weight, bias = torch.cat([one.weight for one in linears]), torch.cat([one.bias for one in linears])
    return linear(hidden, weight, bias)


def _through(layer: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    """What the layer makes of [T, width]."""
    return linear(hidden, layer.weight, layer.bias)


# Attention sees each text through a window of a rounded length: oneDNN compiles a kernel for every new shape, and keeps
# it, and torch's flash kernel takes up to twice as long for other lengths. The neighbour's tokens in the window get no
# attention and give none. What fills the row up behind the last text gets zeros: what it would hold otherwise could be
# no number, and would spoil a sum over all rows.


def _attend(fused: torch.Tensor, lengths: Lengths, heads: int) -> torch.Tensor:
    """Attention within each text: [T, 3 * width], query, key and value -> [T, width]."""
    flash = attention.has_kernel() and (has_amx() or not fused.requires_grad)
    return (_Flash if flash else _Plain).apply(fused, lengths, heads)


@functools.cache
def has_amx() -> bool:
    """Whether the processor multiplies bf16 in tiles; then all else weighs more, and flash attention pays for training
    too."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


class _Flash(torch.autograd.Function):
    """By torch's flash kernel, which keeps no probabilities. Its backward runs on fp32: in bf16 it is several times
    slower. The operators are private to torch; attention.has_kernel guards them."""

    @staticmethod
    def forward(ctx: Any, fused: torch.Tensor, lengths: Lengths, heads: int) -> torch.Tensor:
        out, sums = fused.new_empty(len(fused), fused.shape[1] // 3), []
        for start, length in _places(lengths):
            window = _split(_piece(fused, start, length), 3, heads)
            attended, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *window, 0.0, False, attn_mask=_neighbours(length, window.shape[-2], fused.dtype)
            )
            _put(out, start, length, attended[0])
            sums.append(logsumexp)
        out[sum(lengths) :] = 0
        ctx.save_for_backward(fused, out, *sums)
        ctx.lengths, ctx.heads = lengths, heads
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        fused, out, *sums = ctx.saved_tensors
        slopes = torch.empty_like(fused)
        parts = slopes.split(out.shape[1], 1)
        for (start, length), logsumexp in zip(_places(ctx.lengths), sums, strict=True):
            window = _split(full(_piece(fused, start, length)), 3, ctx.heads)
            wanted, had = (
                _split(full(_piece(one[: start + length], start, length)), 1, ctx.heads)[0] for one in (grads[0], out)
            )
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                wanted, *window, had, logsumexp, 0.0, False,
                attn_mask=_neighbours(length, window.shape[-2], window.dtype),
            )  # fmt: skip
            for part, of_part in zip(parts, found, strict=True):
                _put(part, start, length, of_part[0])
        slopes[sum(ctx.lengths) :] = 0
        return slopes, None, None


def _split(piece: torch.Tensor, parts: int, heads: int) -> torch.Tensor:
    """[length, parts * heads * size] as [parts, 1, heads, length, size]."""
    return piece.view(1, len(piece), parts, heads, -1).permute(2, 0, 3, 1, 4)


@functools.lru_cache(maxsize=1024)
def _neighbours(length: int, rounded: int, dtype: torch.dtype) -> torch.Tensor | None:
    """What is added to scores, so that the neighbour's tokens in a window get no attention: [1, 1, 1, rounded]."""
    if length == rounded:
        return None
    with torch.inference_mode(False):
        return torch.zeros(1, 1, 1, rounded, dtype=dtype).index_fill_(3, torch.arange(length, rounded), -torch.inf)


class _Plain(torch.autograd.Function):
    """By products that keep the probabilities for the gradient: quicker for training where there is no AMX."""

    @staticmethod
    def forward(ctx: Any, fused: torch.Tensor, lengths: Lengths, heads: int) -> torch.Tensor:
        out, saved = fused.new_empty(len(fused), fused.shape[1] // 3), []
        for start, length in _places(lengths):
            parts = _window(fused, start, length, 3, heads)
            queries, keys, values = parts
            queries.mul_(queries.shape[-1] ** -0.5)
            scores = torch.bmm(queries, keys.transpose(1, 2))
            scores[:, :, length:] = -torch.inf
            chances = scores.softmax(-1)
            chances[:, length:] = 0
            _put(out, start, length, torch.bmm(chances, values))
            saved += [parts, chances]
        out[sum(lengths) :] = 0
        ctx.save_for_backward(*saved)
        ctx.lengths, ctx.heads = lengths, heads
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        width = grads[0].shape[1]
        slopes = grads[0].new_empty(len(grads[0]), 3 * width)
        of_queries, of_keys, of_values = slopes.split(width, 1)
        saved = iter(ctx.saved_tensors)
        for start, length in _places(ctx.lengths):
            (queries, keys, values), chances = next(saved), next(saved)
            wanted = _window(grads[0], start, length, 1, ctx.heads)[0]
            of_chances = torch.bmm(wanted, values.transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_chances, chances, -1, chances.dtype)
            _put(of_queries, start, length, torch.bmm(of_scores, keys).mul_(queries.shape[-1] ** -0.5))
            _put(of_keys, start, length, torch.bmm(of_scores.transpose(1, 2), queries))
            _put(of_values, start, length, torch.bmm(chances.transpose(1, 2), wanted))
        slopes[sum(ctx.lengths) :] = 0
        return slopes, None, None


def _window(tokens: torch.Tensor, start: int, length: int, parts: int, heads: int) -> torch.Tensor:
    """Tokens [T, parts * heads * size] from `start` as a copy [parts, heads, length rounded up, size]."""
    piece = _piece(tokens, start, length)
    return piece.view(len(piece), parts, heads, -1).permute(1, 2, 0, 3).clone(memory_format=torch.contiguous_format)


def _piece(tokens: torch.Tensor, start: int, length: int) -> torch.Tensor:
    """The tokens from `start` on, as many as the length rounded up; zeros where there are no more."""
    length = -(-length // ROUND) * ROUND
    piece = tokens[start : start + length]
    return functional.pad(piece, (0, 0, 0, length - len(piece))) if len(piece) < length else piece


def _put(tokens: torch.Tensor, start: int, length: int, window: torch.Tensor) -> None:
    """[heads, length rounded up, size] into tokens [T, heads * size], without what is a neighbour's."""
    heads, _, size = window.shape
    tokens[start : start + length].view(length, heads, size).copy_(window[:, :length].transpose(0, 1))


def _places(lengths: Lengths) -> list[tuple[int, int]]:
    return [(stop - length, length) for stop, length in zip(accumulate(lengths), lengths, strict=True)]
