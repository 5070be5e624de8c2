"""Discrete steps inside of a network that is trained by gradient: straight-through estimators.

"Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation" (arXiv 1308.3432): the
forward pass is discrete, and the backward pass takes it for something smooth.
"""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from throughline.core.checks import check_floating, readable

__all__ = ["straight_through", "straight_through_categorical"]


def straight_through(function: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
    """``function(x, *args)``, with the gradient of the identity by ``x`` and none by ``args``.

    Args:
        function: returns a new tensor of the shape and dtype of ``x``, such as `torch.round`.
        x: floating point, of any shape.
        args: what else ``function`` takes.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: ``function`` returned another shape or dtype.

    >>> x = torch.tensor([0.2, 1.6], requires_grad=True)
    >>> (3 * straight_through(torch.round, x)).sum().backward()
    >>> x.grad
    tensor([3., 3.])
    """
    check_floating("x", x)
    value: Tensor
    if x.requires_grad and torch.is_grad_enabled():
        value = _StraightThrough.apply(function, x, *args)  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            value = function(x, *args)
    if value.shape != x.shape or value.dtype != x.dtype:
        raise ValueError(
            f"function must return what x is, {tuple(x.shape)} of {x.dtype}, got {tuple(value.shape)} of {value.dtype}"
        )
    return value


def straight_through_categorical(logits: Tensor, index: int | Tensor) -> Tensor:
    """The one-hot of a category that was drawn, with the gradient of softmax(logits).

    With b the gradient by the one-hot and p the softmax, the gradient by ``logits`` is p ⊙ (b - ⟨p, b⟩): unlike the
    derivative by the logarithm of p it knows what the categories that were not drawn would have done.

    Args:
        logits: floating point, ``(..., n)`` with n >= 1.
        index: integers of 0, …, n - 1, ``(...)``, or one for all.

    Returns:
        ``(..., n)``, exactly 0 and 1, in the dtype of ``logits``.

    Raises:
        TypeError: ``logits`` is not floating point, or ``index`` not of integers.
        ValueError: a shape does not fit, or ``index`` is out of range.

    >>> logits = torch.tensor([0.0, 0.0], requires_grad=True)
    >>> gate = straight_through_categorical(logits, 1)
    >>> gate @ torch.tensor([5.0, 7.0]), torch.autograd.grad(gate[1], logits)[0]
    (tensor(7., grad_fn=<DotBackward0>), tensor([-0.2500,  0.2500]))
    """
    check_floating("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must be (..., n) with n >= 1, got shape {tuple(logits.shape)}")
    return straight_through(_one_hot, logits.softmax(-1), _checked(index, logits))


def _checked(index: object, logits: Tensor) -> int | Tensor:
    n = logits.shape[-1]
    if isinstance(index, Integral):
        number = int(index)
        if not 0 <= number < n:
            raise ValueError(f"index must be from 0 to {n - 1}, got {number}")
        return number
    if not isinstance(index, Tensor):
        raise TypeError(f"index must be an integer or a tensor of them, got {type(index).__name__}")
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise TypeError(f"index must be of integers, got {index.dtype}")
    if index.shape not in (logits.shape[:-1], ()):
        raise ValueError(f"index must be {tuple(logits.shape[:-1])} or a number, got shape {tuple(index.shape)}")
    if readable(index) and index.numel() and not ((index >= 0) & (index < n)).all():
        raise ValueError(f"index must be from 0 to {n - 1}, got {index.min().item()} to {index.max().item()}")
    return index


def _one_hot(p: Tensor, index: int | Tensor) -> Tensor:
    places = torch.arange(p.shape[-1], device=p.device)
    hot = places == (index.unsqueeze(-1) if isinstance(index, Tensor) else index)
    return hot.to(p.dtype).expand(p.shape).clone()


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(function: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
        return function(x, *args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.count = len(inputs) - 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, grad, *(None,) * ctx.count
