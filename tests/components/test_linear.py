"""The quicker linear layer against torch's own: answers, gradients, and where it is not to be had."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tuneline import linear


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(7, 24, generator=draw).to(dtype).requires_grad_()
    return inputs, *(torch.randn(*shape, generator=draw).requires_grad_() for shape in ((10, 24), (10,)))


def answers(of, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    """Result and gradients, in fp32, with weights in fp32 under autocast where inputs are in bf16."""
    given = drawn(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = of(*given)
    slopes = torch.autograd.grad(out.float().square().sum(), given)
    assert out.dtype == dtype
    assert [slope.dtype for slope in slopes] == [one.dtype for one in given]
    return [one.float() for one in (out, *slopes)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float32, 0.0)])
def test_answers_and_gradients_are_those_of_torchs_own(dtype, tolerance):
    for found, expected in zip(answers(linear.linear, dtype), answers(functional.linear, dtype), strict=True):
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_kernel_is_taken_in_bf16_where_the_processor_has_it(monkeypatch):
    taken = []
    monkeypatch.setattr(linear._Linear, "apply", lambda *given: taken.append(given) or functional.linear(*given))
    linear.has_kernel.cache_clear()
    with torch.inference_mode():
        linear.linear(*(one.bfloat16() for one in drawn(torch.bfloat16)))
        linear.linear(*drawn(torch.float32))
    assert len(taken) == torch.ops.mkldnn._is_mkldnn_bf16_supported()  # not on one of AVX2


def test_torchs_own_stands_in_where_the_kernel_is_missing(monkeypatch):
    monkeypatch.setattr(linear, "has_kernel", lambda: False)
    for found, expected in zip(answers(linear.linear), answers(functional.linear), strict=True):
        assert torch.equal(found, expected)


def test_frozen_parts_get_no_gradient():
    inputs, weight, bias = drawn(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        out = linear.linear(inputs, weight.requires_grad_(False), bias)
    out.float().sum().backward()
    assert weight.grad is None
    assert torch.allclose(bias.grad, torch.full((10,), 7.0))
    assert inputs.grad is not None
