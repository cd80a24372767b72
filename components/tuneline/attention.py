"""Attention within each of several texts that lie end to end in one row: what packed rows need of a network.

A function in transformers' registry of attention implementations (packing.py names it) finds each text by its length.
On a CPU it goes text by text, through torch's flash kernel; on a GPU through torch's attention for texts of various
lengths (`torch.nn.attention.varlen`), which takes bf16 and no dropout, and else through rows padded for it alone.
"""

from __future__ import annotations

import functools
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "tuneline_packed"

Lengths = tuple[int, ...]
"""Tokens of each text."""


def attend(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, *,
    segments: Lengths, scaling: float | None = None, dropout: float = 0.0, is_causal: bool | None = None,
    sliding_window: int | None = None, text_by_text: bool = True, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention as transformers' registry asks for it: [1, heads, T, size] each -> [1, T, heads, size].

    `text_by_text` is a CPU's way; without it, it goes a GPU's way.
    """
    del attention_mask  # segments say it
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.device.type != "cpu" or not text_by_text:
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        return packed(q, k, v, segments, causal, sliding_window, scale, dropout)[None], None
    if dropout == 0 and max(segments) <= (sliding_window or max(segments)) and has_kernel():
        return _SegmentAttention.apply(query, key, value, segments, causal, scale).transpose(1, 2), None
    parts = []
    for start, stop in _bounds(segments):
        part = slice(start, stop)
        mask = _window(stop - start, sliding_window, causal, query.device) if sliding_window else None
        attended = nn.functional.scaled_dot_product_attention(
            query[:, :, part], key[:, :, part], value[:, :, part], mask, dropout, causal and mask is None, scale=scale
        )
        parts.append(attended)
    return torch.cat(parts, 2).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)


def packed(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Lengths, causal: bool = False,
    window: int | None = None, scale: float | None = None, dropout: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Attention within each text on a GPU: [T, heads, size] each -> [T, heads, size].

    Args:
        query: of all texts, end to end, like key and value.
        key: as query.
        value: as query.
        lengths: tokens of each text.
        causal: whether a token looks back only.
        window: a token looks at those nearer than this; None looks at all.
        scale: of the scores; by default 1 / sqrt(size).
        dropout: share of the looks that are dropped.
    """
    if not dropout and varlen_fits(query.dtype, query.shape[-1], query.device):
        reach = window - 1 if window else -1
        ends, sides = offsets(lengths, query.device), (reach, 0 if causal else reach)
        return varlen(query, key, value, ends, max(lengths), sides, scale)
    index = places(lengths, query.device)
    q, k, v = (part[index.token].transpose(1, 2) for part in (query, key, value))
    mask = index.filled[:, None, None, :]
    if causal or window:
        mask = mask & _window(index.token.shape[1], window, causal, query.device)
        mask = mask | ~index.filled[:, None, :, None]  # filling looks anywhere, so that nothing is 0 / 0
    attended = nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
    return attended.transpose(1, 2)[index.text, index.place]


def varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, longest: int,
    window: tuple[int, int] = (-1, -1), scale: float | None = None,
) -> torch.Tensor:  # fmt: skip
    """torch's attention for texts of various lengths, which torch.compile sees as one operator."""
    from torch.nn.attention.varlen import varlen_attn

    found: Any = varlen_attn(query, key, value, ends, ends, longest, longest, window_size=window, scale=scale)
    return found


def varlen_fits(dtype: torch.dtype, size: int, device: torch.device) -> bool:
    """Whether `varlen` is for heads of this type and size, on this device."""
    return dtype in (torch.bfloat16, torch.float16) and size % 8 == 0 and _has_varlen(device)


