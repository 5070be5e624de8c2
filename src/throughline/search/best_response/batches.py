"""Batches as loaders yield them: pairs of inputs and targets, each a tensor or several."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["batch_size", "pair"]


def pair(name: str, batches: Iterator[Any]) -> tuple[Any, Any]:
    """The next inputs and targets.

    Raises:
        TypeError: ``batches`` is no iterator, or yields something else.
    """
    if not hasattr(batches, "__next__"):
        raise TypeError(f"{name} must be an iterator, such as itertools.cycle(loader), got {type(batches).__name__}")
    batch = next(batches)
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if hasattr(batch, "__len__") else ""
        raise TypeError(
            f"{name} must yield pairs (inputs, targets), got a {type(batch).__name__}{size}; either may be a dict or "
            "tuple of tensors, as in (inputs, (targets, weights))"
        )
    return batch[0], batch[1]


def batch_size(inputs: Any, targets: Any) -> int:
    """B of inputs ``(B, ...)``: of a tensor, of several in a dict, list or tuple, or of a list of samples.

    Raises:
        ValueError: a dict holds tensors of different batches, or none.
    """
    if isinstance(inputs, Tensor):
        return len(inputs)
    within = dict(inputs) if isinstance(inputs, Mapping) else inputs
    sizes = {len(leaf) for leaf in tree_leaves(within) if isinstance(leaf, Tensor) and leaf.ndim}
    if isinstance(inputs, Mapping) or (isinstance(targets, Tensor) and targets.ndim and sizes == {len(targets)}):
        if len(sizes) != 1:
            raise ValueError(f"inputs must hold tensors (B, ...) of one batch, got leading dimensions {sorted(sizes)}")
        return sizes.pop()
    return len(inputs)
