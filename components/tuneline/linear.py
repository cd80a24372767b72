"""A linear layer in bf16 on a CPU: product and bias by one oneDNN kernel.

torch's own copies the bias into the result first, and adds the product to it: a third of the time, where the processor
multiplies as quickly as one with AMX does.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn import functional


def linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """[T, columns] -> [T, rows], as torch.nn.functional.linear has it.

    Args:
        inputs: in bf16 on a CPU for the kernel, else torch's own way is taken.
        weight: [rows, columns], in bf16 or, under autocast, in fp32.
        bias: [rows], likewise.
    """
    if inputs.dtype != torch.bfloat16 or inputs.device.type != "cpu" or not has_kernel():
        return functional.linear(inputs, weight, bias)
    return _Linear.apply(inputs, weight.to(inputs.dtype), bias.to(inputs.dtype))


class _Linear(torch.autograd.Function):
    """The kernel, which is private to torch (`has_kernel` guards it), with its gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (inputs, weight), (slopes,) = ctx.saved_tensors, grads
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        return (
            slopes @ weight if of_inputs else None,
            slopes.T @ inputs if of_weight else None,
            slopes.sum(0) if of_bias else None,
        )


@functools.cache
def has_kernel() -> bool:
    """Whether this torch has the kernel, and it gives what torch's own way gives."""
    draw = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():
        inputs, weight, bias = (
            torch.randn(*shape, generator=draw).bfloat16() for shape in ((5, 16), (8, 16), (8,))
        )  # fmt: skip
        try:
            found = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
        except (AttributeError, RuntimeError, TypeError):
            return False
        return torch.allclose(found, functional.linear(inputs, weight, bias), atol=0.05)