class Places:
    """Where the tokens of a packed row go in rows padded to the longest, and back.

    Attributes:
        token: int64 [texts, longest], the token of each place; any where the place is filling.
        filled: bool [texts, longest], which places hold a token.
        text: int64 [T], the row of each token.
        place: int64 [T], its place there.
    """

    def __init__(self, lengths: Lengths, device: torch.device) -> None:
        ends = offsets(lengths, device).long()
        counts, starts = ends.diff(), ends[:-1]
        at = torch.arange(max(lengths), device=device)
        self.filled = at < counts[:, None]
        self.token = (starts[:, None] + at).clamp_max(sum(lengths) - 1)
        self.text = torch.repeat_interleave(torch.arange(len(lengths), device=device), counts, output_size=sum(lengths))
        self.place = torch.arange(sum(lengths), device=device) - starts[self.text]


# Every layer asks for the same; made outside of inference mode, whose tensors a training could not use.
@functools.lru_cache(maxsize=8)
def places(lengths: Lengths, device: torch.device) -> Places:
    """The Places of these texts."""
    with torch.inference_mode(False):
        return Places(lengths, device)


@functools.lru_cache(maxsize=8)
def offsets(lengths: Lengths, device: torch.device) -> torch.Tensor:
    """Where each text begins, and the end of the last: int32 [texts + 1]."""
    with torch.inference_mode(False):
        return moved(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device)


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To the device; to a GPU without waiting for what it has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class _SegmentAttention(torch.autograd.Function):
    """Attention within each segment by torch's flash kernel for CPUs, whose backward runs on fp32.

    In bf16 that backward is several times slower than casting to fp32 first. The operators are private to torch:
    `has_kernel` guards them.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Lengths,
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
            grad, q, k, v, o = (full(tensor[:, :, part]) for tensor in (grads[0], query, key, value, out))
            parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad, q, k, v, o, logsumexp, 0.0, ctx.causal, scale=ctx.scale
            )
            for result, found in zip(results, parts, strict=True):
                result[:, :, part] = found
        return *results, None, None, None


def full(tensor: torch.Tensor) -> torch.Tensor:
    """In fp32, or better."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _bounds(lengths: Lengths) -> list[tuple[int, int]]:
    return [(stop - length, stop) for stop, length in zip(accumulate(lengths), lengths, strict=True)]


def _window(length: int, width: int | None, causal: bool, device: torch.device) -> torch.Tensor:
    """True where a token may look: nearer than `width`, and not ahead where the model is causal."""
    at = torch.arange(length, device=device)
    distance = at[:, None] - at[None, :]
    near = distance.abs() < (width or length)
    return near & (distance >= 0) if causal else near


@functools.cache
def has_kernel() -> bool:
    """Whether this torch has the private operators, and they give what plain attention gives."""
    cpu = torch.device("cpu")
    return _is_right(cpu, torch.float32, 1e-5, lambda q, k, v: _SegmentAttention.apply(q, k, v, (5,), False, 8**-0.5))


@functools.cache
def _has_varlen(device: torch.device) -> bool:
    """Whether this torch has attention for texts of various lengths on the device, and it gives what plain attention
    gives."""

    def one(*inputs: torch.Tensor) -> torch.Tensor:
        query, key, value = (part[0].transpose(0, 1) for part in inputs)
        return varlen(query, key, value, offsets((5,), device), 5).transpose(0, 1)[None]

    return device.type == "cuda" and _is_right(device, torch.bfloat16, 0.05, one)


def _is_right(device: torch.device, dtype: torch.dtype, tolerance: float, fast: Any) -> bool:
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        try:
            return _agree(device, dtype, tolerance, fast)
        except (AttributeError, ImportError, RuntimeError, TypeError):
            return False


def _agree(device: torch.device, dtype: torch.dtype, tolerance: float, fast: Any) -> bool:
    draw = torch.Generator().manual_seed(0)
    drawn = [torch.randn(1, 2, 5, 8, generator=draw, dtype=torch.float32) for _ in range(3)]
    inputs = [one.to(device, dtype).requires_grad_() for one in drawn]
    outs = (fast(*inputs), nn.functional.scaled_dot_product_attention(inputs[0], inputs[1], inputs[2]))
    found, expected = ((out, *torch.autograd.grad(out.float().square().sum(), inputs)) for out in outs)
    return all(torch.allclose(one, other, atol=tolerance) for one, other in zip(found, expected, strict=True))
