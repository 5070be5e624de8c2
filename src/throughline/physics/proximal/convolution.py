"""The transpose of a convolution, whose own derivatives are convolutions of the usual kind."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["channels_last", "convolved_back"]


def convolved_back(g: Tensor, layer: Any, x: Tensor) -> Tensor:
    """The gradient of ⟨g, layer(x)⟩ by x, which lends its shape; differentiable by g and the weight of the layer.

    Autograd's own derivative by the weight is the convolution of one batch of images with another, whose kernels are as
    large as an image; here it costs what it costs in a first derivative.
    """
    result: Tensor = _Transposed.apply(g, layer.weight, x.detach(), layer.stride, layer.padding)  # type: ignore[no-untyped-call]
    return result


def channels_last(x: Tensor) -> Tensor:
    """The same images ``(B, C, S, S)``, as processors convolve them fastest; as they are on any other device."""
    if x.device.type != "cpu":
        return x
    if x.shape[1] == 1:  # any layout counts as both, and a copy alone says which is meant
        return x.clone(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last)


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(g: Tensor, weight: Tensor, x: Tensor, stride: Any, padding: Any) -> Tensor:
        return _derivative(g, x, weight, stride, padding, by=0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        g, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(g, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        g, weight = ctx.saved_tensors
        grad = channels_last(grad)
        by_g, by_weight, *_ = ctx.needs_input_grad
        return (
            F.conv2d(grad, weight, None, ctx.stride, ctx.padding) if by_g else None,
            _derivative(g, grad, weight, ctx.stride, ctx.padding, by=1) if by_weight else None,
            None,
            None,
            None,
        )


def _derivative(g: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, *, by: int) -> Tensor:
    """Of ⟨g, x ∗ weight⟩ by x (0) or by the weight (1)."""
    wanted = [by == 0, by == 1, False]
    both = torch.ops.aten.convolution_backward(g, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1, wanted)
    found: Tensor = both[by]
    return found
