"""Nested dicts, lists and tuples of tensors as vectors: checked leaves, inner products, sums."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_structure, tree_unflatten

__all__ = ["Tree", "add_scaled", "check_like", "dot", "leaves_of", "tree_map", "tree_unflatten", "widened"]

Tree = Any  # a tensor, or nested dicts, lists and tuples of tensors


def leaves_of(tree: Tree, name: str) -> list[Tensor]:
    """The tensors of a tree, in order.

    Raises:
        ValueError: there is none.
        TypeError: a leaf that is no floating point tensor.
    """
    leaves = tree_flatten(tree)[0]
    if not leaves:
        raise ValueError(f"{name} must hold at least one tensor, got an empty {type(tree).__name__}")
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(
                f"{name} must be tensors or nested dicts, lists and tuples of them, got {type(leaf).__name__}"
            )
        if not leaf.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {leaf.dtype}")
    return leaves


def check_like(tree: Tree, like: Tree, name: str, other: str) -> None:
    """Raise a ValueError unless ``tree`` has the structure and shapes of ``like``."""
    ours, spec = leaves_of(tree, name), tree_structure(tree)
    theirs, wanted = tree_flatten(like)
    if spec != wanted:
        raise ValueError(f"{name} must have the structure of {other}, {wanted}, got {spec}")
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"{name} must have the shapes of {other}, got {tuple(a.shape)} for {tuple(b.shape)}")


def dot(a: Tree, b: Tree, batch_dims: int = 0) -> Tensor:
    """Σ ⟨a, b⟩ over the leaves, in float32 at least; the first ``batch_dims`` dimensions are kept."""
    parts: list[Tensor] = []
    left, right = tree_flatten(a)[0], tree_flatten(b)[0]
    with torch.autocast(left[0].device.type, enabled=False):
        for u, v in zip(left, right, strict=True):
            shape = (*u.shape[:batch_dims], math.prod(u.shape[batch_dims:]))
            parts.append(torch.linalg.vecdot(widened(u).reshape(shape), widened(v).reshape(shape)))
    return sum(parts[1:], parts[0])


def add_scaled(a: Tree, scale: Tensor | float, b: Tree, *, out: Tree | None = None) -> Tree:
    """``a + scale · b``, written to ``out`` if given; a scale of leading dimensions alone is spread over the others."""

    def add(u: Tensor, v: Tensor, out: Tensor | None = None) -> Tensor:
        if not isinstance(scale, Tensor):
            return torch.add(u, v, alpha=scale, out=out)
        return torch.addcmul(u, scale.to(u.dtype).reshape(scale.shape + (1,) * (u.dim() - scale.dim())), v, out=out)

    return tree_map(add, a, b) if out is None else tree_map(add, a, b, out)


def widened(leaf: Tensor) -> Tensor:
    """The tensor in float32 at least."""
    return leaf.to(torch.promote_types(leaf.dtype, torch.float32))
