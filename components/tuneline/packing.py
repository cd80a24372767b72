"""Several texts in one row without padding, attention confined to each text: no operation is spent on filling.

The rows of a batch are laid end to end as one row of T tokens. Everything but attention works on tokens alone, so that
only attention must know where a text ends: a function in transformers' registry of attention implementations does, and
serves every family that reads the registry. The classification head then gets one vector a text, as that family pools.
A family that cannot be packed, and a GPU for now, gets rows padded to the longest instead.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tuneline import checkpoint
from tuneline.fused import fuse

Rows = Sequence[Sequence[int]]
"""Token ids of each text, special tokens included."""

ATTENTION = "tuneline_packed"

# Families that read the attention registry in every layer, and the token whose vector their classification head reads.
# "config" leaves it to classifier_pooling.
POOLING = {
    "albert": "first", "bert": "first", "camembert": "first", "distilbert": "first", "electra": "first",
    "gpt2": "last", "modernbert": "config", "roberta": "first", "xlm-roberta": "first",
}  # fmt: skip


class PackedRow(NamedTuple):
    """A batch as one row: input_ids and position_ids, both int64 [1, T], and the tokens of each text."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    lengths: tuple[int, ...]

    def token_types(self, pair_at: Sequence[int]) -> torch.Tensor:
        """0 for the first text of each row and 1 from the second on, int64 [1, T]."""
        parts = [torch.arange(length) >= at for length, at in zip(self.lengths, pair_at, strict=True)]
        return torch.cat(parts)[None].long()


def pack(rows: Rows, first_position: int = 0) -> PackedRow:
    """Lay texts end to end; positions start at `first_position` in each."""
    lengths = tuple(len(row) for row in rows)
    ids = torch.tensor([token for row in rows for token in row])
    positions = torch.cat([torch.arange(first_position, first_position + length) for length in lengths])
    return PackedRow(ids[None], positions[None], lengths)


def pad(rows: Rows, pad_id: int, pair_at: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
    """Fill token rows up to the longest: input_ids, attention_mask and, where `pair_at` says where the second text of
    each row begins, token_type_ids; each [texts, longest] int64."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.as_tensor(row)
        mask[number, : len(row)] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if pair_at is not None:
        inputs["token_type_ids"] = mask * (torch.arange(longest) >= torch.tensor(pair_at)[:, None])
    return inputs


def tells_texts_apart(network: Any) -> bool:
    """Whether the family has token types, an embedding for each of two texts."""
    return (getattr(network.config, "type_vocab_size", None) or 0) > 1


class PaddedClassifier(nn.Module):
    """A sequence classifier of transformers that takes token rows: padded to the longest.

    Args:
        network: the classifier, on its device.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.typed = tells_texts_apart(network)

    def forward(self, rows: Rows, pair_at: Sequence[int] | None = None) -> torch.Tensor:
        """Logits [texts, labels], in fp32 or better; `pair_at` is where the second text of each row begins."""
        inputs = pad(rows, self.network.config.pad_token_id or 0, pair_at if self.typed else None)
        device = self.network.device
        return _full(self.network(**{name: value.to(device) for name, value in inputs.items()}).logits)


class PackedClassifier(nn.Module):
    """The same, packed. Its logits and gradients are the padded classifier's, to rounding.

    Args:
        network: the classifier, on a CPU; its attention implementation is set to the packed one.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        pooling = POOLING[network.config.model_type]
        if pooling == "config":
            pooling = "mean" if network.config.classifier_pooling == "mean" else "first"
        self.pooling = pooling
        self.typed = tells_texts_apart(network)
        self.first_position = checkpoint.first_position(network.config.to_dict())
        network.set_attn_implementation(ATTENTION)
        self.fused = self.pooling == "first" and fuse(network)

    def forward(self, rows: Rows, pair_at: Sequence[int] | None = None) -> torch.Tensor:
        """Logits [texts, labels], in fp32 or better; `pair_at` is where the second text of each row begins."""
        row = pack(rows, self.first_position)
        base = self.network.base_model
        inputs = {"input_ids": row.input_ids, "position_ids": row.position_ids, "segments": row.lengths}
        if self.typed and pair_at is not None:
            inputs["token_type_ids"] = row.token_types(pair_at)
        if self.fused:
            return _full(self.network(**inputs).logits)
        if self.pooling == "last":  # the head of these families scores every token of a row
            hidden = base(**inputs, use_cache=False).last_hidden_state
            return _full(self.network.score(self._pool(hidden, row.lengths))[:, 0])
        hook = base.register_forward_hook(lambda _base, _inputs, output: self._pooled(output, row.lengths))
        try:
            return _full(self.network(**inputs).logits)
        finally:
            hook.remove()

    def _pooled(self, output: Any, lengths: tuple[int, ...]) -> Any:
        """The encoder's output with one token a text in the place of all, which is what the family's own head reads."""
        output.last_hidden_state = self._pool(output.last_hidden_state, lengths)
        if "pooler_output" in output:
            output.pooler_output = _own_pooler(self.network.base_model, output.last_hidden_state)
        return output

    def _pool(self, hidden: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
        """[1, T, width] -> [texts, 1, width]."""
        if self.pooling == "mean":
            return torch.stack([part.mean(0, keepdim=True) for part in hidden[0].split(lengths)])
        ends = torch.tensor(lengths).cumsum(0)
        at = ends - 1 if self.pooling == "last" else ends - torch.tensor(lengths)
        return hidden[0, at][:, None]


def _own_pooler(base: Any, pooled: torch.Tensor) -> torch.Tensor:
    if isinstance(base.pooler, nn.Linear):  # ALBERT keeps its activation apart
        return base.pooler_activation(base.pooler(pooled[:, 0]))
    return base.pooler(pooled)


def classifier_for(network: Any) -> PackedClassifier | PaddedClassifier:
    """The network as something that takes token rows: packed where its family and device allow it, else padded."""
    return PackedClassifier(network) if can_pack(network) else PaddedClassifier(network)


def can_pack(network: Any) -> bool:
    """Whether packed rows are for this network: its family is known to take them, and it stands on a CPU."""
    return network.config.model_type in POOLING and network.device.type == "cpu"


class _SegmentAttention(torch.autograd.Function):
    """Attention within each segment by torch's flash kernel for CPUs, whose backward runs on fp32.

    In bf16 that backward is several times slower than casting to fp32 first. The operators are private to torch:
    `_has_kernel` guards them.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...],
        causal: bool, scale: float,
    ) -> torch.Tensor:  # fmt: skip
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        sums = []
        for start, stop in _bounds(lengths):
            part = slice(start, stop)
            out[:, :, part], logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query[:, :, part], key[:, :, part], value[:, :, part], 0.0, causal, scale=scale
            )
            sums.append(logsumexp)
        ctx.save_for_backward(query, key, value, out, *sums)
        ctx.lengths, ctx.causal, ctx.scale = lengths, causal, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        query, key, value, out, *sums = ctx.saved_tensors
        shapes = [like.transpose(1, 2) for like in (query, key, value)]
        results = [torch.empty_like(s, memory_format=torch.contiguous_format).transpose(1, 2) for s in shapes]
        for (start, stop), logsumexp in zip(_bounds(ctx.lengths), sums, strict=True):
            part = slice(start, stop)
            grad, q, k, v, o = (_full(tensor[:, :, part]) for tensor in (grads[0], query, key, value, out))
            parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad, q, k, v, o, logsumexp, 0.0, ctx.causal, scale=ctx.scale
            )
            for result, found in zip(results, parts, strict=True):
                result[:, :, part] = found
        return *results, None, None, None


