"""Checks of arguments that every area makes at its boundary."""

from numbers import Integral

import torch
from torch import Tensor

__all__ = ["check_floating", "check_tensor", "integer", "readable"]


def check_tensor(name: str, value: object) -> None:
    """Raise a TypeError unless ``value`` is a tensor.

    >>> check_tensor("x", [1.0, 2.0])
    Traceback (most recent call last):
    TypeError: x must be a tensor, got list
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def check_floating(name: str, value: object) -> None:
    """Raise a TypeError unless ``value`` is a floating point tensor.

    >>> check_floating("x", Tensor([1.0]).long())
    Traceback (most recent call last):
    TypeError: x must be floating point, got torch.int64
    """
    if not isinstance(value, Tensor):
        check_tensor(name, value)
    elif not value.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {value.dtype}")


def integer(name: str, value: object, wanted: str = "an integer") -> int:
    """``value``, also a NumPy integer, as Python's own; a TypeError for 1.5 and for 2.0.

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
