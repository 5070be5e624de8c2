"""Gradient descent that is taken back with each step computed once more, in the memory of few states and few graphs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from throughline.core._derivatives import Loss, pullback, slope, tracked
from throughline.core._trees import Tree, add_scaled, tree_map, tree_unflatten

__all__ = ["recomputed_descent", "stretches"]


def recomputed_descent(loss: Loss, x: Tree, y: Tree, *, steps: int, lr: float) -> tuple[Tree, Callable[[Tree], Tree]]:
    """The end of gradient descent on g(x, ·) from y, and v -> ∇_x⟨end, v⟩, once.

    The way is cut into `stretches`: each keeps the y where it begins, and has its graphs on the way back alone.
    """
    fixed, x = tree_map(Tensor.detach, x), tracked(x)
    leaves, spec = tree_flatten(x)

    def graphs(y: Tree, count: int, *, first: bool) -> tuple[list[Callable[[Tree], Any]], Tree]:
        """The pullbacks of ``count`` steps to x and y, of the very first to x alone; and where they lead."""
        pulls = []
        for step in range(count):
            y = tracked(y)
            with torch.enable_grad():
                after = add_scaled(y, -lr, slope(loss, x, y, "inner_loss"))
            reached = leaves if first and step == 0 else [*leaves, *tree_flatten(y)[0]]
            pulls.append(pullback(after, reached, keep=False))
            y = tree_map(Tensor.detach, after)
        return pulls, y

    state = sum(leaf.nbytes for leaf in tree_flatten(y)[0])
    with _Allocations() as made:
        pulls, *ahead = graphs(y, 1, first=False)
        graph = made.held() - state  # without y_1
    del pulls
    lengths, starts = stretches(steps, state, graph), []
    for length in lengths[:-1]:
        starts.append(y)
        for _ in range(length):
            y = ahead.pop() if ahead else add_scaled(y, -lr, slope(loss, fixed, y, "inner_loss"))
    pulls, end = graphs(y, lengths[-1], first=not starts)

    def pull(v: Tree) -> Tree:
        nonlocal pulls
        u, total = tree_flatten(v)[0], [torch.zeros_like(leaf) for leaf in leaves]
        while pulls:
            products = pulls.pop()(u)
            torch._foreach_add_(total, products[: len(total)])
            u = products[len(total) :]
            if starts and not pulls:
                pulls = graphs(starts.pop(), lengths[len(starts)], first=not starts)[0]
        return tree_unflatten(total, spec)

    return end, pull


def stretches(steps: int, state: int, graph: int) -> list[int]:
    """Lengths of stretches that all hold the same on the way back: a graph and a y a step, and the y's kept before."""
    lengths: list[int] = []
    while steps:
        lengths.append(min(steps, 1 + len(lengths) * state // max(1, state + graph)))
        steps -= lengths[-1]
    return lengths[::-1]


class _Allocations(TorchDispatchMode):
    """The memory of what is computed inside, as far as something still holds it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage._cdata not in given:
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._made[storage._cdata] = reference, storage.nbytes()
        return result

    def held(self) -> int:
        """Bytes."""
        return sum(size for storage, size in self._made.values() if not storage.expired())  # type: ignore[no-untyped-call, misc]


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    leaves = (leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor) and leaf.layout == torch.strided)
    return [leaf.untyped_storage() for leaf in leaves]
