"""Checks of arguments that every area makes at its boundary."""

from torch import Tensor

__all__ = ["check_floating", "check_tensor"]


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