def _full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _bounds(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    bounds, start = [], 0
    for length in lengths:
        bounds.append((start, start + length))
        start += length
    return bounds


@functools.cache
def _has_kernel() -> bool:
    """Whether this torch has the private operators, and they give what plain attention gives."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        try:
            return _kernel_is_right()
        except (AttributeError, RuntimeError, TypeError):
            return False


def _kernel_is_right() -> bool:
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 2, 5, 8, generator=draw, dtype=torch.float32, requires_grad=True) for _ in range(3)]
    fast = _SegmentAttention.apply(*inputs, (5,), False, 8**-0.5)
    slow = nn.functional.scaled_dot_product_attention(inputs[0], inputs[1], inputs[2])
    found, expected = (torch.autograd.grad(out.square().sum(), inputs) for out in (fast, slow))
    return all(
        torch.allclose(one, other, atol=1e-5) for one, other in zip((fast, *found), (slow, *expected), strict=True)
    )


def _attend(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, *,
    segments: tuple[int, ...], scaling: float | None = None, dropout: float = 0.0, is_causal: bool | None = None,
    sliding_window: int | None = None, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention as transformers' registry asks for it: [1, heads, T, size] each -> [1, T, heads, size]."""
    del attention_mask  # segments say it
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if dropout == 0 and max(segments) <= (sliding_window or max(segments)) and _has_kernel():
        return _SegmentAttention.apply(query, key, value, segments, causal, scale).transpose(1, 2), None
    parts = []
    for start, stop in _bounds(segments):
        part = slice(start, stop)
        mask = _window(stop - start, sliding_window, causal) if sliding_window else None
        attended = nn.functional.scaled_dot_product_attention(
            query[:, :, part], key[:, :, part], value[:, :, part], mask, dropout, causal and mask is None, scale=scale
        )
        parts.append(attended)
    return torch.cat(parts, 2).transpose(1, 2), None


def _window(length: int, width: int, causal: bool) -> torch.Tensor:
    """True where a token may look: nearer than `width`, and not ahead where the model is causal."""
    at = torch.arange(length)
    distance = at[:, None] - at[None, :]
    near = distance.abs() < width
    return near & (distance >= 0) if causal else near


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)
