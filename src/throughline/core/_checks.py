"""Checks of arguments that many parts need: each names the argument, what was given and what is wanted."""

from numbers import Integral

import torch
from torch import Tensor

__all__ = ["check_floating", "check_tensor", "integer", "readable"]


def check_tensor(name: str, x: object) -> None:
    """Raise a TypeError unless ``x`` is a tensor.

    >>> check_tensor("x", [1.0, 2.0])
    Traceback (most recent call last):
    TypeError: x must be a tensor, got list
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")


def check_floating(name: str, x: Tensor) -> None:
    """Raise a TypeError unless ``x`` is a tensor of floating point numbers."""
    check_tensor(name, x)
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}")


def integer(name: str, value: object, wanted: str = "an integer") -> int:
    """``value`` as Python's own integer, also from a NumPy one; a TypeError for 1.5 and for 2.0.

    >>> integer("bits", 1.5)
    Traceback (most recent call last):
    TypeError: bits must be an integer, got 1.5
    """
    if not isinstance(value, Integral):
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    return int(value)


def readable(x: Tensor) -> bool:
    """Whether values can be looked at: not while torch.compile traces, inside torch.func, or where there are none."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or x.is_meta)
